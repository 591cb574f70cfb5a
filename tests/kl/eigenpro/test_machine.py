"""KernelMachine under Lightning's Trainer: fit, validate, test, predict, and every explicit choice."""

import logging

import numpy as np
import oracle
import pytest
import pytorch_lightning as pl
import torch
from sklearn.metrics import accuracy_score
from torch.utils.data import DataLoader, TensorDataset
from training import fit, memory_for, quiet_trainer, regression

import kl
from datamodules import ArrayDataModule, DigitsDataModule, SyntheticDataModule
from kl import KernelMachine, Laplacian
from kl.distributed.ranks import FirstOfMany

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def digits():
    data = DigitsDataModule(train_size=300, test_size=150, label_noise=0.2)
    machine = KernelMachine("laplacian", batch_size=64)
    trainer = fit(machine, data, 4)
    return trainer, machine, data


def test_digits_are_learned(digits):
    trainer, machine, data = digits
    assert machine.is_fitted
    assert machine.is_classifier
    assert trainer.global_step == 4 * 5
    assert machine.train_metrics["train/error"] < 0.1
    assert machine.kernel != Laplacian()  # resolved
    assert machine.data_info["name"] == "digits"
    assert machine.data_info["class_names"] == [str(digit) for digit in range(10)]
    assert data.batch_size == machine.plan.batch_size == 64


def test_predictions_are_k_alpha(digits):
    trainer, machine, data = digits
    predicted = torch.cat(trainer.predict(machine, datamodule=data))
    x = data.test_set.x[:20].numpy()
    bandwidth = machine.kernel.bandwidth
    K = oracle.matrix(oracle.laplacian, x, data.train_set.x.numpy(), bandwidth=bandwidth)
    alpha = machine.in_data_order(machine.alpha.detach()).numpy()
    np.testing.assert_allclose(predicted[:20], K @ alpha, atol=2e-5)
    assert torch.equal(machine.in_data_order(machine.centers), data.train_set.x)
    assert torch.equal(machine.in_data_order(machine.targets), data.train_set.y)
    with torch.no_grad():
        once = machine(data.test_set.x)
        assert torch.equal(machine(data.test_set.x.double()), once)
        assert torch.equal(machine(data.test_set.x.T.contiguous().T), once)


