"""What EigenPro 3 and 4 share with EigenPro 2: cut steps, the bound of known zero errors, batches and ties."""

import pytest
import torch
from training import fit, regression

from kl import GeneralKernelMachine, Laplacian
from kl.eigenpro.divergence import LOSS_GROWTH, LossGuard
from kl.eigenpro.options import EigenProOptions
from kl.eigenpro.plan import Preconditioned, finish_plan
from kl.eigenpro.preconditioner import Preconditioner
from kl.metrics import EvaluationMetrics, error

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("period", [1, 2])
def test_a_step_of_eigenpro_3_and_4_that_was_cut_stays_cut(period, tmp_path, caplog):
    data = regression()
    own = {"batch_size": 10, "decay": 0, "projection_period": period}
    fit(auto := GeneralKernelMachine(Laplacian(1.0), 40, **own), data, 1)
    own["step_size"] = 100 * auto.plan.step_size
    first, rest = (GeneralKernelMachine(Laplacian(1.0), 40, **own) for _ in range(2))
    fit(first, data, 10).save_checkpoint(tmp_path / "cut.ckpt")
    assert first.step_size < first.plan.step_size
    caplog.clear()
    fit(rest, data, 12, ckpt_path=tmp_path / "cut.ckpt")
    assert "diverged" not in caplog.text
    assert rest.step_size == first.step_size


def test_a_batch_of_small_targets_is_judged_by_all_targets_known():
    guard = LossGuard(torch.zeros(3, 2, dtype=torch.float64))
    y = torch.ones(5, 2)  # squared errors of f = 0: 10
    assert not guard.loss_exploded(y, y)
    assert not guard.epoch_diverged()
    guard.remember()
    small = torch.full((5, 2), 1e-3)
    largest = LOSS_GROWTH**0.5 * y
    assert not guard.loss_exploded(0.99 * largest, small)  # the first batch of the next epoch
    assert guard.loss_exploded(1.01 * largest, small)


@pytest.mark.parametrize("period", [1, 2])
def test_one_extreme_target_is_no_divergence_of_eigenpro_3_and_4(period, caplog):
    y = torch.zeros(200, 1)
    y[7], y[1] = 1000.0, 0.1
    machine = GeneralKernelMachine(Laplacian(1.0), 200, batch_size=10, projection_period=period)
    fit(machine, regression(n=200, y=y), 5)
    assert "diverged" not in caplog.text
    assert machine.step_size == machine.plan.step_size


def test_the_default_batch_is_no_larger_than_the_subsample():
    none = Preconditioner(torch.zeros(48, 0), torch.zeros(0))
    built = Preconditioned(none, torch.ones(48), beta=1.0, own=1e-3, independent=1e-3)
    batches = {}
    for parallel in (False, True):
        plan = finish_plan(Laplacian(1.0), built, 400, EigenProOptions(), parallel)[0]
        assert plan.critical_batch_size == 1001
        batches[parallel] = plan.batch_size
    assert batches == {False: 48, True: 48}
    assert finish_plan(Laplacian(1.0), built, 33, EigenProOptions(), False)[0].batch_size == 33


def test_a_tie_is_no_right_answer_but_for_the_class_that_predict_names():
    y = torch.eye(3)[[0, 1, 2, 1]]
    assert error(torch.zeros(4, 3), y) == 0.75  # f = 0 has fitted nothing
    assert error(torch.tensor([[0.2, 0.5, 0.5]] * 4), y) == 0.5
    assert error(torch.tensor([[0.2, 0.5, 0.5]]), y[2:3]) == 1.0
    metrics = EvaluationMetrics(classifier=True)
    metrics.update(torch.zeros(4, 3), y)
    assert metrics.compute()["error"] == 0.75
