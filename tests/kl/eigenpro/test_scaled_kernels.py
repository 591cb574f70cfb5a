"""c K trains as K does: weights and step size are divided by c, and f goes the same way."""

import pytest
import torch
from training import fit, regression

from kl import Gaussian, GeneralKernelMachine, KernelMachine, Laplacian

pytestmark = pytest.mark.numeric


def eigenpro2(kernel):
    return KernelMachine(kernel, batch_size=25)


def eigenpro3(kernel):
    return GeneralKernelMachine(kernel, 60, projection_period=1, batch_size=25)


def eigenpro4(kernel):
    return GeneralKernelMachine(kernel, 60, projection_period=2, projection="eigenpro", batch_size=25)


@pytest.mark.parametrize("make", [eigenpro2, eigenpro3, eigenpro4])
@pytest.mark.parametrize("kernel", [Laplacian(2.0), Gaussian(2.0)])
@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9, 1e30])
def test_the_step_size_is_that_of_the_kernel_over_the_factor(make, kernel, factor):
    data, found = regression(n=100, c=2), []
    for machine in (make(kernel), make(factor * kernel)):
        fit(machine, data, 3)
        found.append((machine, machine(data.test_set.x)))
    (one, values), (scaled, same) = found
    assert scaled.plan.top_q == one.plan.top_q > 1
    assert scaled.plan.critical_batch_size == pytest.approx(one.plan.critical_batch_size, abs=1)
    assert scaled.plan.beta == pytest.approx(factor * one.plan.beta, rel=1e-4)
    assert scaled.plan.step_size * factor == pytest.approx(one.plan.step_size, rel=1e-4)
    assert scaled.step_size == scaled.plan.step_size  # no cut
    torch.testing.assert_close(same, values, rtol=0, atol=1e-3 * float(values.abs().max()))
    assert scaled.train_metrics["train/mse"] == pytest.approx(one.train_metrics["train/mse"], rel=1e-2, abs=1e-9)
    assert scaled.rkhs_norm * factor**0.5 == pytest.approx(one.rkhs_norm, rel=1e-3)
