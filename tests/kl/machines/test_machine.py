"""What every machine says before it has weights, and of data that are none."""

import math

import numpy as np
import pytest
import torch

import kl

MACHINES = [
    lambda: kl.KernelMachine(kl.Laplacian(1.0)),
    lambda: kl.GeneralKernelMachine(kl.Laplacian(1.0), centers=5),
    lambda: kl.ConjugateGradientMachine(kl.Laplacian(1.0)),
]


@pytest.fixture(params=MACHINES, ids=["eigenpro2", "eigenpro4", "pcg"])
def machine(request):
    return request.param()


@pytest.mark.parametrize("name", ["rkhs_norm", "rkhs_norm_per_class", "batch_rows", "parameters_chosen"])
def test_a_machine_without_weights_says_so(machine, name):
    with pytest.raises(kl.InputError, match=r"holds no weights: call fit or prepare\(x, y\), or load a checkpoint$"):
        getattr(machine, name)


def test_other_names_are_unknown_to_it_as_before(machine):
    assert not hasattr(machine, "rkhs_nrom")
    with pytest.raises(AttributeError, match="object has no attribute 'rkhs_nrom'"):
        _ = machine.rkhs_nrom


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(9, 2), torch.full((9, 1), math.nan), "y must be finite; row 0 holds NaN or infinity"),
        (torch.ones(9, 2), torch.ones(9, 1).long(), r"y must be a float tensor .*; got \(9, 1\) torch.int64"),
        (torch.ones(9, 2), torch.ones(8, 1), "x and y must have one row per sample; got 9 rows of features and 8 of"),
        (torch.ones(9, 2), torch.ones(9), r"y must be a float tensor of shape \(rows, columns\); got \(9,\)"),
        (np.ones((9, 2)), np.ones((9, 1)), r"x must be a float tensor of shape \(rows, columns\); got ndarray"),
    ],
)
def test_prepare_checks_the_training_rows(machine, x, y, message):
    with pytest.raises(kl.InputError, match=message):
        machine.prepare(x, y)
    assert not machine.is_fitted
