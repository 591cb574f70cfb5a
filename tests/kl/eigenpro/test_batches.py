"""Several steps of EigenPro 2 in one training batch of Lightning: the same steps, in the same order."""

import csv
import io
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from training import fit, memory_for, quiet_trainer

import kl
import kl.eigenpro.machine
from callbacks import Interrupts, RKHSNorm, Timing
from callbacks.progress import ProgressBar, total_steps
from datamodules import ArrayDataModule, DigitsDataModule
from kl import CheckpointError
from kl.distributed.ranks import Ranks
from kl.eigenpro.machine import OF_A_FORMULA, OF_A_VALUE
from kl.machines.batches import counts_batches


class Counter(pl.Callback):
    """Counts the training batches, and so gets one for each step."""

    def __init__(self):
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(trainer.global_step)


class LaterTiming(Timing):
    """Has a hook of its own, of which the attribute of `Timing` says nothing."""

    def on_train_batch_end(self, *_):
        pass


class Mixin:
    def on_train_batch_start(self, *_):
        pass


class Mixed(Mixin, pl.Callback):
    """Says of a hook that it has from elsewhere that it counts nothing."""

    counts_batches = False


class Reader(pl.Callback):
    """Has no hook of a batch, and reads how many there were at the end of an epoch."""

    counts_batches = True


def of_itself(callback, value):
    callback.counts_batches = value
    return callback


class GradientNorms(pl.Callback):
    """Acts before each step of the optimizer, as Lightning's guide logs the norms of gradients."""

    def on_before_optimizer_step(self, *_):
        pass


def digits():
    return DigitsDataModule(train_size=300, test_size=100)


def machine(**options):
    return kl.KernelMachine(kl.Laplacian(4.0), batch_size=40, subsample=100, **options)


def work(monkeypatch, steps, kept=True):
    """Let a training batch of `machine()` hold so many steps."""
    each = OF_A_VALUE + 20 + (0 if kept else 2 * 64 + OF_A_FORMULA)
    monkeypatch.setattr(kl.eigenpro.machine, "WORK", steps * 40 * 300 * each)


@pytest.mark.parametrize(("steps", "batches"), [(8, 1), (100, 1), (3, 3)])
def test_the_steps_are_the_same(steps, batches, monkeypatch):
    work(monkeypatch, steps)
    counter, alone, together = Counter(), machine(), machine()
    one, other = fit(alone, digits(), 3, callbacks=[counter]), fit(together, digits(), 3)
    assert counter.batches == list(range(1, 25))  # 8 steps an epoch
    assert one.global_step == other.global_step == 24
    assert (one.num_training_batches, other.num_training_batches) == (8, batches)
    assert (alone.steps_per_batch, together.steps_per_batch) == (1, steps)
    assert torch.equal(alone.alpha, together.alpha)
    assert alone.train_metrics == together.train_metrics
    assert alone.batch_error == together.batch_error
    assert alone.rkhs_norm == together.rkhs_norm


