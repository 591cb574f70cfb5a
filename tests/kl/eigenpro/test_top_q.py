"""The rank q for a given batch: spectra with gaps, batches of every size, and the automatic batch by its name."""

import numpy as np
import oracle
import pytest
import torch
from training import fit

from datamodules import ArrayDataModule, DigitsDataModule
from kl import Gaussian, KernelMachine, Laplacian, Polynomial
from kl.eigenpro.rules import optimal_step_size
from kl.eigenpro.spectrum import nystrom_eigensystem
from kl.eigenpro.top_q import RankCandidates, Ridge, rank_candidates
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric


def gaps(n=600, d=32, c=4):
    """Normal rows: one large eigenvalue, then a gap, d alike, a gap, and the rest; c classes by linear functions."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(n + 10, d, generator=generator), torch.randn(d, c, generator=generator)
    y = torch.nn.functional.one_hot((x @ w).argmax(dim=1), c).float()
    return ArrayDataModule.from_arrays(x[:n], y[:n], x[n:], y[n:])


def planned(kernel, data, **options):
    machine = KernelMachine(kernel, **options)
    data.setup()
    machine.take(data)
    return machine.plan


def test_a_batch_at_a_gap_of_the_spectrum_trains_as_well_as_the_automatic_one():
    """The largest rank whose critical batch is at most 64 is 1, with m* = 3, and an mse of 5e-2."""
    data, mse = gaps(), {}
    for batch in ("auto", 64):
        machine = KernelMachine(Laplacian("auto"), batch_size=batch)
        fit(machine, data, 10)
        mse[batch] = machine.train_metrics["train/mse"]
    assert machine.plan.batch_size == 64
    assert mse["auto"] < 1e-8
    assert mse[64] < 1e-8


@pytest.mark.parametrize("kernel", [Laplacian("auto"), Gaussian("auto"), Laplacian(2.0), Polynomial(2, 1.0)])
@pytest.mark.parametrize("make", [gaps, lambda: gaps(300, 3, 2), lambda: DigitsDataModule(train_size=400)])
def test_to_name_the_automatic_batch_is_to_leave_it(kernel, make):
    data = make()
    automatic = planned(kernel, data)
    assert planned(kernel, data, batch_size=automatic.batch_size) == automatic


@pytest.mark.parametrize("batch", [2, 8, 32, 64, 128, 600])
@pytest.mark.parametrize("kernel", [Laplacian("auto"), Gaussian("auto")])
def test_no_rank_would_be_much_faster(kernel, batch):
    """Steps to a given error go as 1 / eta, and here a step costs nearly the same at every rank."""
    data = gaps()
    chosen = planned(kernel, data, batch_size=batch)
    others = [planned(kernel, data, batch_size=batch, top_q=q).step_size for q in (1, 2, 20, 33, 34, 50, 75)]
    assert chosen.step_size > 0.97 * max(others)


def test_the_fastest_rank_is_that_of_the_least_time():
    lambda_1, beta = torch.tensor([0.5, 0.02, 0.015, 0.002, 0.001]).double(), torch.linspace(1, 0.8, 5).double()
    candidates = RankCandidates(beta, lambda_1)
    for batch in (1, 10, 60, 1000):
        for rank_flops in (0.0, 0.01, 0.3, 5.0):
            for most in (1, 3, 5):
                found = candidates.fastest_for(batch, most, 1.0, rank_flops)
                seconds = [
                    (1 + q * rank_flops) / optimal_step_size(batch, float(beta[q - 1]), float(lambda_1[q - 1]))
                    for q in range(1, most + 1)
                ]
                assert found == int(np.argmin(seconds)) + 1
    assert candidates.fastest_for(10, 5, 1.0, 5.0) == 2
    assert candidates.fastest_for(10, 0, 1.0, 5.0) == 0


def test_small_batches_of_many_outputs_have_smaller_ranks():
    """With c = 300 outputs and q = 50 a step of two rows would spend most of its time on the damped directions."""
    x = torch.randn(410, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randn(410, 300, generator=torch.Generator().manual_seed(1))
    data = ArrayDataModule.from_arrays(x[:400], y[:400], x[400:], y[400:])
    ranks = [planned(Laplacian(2.0), data, batch_size=batch).top_q for batch in ("auto", 2)]
    assert 1 < ranks[1] < ranks[0] == 50


def test_beyond_a_gap_where_most_of_the_batch_would_be_of_no_use():
    candidates = RankCandidates(torch.ones(4), 1 / torch.tensor([2.0, 100.0, 110.0, 900.0]))  # m* 3, 101, 111, 901
    assert [candidates.largest_for(batch) for batch in (2, 4, 7, 64, 101, 111, 200, 223, 600, 5000)] == [
        *(0, 1, 2, 2, 2, 3, 3, 4, 4, 4)
    ]


@pytest.mark.parametrize("ridge", [0.0, 0.3, 20.0])
def test_candidates_are_those_of_the_kernel_with_the_ridge(ridge):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)).double()
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=2.0)
    system, kernel, r = nystrom_eigensystem(Laplacian(2.0), Rows.of(x)), Laplacian(2.0), ridge / 50
    found = rank_candidates(system, kernel.diag(x), torch.from_numpy(K), Ridge(ridge, 50))
    values, vectors = np.linalg.eigh(K / 50)
    values, E = values[::-1], vectors[:, ::-1] / 50**0.5
    assert len(found.beta) == 6
    for q in range(1, 7):
        D = (1 - ((values[q - 1] + r) / (values[:q] + r)) ** 0.95) / values[:q]
        K_P = K - K @ (E[:, :q] * D) @ E[:, :q].T @ K
        assert float(found.beta[q - 1]) == pytest.approx(K_P.diagonal().max() + ridge, rel=1e-9)
        top = (values[0] + r) ** 0.05 * (values[q - 1] + r) ** 0.95
        assert float(found.lambda_1[q - 1]) == pytest.approx(top, rel=1e-9)


def test_a_batch_far_above_the_critical_one_is_named(caplog):
    data = gaps()
    plan = planned(Laplacian("auto"), data, batch_size=600, top_q=1)
    assert f"batch_size 600 is far above the critical batch size {plan.critical_batch_size}, beyond" in caplog.text
    assert "a batch_size of 32, or auto, takes less time" in caplog.text
    caplog.clear()
    planned(Laplacian("auto"), data, batch_size=600)
    planned(Laplacian("auto"), data, top_q=1)
    assert "far above" not in caplog.text