def test_train_metrics_and_norm_are_those_of_the_weights(digits):
    _, machine, data = digits
    with torch.no_grad():
        scores = machine(data.train_set.x)
    y = data.train_set.y
    assert machine.train_metrics["train/mse"] == pytest.approx(float((scores - y).square().mean()), rel=1e-3)
    wrong = 1 - accuracy_score(y.argmax(dim=1), scores.argmax(dim=1))
    assert machine.train_metrics["train/error"] == pytest.approx(wrong, abs=1e-6)
    norm = kl.rkhs_norm(machine.kernel, machine.centers, machine.alpha.detach())
    assert machine.rkhs_norm == pytest.approx(norm, rel=1e-5)
    assert float(machine.rkhs_norm_per_class.norm()) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_equals_scikit_learn(digits, stage):
    trainer, machine, data = digits
    (got,) = getattr(trainer, stage)(machine, datamodule=data, verbose=False)
    name = {"validate": "val", "test": "test"}[stage]
    with torch.no_grad():
        scores = machine(data.test_set.x)
    labels = scores.argmax(dim=1)
    assert got[f"{name}/mse"] == pytest.approx(float((scores - data.test_set.y).square().mean()), rel=1e-5)
    for key, y in (("error", data.test_set.y), ("error_noisy", data.test_set.y_noisy)):
        assert got[f"{name}/{key}"] == pytest.approx(1 - accuracy_score(y.argmax(dim=1), labels), abs=1e-6)
    assert got[f"{name}/error_noisy"] > got[f"{name}/error"]


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, 60),
        ({"top_q": 0, "batch_size": 5}, 150),
        ({"subsample": 20, "batch_size": 7}, 100),
        ({"memory": memory_for(30, 4, 2, 30)}, 80),
        ({"memory": memory_for(30, 4, 2, 30, kept_rows=12)}, 80),
    ],
)
def test_it_converges_to_the_interpolant(options, epochs):
    data = regression(n=30, d=4, c=2)
    machine = KernelMachine(Laplacian(1.5), **options)
    trainer = fit(machine, data, epochs)
    exact = kl.interpolate(Laplacian(1.5), data.train_set.x, data.train_set.y)
    alpha = machine.in_data_order(machine.alpha.detach())
    distance = kl.rkhs_distance(machine.kernel, data.train_set.x, alpha, data.train_set.x, exact.alpha)
    assert distance < 2e-3 * exact.rkhs_norm
    assert machine.rkhs_norm == pytest.approx(exact.rkhs_norm, rel=2e-3)
    assert trainer.global_step == epochs * -(-30 // machine.plan.batch_size)
    assert "train/error" not in machine.train_metrics


def test_synthetic_classes():
    data = SyntheticDataModule(kind=1, train_size=200, test_size=100)
    machine = KernelMachine("gaussian")
    trainer = fit(machine, data, 3)
    assert trainer.callback_metrics["val/error"] < 0.05
    assert machine.targets.shape == (200, 2)


def test_explicit_choices_are_kept_and_reach_the_datamodule():
    data = regression()
    machine = KernelMachine(
        "gaussian", batch_size=np.int64(13), step_size=np.float64(0.5), top_q=3, subsample=20, memory="1MB", seed=4
    )
    trainer = fit(machine, data, 2)
    plan = machine.plan
    assert (plan.batch_size, plan.step_size, plan.top_q, plan.subsample) == (13, 0.5, 3, 20)
    assert data.batch_size == 13
    assert trainer.global_step == 2 * 5
    assert machine.step_size == 0.5
    assert trainer.callback_metrics["precond/step_size"] == 0.5
    assert machine.vectors.shape == (20, 3)
    assert machine.eigenvalues.shape == (20,)


def test_more_than_there_is_is_clipped_with_a_message(caplog):
    machine = KernelMachine("gaussian", subsample=1000, batch_size=1000)
    fit(machine, regression(), 1)
    assert (machine.plan.subsample, machine.plan.batch_size) == (60, 60)
    assert "subsample 1000 is more than the 60 training rows; using 60" in caplog.text


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_sets(n):
    machine = KernelMachine(Laplacian(1.0))
    fit(machine, regression(n=n), 40)
    assert machine.train_metrics["train/mse"] < 1e-4


@pytest.mark.parametrize("c", [1, 3])
def test_targets_of_zero_and_of_one_value(c):
    machine = KernelMachine(Laplacian(1.0))
    fit(machine, regression(y=torch.zeros(60, c)), 2)
    assert not machine.alpha.any()
    fit(machine := KernelMachine(Laplacian(1.0)), regression(y=torch.full((60, c), 7.0)), 100)
    assert machine.train_metrics["train/mse"] < 0.02


@pytest.mark.parametrize("kernel", [kl.ReluNTK(3), kl.Polynomial(1, 0.0), kl.Polynomial(2, 1.0)])
def test_kernels_without_a_constant_diagonal_train_without_a_cut(kernel, caplog):
    machine = KernelMachine(kernel)
    fit(machine, regression(n=200, d=6), 15)
    assert machine.step_size == machine.plan.step_size
    assert "diverged" not in caplog.text
    assert machine.train_metrics["train/mse"] < 0.45


def test_conflicting_targets_are_fitted_by_their_mean_without_a_cut(caplog):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    y = torch.cat([torch.zeros(20, 1), torch.ones(20, 1)])
    machine = KernelMachine(Laplacian(1.0), batch_size=40)  # small batches would go round the mean for ever
    fit(machine, ArrayDataModule.from_arrays(x, y, x, y), 60)
    with torch.no_grad():
        torch.testing.assert_close(machine(x), torch.full((40, 1), 0.5), atol=0.01, rtol=0)
    assert "diverged" not in caplog.text


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_the_features_does_not_matter(scale):
    errors = []
    for factor in (1.0, scale):
        machine = KernelMachine("laplacian")
        fit(machine, regression(scale=factor), 5)
        errors.append(machine.train_metrics["train/mse"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)


def test_fast_dev_run_and_max_steps():
    data = regression()
    machine = KernelMachine("laplacian", batch_size=10)
    assert fit(machine, data, fast_dev_run=True).global_step == 1
    machine = KernelMachine("laplacian", batch_size=10)
    trainer = fit(machine, data, 10, max_steps=9)  # stops in the second epoch
    assert trainer.global_step == 9
    with torch.no_grad():
        direct = float((machine(data.train_set.x) - data.train_set.y).square().mean())
    assert machine.train_metrics["train/mse"] == pytest.approx(direct, rel=1e-4)
    trainer = fit(KernelMachine("laplacian", batch_size=10), data, 2, limit_train_batches=2)
    assert trainer.global_step == 4


class OwnData(pl.LightningDataModule):
    """What a user may write: a train_set and a loader, no more."""

    def __init__(self, x, y, batch_size=7):
        super().__init__()
        self.train_set, self.batch_size = kl.RowDataset(x, y), batch_size

    def train_dataloader(self):
        rows = list(torch.arange(len(self.train_set)).split(self.batch_size))
        return DataLoader(self.train_set, batch_size=None, sampler=rows)


# Lightning's advice, where there is nothing to validate on.
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_datamodule_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 30, generator=generator).T.double(), torch.randn(30, 1, generator=generator).double()
    machine = KernelMachine(Laplacian(1.0))
    fit(machine, OwnData(x, y), 60)
    assert not machine.is_classifier
    assert machine.centers.dtype == machine(x.detach()).dtype == torch.float64
    assert machine.train_metrics["train/mse"] < 1e-3
    machine = KernelMachine(Laplacian(1.0))
    fit(machine, OwnData(x, torch.eye(3)[torch.arange(30) % 3]), 5)
    assert machine.is_classifier
    assert set(machine.train_metrics) == {"train/mse", "train/error"}


def test_evaluation_without_a_datamodule(digits):
    _, machine, data = digits
    loader = DataLoader(kl.RowDataset(data.test_set.x, data.test_set.y), batch_size=None, sampler=[torch.arange(150)])
    (got,) = quiet_trainer().validate(machine, dataloaders=loader, verbose=False)
    assert set(got) == {"val/mse", "val/error"}
    assert len(quiet_trainer().predict(machine, dataloaders=loader)[0]) == 150


@pytest.mark.parametrize(("stage", "name"), [("validate", "val"), ("test", "test")])
def test_evaluation_on_a_plain_loader(digits, stage, name):
    _, machine, data = digits
    x, y = data.test_set.x, data.test_set.y
    (got,) = getattr(quiet_trainer(), stage)(machine, DataLoader(TensorDataset(x, y), batch_size=32), verbose=False)
    with torch.no_grad():
        scores = machine(x)
    assert got[f"{name}/mse"] == pytest.approx(float((scores - y).square().mean()), rel=1e-5)
    wrong = 1 - accuracy_score(y.argmax(dim=1), scores.argmax(dim=1))
    assert got[f"{name}/error"] == pytest.approx(wrong, abs=1e-6)
    (labels,) = getattr(quiet_trainer(), stage)(machine, DataLoader(TensorDataset(x, y.argmax(1))), verbose=False)
    assert labels == pytest.approx(got, rel=1e-5)
    with pytest.raises(kl.InputError, match=r"must have the shape of the outputs, \(32, 10\), .* got \(32, 9\)"):
        getattr(quiet_trainer(), stage)(machine, DataLoader(TensorDataset(x, y[:, :9]), batch_size=32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be auto or an integer of at least 1; got 0"),
        ({"batch_size": 2.0}, "batch_size must be auto or an integer of at least 1; got 2.0"),
        ({"top_q": -1}, "top_q must be auto or an integer of at least 0; got -1"),
        ({"top_q": False}, "top_q must be auto or an integer of at least 0; got False"),
        ({"subsample": "all"}, "subsample must be auto or an integer of at least 1; got 'all'"),
        ({"step_size": 0.0}, 'step_size must be a finite number above 0 or "auto"; got 0.0'),
        ({"step_size": "small"}, "step_size must be a finite number above 0"),
        ({"batch_size": np.array([1, 2])}, r"batch_size must be auto or an integer of at least 1; got \[1, 2\]"),
        ({"step_size": torch.ones(2)}, r'step_size must be a finite number above 0 or "auto"; got \[1.0, 1.0\]'),
        ({"ridge": np.ones((2, 2))}, r"ridge must be a finite number, 0 or above; got \[\[1.0, 1.0\], \[1.0, 1.0\]\]"),
        ({"seed": np.arange(2)}, r"seed must be a whole number; got \[0, 1\]"),
        ({"memory": "none"}, "memory must be auto, a number of bytes"),
        ({"seed": "x"}, "seed must be a whole number; got 'x'"),
        ({"kernel": "laplace"}, "laplacian"),
    ],
)
def test_mistakes_show_before_any_data_is_read(options, message):
    with pytest.raises(kl.InputError, match=message):
        KernelMachine(**options)


# Lightning's advice, where there is nothing to validate on.
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_wrong_use_is_explained(digits):
    _, fitted, _ = digits
    loader = DataLoader(torch.randn(4, 3))
    with pytest.raises(kl.InputError, match=r"a dataset of pairs .* or a datamodule whose train_set is a kl"):
        quiet_trainer().fit(KernelMachine(), loader)
    with pytest.raises(kl.InputError, match="needs a datamodule whose train_set is a kl"):
        fit(KernelMachine(), pl.LightningDataModule.from_datasets(loader.dataset))
    for call in (
        lambda: KernelMachine()(torch.ones(2, 3)),
        lambda: quiet_trainer().predict(KernelMachine(), datamodule=regression()),
        lambda: quiet_trainer().validate(KernelMachine(), datamodule=regression(), verbose=False),
        lambda: quiet_trainer().test(KernelMachine(), datamodule=regression(), verbose=False),
    ):
        with pytest.raises(kl.InputError, match="holds no weights: fit it, or load a checkpoint"):
            call()
    for wrong in (torch.ones(2, 63), torch.ones(64)):
        with pytest.raises(kl.InputError, match=r"x must have shape \(rows, 64\), as the training data had; got"):
            fitted(wrong)
    with pytest.raises(kl.InputError, match=r'precision must be "32-true".*got .bf16-mixed'):
        fit(KernelMachine(), regression(), precision="bf16-mixed")
    with pytest.raises(kl.InputError, match=r"overfit_batches must be 0, .*; got 1: use a data module with a small"):
        fit(KernelMachine(), regression(), overfit_batches=1)
    with pytest.raises(kl.InputError, match="is zero on every training row"):
        fit(KernelMachine(kl.Polynomial(1, 0.0)), regression(scale=0.0))


def test_a_plan_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="kl"):
        fit(KernelMachine(Laplacian(2.0)), regression(), 1)
    assert "Laplacian(bandwidth=2.0); EigenPro" in caplog.text


def test_where_the_norm_within_an_epoch_is_free():
    """The progress bar, which rank 0 alone draws, reads it there."""
    machine = KernelMachine(Laplacian(1.0))
    data = regression(n=60)
    data.setup()
    machine.prepare(data.train_set.x, data.train_set.y)
    assert machine.norm_is_free
    machine.fitted.columns = None
    assert not machine.norm_is_free
    machine.fitted.columns, machine.ranks = machine.alpha, FirstOfMany(2)
    assert not machine.norm_is_free


def test_weights_that_the_norm_waits_for_move_with_the_machine():
    fit(machine := KernelMachine(Laplacian(1.0)), regression(n=60), 1)
    machine.fitted._alpha = machine.alpha.detach()
    machine.fitted.to("meta")
    assert machine.fitted._alpha.device.type == machine.fitted.values.device.type == "meta"