@pytest.mark.parametrize("memory", ["1GB", memory_for(300, 64, 10, 100, integers=1)])
def test_how_many_steps(memory, monkeypatch):
    fitted = machine(memory=memory)
    fit(fitted, data := digits(), 1)
    kept = fitted.memory.kept_rows == 300
    assert kept == (memory == "1GB")
    for steps in (1, 2, 5):
        work(monkeypatch, steps, kept)
        assert fitted.most_steps_per_batch == steps
    monkeypatch.setattr(kl.eigenpro.machine, "WORK", 1)
    assert fitted.most_steps_per_batch == 1
    assert data.batch_size == 40  # rows of a step


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_loggers_count_steps(steps, monkeypatch, tmp_path):
    """Lightning's axis is that of batches, which are steps where each step has a batch."""
    work(monkeypatch, steps)
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer = fit(machine(), digits(), 3, logger=logger, log_every_n_steps=8)
    logger.save()
    with open(Path(logger.log_dir, "metrics.csv")) as file:
        found = [int(row["step"]) for row in csv.DictReader(file) if row["train/mse"]]
    assert found == [7, 15, 23]
    assert trainer.global_step == 24


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"max_steps": 9}, True),
        ({"min_steps": 9}, True),
        ({"limit_train_batches": 1}, True),
        ({"limit_train_batches": 1.0}, False),
        ({"limit_train_batches": None}, False),
        ({"val_check_interval": 1}, True),
        ({"val_check_interval": "00:01:00:00"}, True),
        ({"callbacks": [LaterTiming()]}, True),
        ({"callbacks": [LambdaCallback(on_train_batch_end=lambda *_: None)]}, True),
        ({"callbacks": [LambdaCallback(on_train_epoch_end=lambda *_: None)]}, False),
        ({"callbacks": [GradientNorms()]}, True),
        ({"callbacks": [Mixed()]}, False),
        ({"callbacks": [Reader()]}, True),
        ({"callbacks": [of_itself(GradientNorms(), False)]}, False),
        ({"callbacks": [of_itself(Timing(), True)]}, True),
        ({"callbacks": [EarlyStopping("val/mse")]}, False),
        ({"limit_train_batches": 2}, True),
        ({"limit_train_batches": 0.5}, True),
        ({"val_check_interval": 0.5}, True),
        ({"fast_dev_run": True}, True),
        ({"callbacks": [Counter()]}, True),
        ({"callbacks": [RKHSNorm(per_step=True)]}, True),
        ({"callbacks": [RKHSNorm(), Timing(), Interrupts(), ProgressBar()], "enable_progress_bar": True}, False),
        ({"callbacks": [TQDMProgressBar()], "enable_progress_bar": True}, False),
        ({"callbacks": [ModelCheckpoint()], "enable_checkpointing": True}, False),
        ({"callbacks": [ModelCheckpoint(every_n_train_steps=5)], "enable_checkpointing": True}, True),
        ({"max_time": "00:01:00:00"}, False),
    ],
)
def test_what_counts_batches(options, expected):
    assert counts_batches(quiet_trainer(2, **options)) == expected


def test_a_monitor_of_each_step_counts_batches(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    assert counts_batches(quiet_trainer(2, callbacks=[LearningRateMonitor("step")], logger=logger))


def test_a_step_of_a_subclass_has_a_batch_of_its_own():
    class Watching(kl.KernelMachine):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            self.seen = [*getattr(self, "seen", []), len(batch[0])]

    watching, plain = Watching(kl.Laplacian(4.0), batch_size=40, subsample=100), machine()
    fit(watching, digits(), 1)
    fit(plain, digits(), 1)
    assert watching.seen == [40] * 7 + [20]
    assert torch.equal(watching.alpha, plain.alpha)


@pytest.mark.parametrize("own", ["training_step", "on_train_batch_end", "on_before_optimizer_step"])
def test_hooks_of_a_subclass(own, monkeypatch):
    calls = []

    def hook(self, *args):
        calls.append(None)
        return getattr(super(cls, self), own)(*args)

    cls = type("Hooked", (kl.KernelMachine,), {own: hook})
    fit(cls(kl.Laplacian(4.0), batch_size=40, subsample=100), digits(), 1)
    assert len(calls) == 8


def test_several_ranks_have_a_step_a_batch():
    fit(fitted := machine(), digits(), 1)
    assert fitted.choose_steps_per_batch() > 1
    fitted.ranks = Ranks(0, 2)
    assert fitted.choose_steps_per_batch() == 1


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("save_at_end", [True, False])
@pytest.mark.parametrize("second", [1, 3, 8])
@pytest.mark.parametrize("first", [1, 3, 8])
def test_a_run_resumes_with_other_batches(first, second, save_at_end, monkeypatch, tmp_path):
    """From a checkpoint of an epoch's end or of the validation before it."""
    whole, half, rest = machine(), machine(), machine()
    work(monkeypatch, first)
    fit(whole, digits(), 4)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=save_at_end)
    fit(half, digits(), 2, callbacks=[saver], enable_checkpointing=True)
    work(monkeypatch, second)
    trainer = fit(rest, digits(), 4, tmp_path / "epoch=1.ckpt")
    assert trainer.global_step == trainer.fit_loop.epoch_loop._batches_that_stepped == 32
    assert torch.equal(rest.alpha, whole.alpha)


