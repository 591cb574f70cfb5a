"""Several steps of EigenPro 2 in one training batch of Lightning: the same steps, in the same order."""

import io

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from training import fit, memory_for, quiet_trainer

import kl
import kl.eigenpro.machine
from callbacks import Interrupts, RKHSNorm, Timing
from callbacks.progress import ProgressBar, total_steps
from datamodules import ArrayDataModule, DigitsDataModule
from kl.machines.batches import counts_batches


class Counter(pl.Callback):
    """Counts the training batches, and so gets one for each step."""

    def __init__(self):
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(trainer.global_step)


def digits():
    return DigitsDataModule(train_size=300, test_size=100)


def machine(**options):
    return kl.KernelMachine(kl.Laplacian(4.0), batch_size=40, subsample=100, **options)


@pytest.mark.parametrize("values", [2**29, 3 * 40 * 300])
def test_the_steps_are_the_same(values, monkeypatch):
    monkeypatch.setattr(kl.eigenpro.machine, "READ_VALUES", values)
    counter, alone, together = Counter(), machine(), machine()
    one, other = fit(alone, digits(), 3, callbacks=[counter]), fit(together, digits(), 3)
    assert counter.batches == list(range(1, 25))  # 8 steps an epoch
    assert one.global_step == other.global_step == 24
    assert other.num_training_batches == (1 if values == 2**29 else 3)
    assert torch.equal(alone.alpha, together.alpha)
    assert alone.train_metrics == together.train_metrics
    assert alone.batch_error == together.batch_error
    assert alone.rkhs_norm == together.rkhs_norm


@pytest.mark.parametrize("memory", ["1GB", memory_for(300, 64, 10, 100, integers=1)])
def test_how_many_steps(memory, monkeypatch):
    monkeypatch.setattr(kl.eigenpro.machine, "READ_VALUES", 5 * 40 * 300)
    monkeypatch.setattr(kl.eigenpro.machine, "COMPUTED_VALUES", 2 * 40 * 300)
    fitted = machine(memory=memory)
    fit(fitted, data := digits(), 1)
    kept = fitted.memory.kept_rows == 300
    assert kept == (memory == "1GB")
    assert fitted.steps_per_batch == (5 if kept else 2)
    assert data.batch_size == 40  # rows of a step
    monkeypatch.setattr(kl.eigenpro.machine, "READ_VALUES", 1)
    monkeypatch.setattr(kl.eigenpro.machine, "COMPUTED_VALUES", 1)
    assert fitted.steps_per_batch == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"max_steps": 9}, True),
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


def test_batches_with_features_hold_one_step():
    """Those of a datamodule of one's own, whose features would take memory."""

    class Own(pl.LightningDataModule):
        def __init__(self):
            super().__init__()
            self.inner = digits()
            self.inner.setup("fit")
            self.train_set, self.batch_size, self.sizes = self.inner.train_set, 1, []

        def train_dataloader(self):
            for index in torch.arange(300).split(self.batch_size):
                self.sizes.append(len(index))
                yield self.train_set.x[index], self.train_set.y[index], index

        def val_dataloader(self):
            return self.inner.val_dataloader()

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


def test_the_bar_counts_steps(monkeypatch):
    monkeypatch.setattr("sys.stderr", written := io.StringIO())
    trainer = fit(machine(), digits(), 3, callbacks=[ProgressBar()], enable_progress_bar=True)
    assert total_steps(trainer) == 24
    assert "24/24" in written.getvalue()


def test_arrays_of_one_row():
    data = ArrayDataModule.from_arrays(torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 2), torch.ones(1, 1))
    assert fit(kl.KernelMachine(kl.Laplacian(1.0)), data, 2).global_step == 2
