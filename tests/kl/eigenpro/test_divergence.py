"""Divergence is noticed, undone and named; it never ends in NaN."""

import math

import pytest
import torch
from training import fit, regression

import kl
import kl.eigenpro.parameters
from datamodules import SyntheticDataModule
from kl import KernelMachine, Laplacian
from kl.eigenpro.divergence import LOSS_GROWTH, MAX_STEP_CUTS, DivergenceGuard
from kl.eigenpro.fitted import FittedValues

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("options", [{"batch_size": 10}, {"batch_size": 60}, {"batch_size": 10, "top_q": 0}])
@pytest.mark.parametrize("factor", [30.0, 1e30, 1e300])
def test_too_large_a_step_recovers(options, factor, caplog):
    data = regression(n=60)
    fit(auto := KernelMachine(Laplacian(1.0), **options), data, 1)
    machine = KernelMachine(Laplacian(1.0), step_size=factor * auto.plan.step_size, **options)
    trainer = fit(machine, data, 30)
    assert "training diverged at step size" in caplog.text
    assert "going back to the start of epoch 0 with step size" in caplog.text
    assert machine.run.guard.cuts == 1  # straight to the step that the plan would have taken
    assert machine.step_size == auto.plan.step_size
    assert trainer.callback_metrics["precond/step_size"] == pytest.approx(machine.step_size)
    assert machine.train_metrics["train/mse"] < 0.1
    norm = kl.rkhs_norm(machine.kernel, machine.centers, machine.alpha.detach())
    assert machine.rkhs_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("batch_size", [10, 60])
@pytest.mark.parametrize("step_size", [1e30, 1e300])
def test_a_hopeless_step_ends_in_an_error_with_finite_weights(step_size, batch_size, monkeypatch):
    monkeypatch.setattr(kl.eigenpro.parameters, "optimal_step_size", lambda *_: math.inf)  # no better step is known
    machine = KernelMachine(Laplacian(1.0), step_size=step_size, batch_size=batch_size)
    with pytest.raises(kl.DivergenceError, match=rf"still diverges .* after {MAX_STEP_CUTS} halvings: use step_size="):
        fit(machine, regression(n=60), 50)
    assert torch.isfinite(machine.alpha).all()
    assert torch.isfinite(machine.fitted.flush()).all()
    assert machine.rkhs_norm == 0


def test_one_extreme_target_is_no_divergence(caplog):
    y = torch.zeros(400, 1)
    y[7], y[1] = 1000.0, 0.1
    machine = KernelMachine(kl.Gaussian(1.0), batch_size=10)
    fit(machine, regression(n=400, y=y), 5)
    assert "diverged" not in caplog.text
    assert machine.step_size == machine.plan.step_size


def guard(n=4, c=2):
    alpha = torch.zeros(n, c, dtype=torch.float64)
    fitted, y = FittedValues(n, 2, c), torch.ones(n, c)
    return DivergenceGuard(alpha, fitted, y), alpha, fitted


def test_signs_of_divergence_on_a_batch():
    watch, _, _ = guard()
    limit = (LOSS_GROWTH * 8 / 4) ** 0.5  # 8 squared errors of 1 in all; 4 in the batch
    assert not watch.loss_exploded(torch.full((2, 2), 0.99 * limit))
    assert watch.loss_exploded(torch.full((2, 2), 1.01 * limit))
    assert watch.loss_exploded(torch.tensor([[torch.nan, 0.0]]))
    assert watch.loss_exploded(torch.tensor([[torch.inf, 0.0]]))
    assert watch.loss_exploded(torch.full((1, 1), 1e30, dtype=torch.float32))


def test_signs_of_divergence_after_an_epoch():
    watch, alpha, fitted = guard()
    watch.remember()  # 8 squared errors of 1
    assert not watch.epoch_diverged()
    fitted.sq_norm += 1.0
    alpha += 1.0  # energy 2 - 16: it fell
    assert watch.energy() == -14
    assert not watch.epoch_diverged()
    fitted.sq_norm += 100.0
    assert watch.epoch_diverged()  # the energy rose and the errors stayed
    fitted.values += 0.5
    assert not watch.epoch_diverged()  # the errors fell: an overshoot of the norm alone
    fitted.sq_norm.zero_()
    fitted.values -= 2.0
    assert watch.epoch_diverged()  # errors of 2.5: more than twice as many in squares
    fitted.values *= torch.nan
    assert watch.epoch_diverged()


def test_the_first_epoch_may_overshoot_in_the_norm(caplog):
    """Here the energy rises by more than 100 while the mse falls from 0.5 to 0.02."""
    data = SyntheticDataModule(kind=1, train_size=300, test_size=10)
    machine = KernelMachine(Laplacian())
    fit(machine, data, 3)
    assert "diverged" not in caplog.text
    assert machine.train_metrics["train/mse"] < 1e-2


@pytest.mark.parametrize("d", [3, 40])
def test_data_far_from_the_origin_train_as_data_near_it(d):
    """float32 distances from inner products would have lost all digits at |x| = 1e4."""
    near = KernelMachine(Laplacian(2.0))
    fit(near, regression(n=100, d=d), 3)
    data = regression(n=100, d=d)
    data.setup()
    data.train_set.x += 1e4 * torch.ones(d) / d**0.5
    data.test_set.x += 1e4 * torch.ones(d) / d**0.5
    far = KernelMachine(Laplacian(2.0))
    fit(far, data, 3)
    assert far.rkhs_norm == pytest.approx(near.rkhs_norm, rel=1e-2)  # x itself is rounded to 1e-3 there
    assert far.train_metrics["train/mse"] == pytest.approx(near.train_metrics["train/mse"], rel=0.2)
    assert torch.allclose(far(data.test_set.x), near(data.test_set.x - 1e4 * torch.ones(d) / d**0.5), atol=2e-2)


def test_recovery_restores_everything_and_counts():
    watch, alpha, fitted = guard()
    alpha += 3.0
    fitted.values += 2.0
    watch.remember()
    for cut in range(MAX_STEP_CUTS):
        alpha.fill_(torch.nan)
        fitted.values.fill_(torch.nan)
        fitted.sq_norm.fill_(torch.inf)
        assert watch.recover(8.0, epoch=2, planned=1.0 if cut else math.inf) == (1.0 if cut else 4.0)
        assert watch.cuts == cut + 1
        assert torch.equal(alpha, torch.full_like(alpha, 3.0))
        assert torch.equal(fitted.values, torch.full_like(fitted.values, 2.0))
        assert not fitted.sq_norm.any()
    alpha.fill_(torch.nan)
    with pytest.raises(kl.DivergenceError, match="still diverges at step size 8 after"):
        watch.recover(8.0, epoch=2)
    assert torch.isfinite(alpha).all()


def test_a_smooth_kernel_is_not_damped_below_the_rounding_error_of_its_values(caplog):
    """With q = 40 here K_P would be smaller than the error of float32 kernel values, and training diverged."""
    machine = KernelMachine(kl.Gaussian())
    fit(machine, regression(n=400, d=1), 5)
    eigenvalues = machine.eigenvalues
    assert 0 < machine.plan.top_q < 20
    assert float(eigenvalues[machine.plan.top_q - 1]) > 1e-6 * float(eigenvalues[0])
    assert "diverged" not in caplog.text
    assert machine.train_metrics["train/mse"] < 0.05