class Own(pl.LightningDataModule):
    """A datamodule of one's own, whose batches have features, which take memory; rows=None follows the machine."""

    def __init__(self, rows=None, known=True):
        super().__init__()
        self.inner = digits()
        self.inner.setup("fit")
        self.train_set, self.batch_size, self.rows, self.sizes = self.inner.train_set, 1, rows, []
        self.kind = type("Batches", (list,), {} if known else {"__len__": None})

    def train_dataloader(self):
        data, parts = self.train_set, torch.arange(300).split(self.rows or self.batch_size)
        self.sizes += map(len, parts)
        return self.kind((data.x[index], data.y[index], index) for index in parts)

    def val_dataloader(self):
        return self.inner.val_dataloader()


def test_batches_with_features_hold_one_step():
    trainer = fit(machine(), data := Own(), 1)
    assert data.sizes[:8] == [40] * 7 + [20]
    assert trainer.global_step == 8


def test_a_plain_loader_and_a_resumed_run(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.utils.data.TensorDataset(
        torch.randn(90, 3, generator=generator), torch.randn(90, 1, generator=generator)
    )
    loader = torch.utils.data.DataLoader(rows)
    whole, rest = (kl.KernelMachine(kl.Laplacian(1.0), batch_size=20) for _ in range(2))
    trainer = quiet_trainer(4)
    trainer.fit(whole, loader, loader)
    assert (trainer.global_step, trainer.num_training_batches) == (20, 1)
    first = quiet_trainer(2, callbacks=[Counter()])  # a batch a step; the rest has an epoch a batch
    first.fit(rest, loader, loader)
    first.save_checkpoint(tmp_path / "a.ckpt")
    again = kl.KernelMachine(kl.Laplacian(1.0), batch_size=20)
    resumed = quiet_trainer(4)
    resumed.fit(again, loader, loader, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert resumed.global_step == 20
    assert torch.equal(again.alpha, whole.alpha)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_bar_counts_steps(steps, monkeypatch):
    work(monkeypatch, steps)
    monkeypatch.setattr("sys.stderr", written := io.StringIO())
    trainer = fit(machine(), digits(), 3, callbacks=[ProgressBar()], enable_progress_bar=True)
    assert total_steps(trainer) == 24
    assert "24/24" in written.getvalue()


@pytest.mark.parametrize(("rows", "known"), [(80, True), (20, True), (40, False)])
def test_batches_of_a_datamodule_of_ones_own(rows, known, monkeypatch):
    """Each is a step, however many rows it has, and the bar counts them."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    trainer = fit(machine(), Own(rows, known), 2, callbacks=[ProgressBar()], enable_progress_bar=True)
    assert trainer.global_step == 2 * -(-300 // rows)
    assert total_steps(trainer) == (trainer.global_step if known else None)


def test_arrays_of_one_row():
    data = ArrayDataModule.from_arrays(torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 2), torch.ones(1, 1))
    assert fit(kl.KernelMachine(kl.Laplacian(1.0)), data, 2).global_step == 2


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_validation_by_steps_after_epochs_of_one_batch(tmp_path):
    """Lightning compares the batches of all epochs with the interval, so a resumed run counts its steps."""
    half, rest, whole = machine(), machine(), machine()
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
    fit(half, digits(), 2, callbacks=[saver], enable_checkpointing=True)
    by_steps = {"val_check_interval": 8, "check_val_every_n_epoch": None}
    trainer = fit(rest, digits(), 4, tmp_path / "epoch=1.ckpt", **by_steps)
    fit(whole, digits(), 4)
    assert trainer.global_step == 32
    assert torch.equal(rest.alpha, whole.alpha)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_without_the_validation_of_its_checkpoint(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
    fit(machine(), digits(), 2, callbacks=[saver], enable_checkpointing=True)
    with pytest.raises(CheckpointError, match="written at the validation after its last epoch, and this run has none"):
        fit(machine(), digits(), 4, tmp_path / "epoch=1.ckpt", limit_val_batches=0)
