"""Several ranks under a whole Trainer: stopping, samplers, label noise, loggers, figures, streams."""

import pytest
import pytorch_lightning as pl
import torch
from processes import on_ranks, shared
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from training import quiet_trainer

import kl
from callbacks import (
    ConfusionMatrix,
    ConvergenceFigure,
    RKHSNorm,
    Spectrum,
    StopWhenInterpolated,
    Timing,
    WorstErrors,
)
from datamodules import DigitsDataModule, StreamDataModule
from datamodules.synthetic import write_synthetic

LAPLACIAN = kl.Laplacian(4.0)


class Seen(pl.Callback):
    """Which rows each epoch's steps were on."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, machine):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, machine, batch, index):
        self.epochs[-1].append(batch[-1].clone())


def around(folder):
    """A run with early stopping and a logger: where it stopped, which rows it saw, which labels it had."""
    seen, stop = Seen(), StopWhenInterpolated()
    trainer = quiet_trainer(
        30,
        **shared(),
        logger=[TensorBoardLogger(folder, name="board", version=0), CSVLogger(folder, name="table", version=0)],
        callbacks=[
            seen,
            stop,
            RKHSNorm(per_step=True),
            Spectrum(),
            ConvergenceFigure(),
            ConfusionMatrix(),
            Timing(),
            WorstErrors(),
            EarlyStopping("train/mse", patience=3),
            ModelCheckpoint(f"{folder}/kept", monitor="val/error"),
        ],
        enable_checkpointing=True,
        log_every_n_steps=1,
    )
    data = DigitsDataModule(label_noise=0.2)
    machine = kl.KernelMachine(LAPLACIAN, memory="1GB", batch_size=103)
    trainer.fit(machine, datamodule=data)
    return {
        "epochs": trainer.current_epoch,
        "stopped": stop.stopped_epoch,
        "labels": data.train_set.y.argmax(dim=1),
        "mask": data.noise_mask,
        "order": seen.epochs,
        "metrics": {**machine.train_metrics, **machine.eval_metrics, "norm": machine.rkhs_norm},
    }


@pytest.mark.slow
def test_stopping_sampling_and_noise_are_those_of_one_rank(tmp_path):
    alone = around(tmp_path / "alone")
    ranks = on_ranks(4, around, tmp_path / "shared")
    n = len(alone["labels"])
    assert alone["stopped"] == alone["epochs"] < 30
    for rank in ranks:
        assert (rank["epochs"], rank["stopped"]) == (alone["epochs"], alone["stopped"])
        assert torch.equal(rank["labels"], alone["labels"])
        assert torch.equal(rank["mask"], alone["mask"])
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
        for ours, theirs in zip(rank["order"], alone["order"], strict=True):
            assert all(map(torch.equal, ours, theirs))
            assert torch.equal(torch.cat(ours).sort()[0], torch.arange(n))  # each row once
    # One rank writes, the same files as a run on one device.
    names = [
        {path.name if "tfevents" not in path.name else "events" for path in (tmp_path / run).rglob("*")}
        for run in ("alone", "shared")
    ]
    assert names[0] == names[1]
    assert len(list((tmp_path / "shared").rglob("events*"))) == 1


class DoubleDigits(DigitsDataModule):
    """Features in float64, so that all kernel values are."""

    def setup(self, stage=None):
        if not self._is_setup:
            super().setup(stage)
            self.train_set = kl.RowDataset(self.train_set.x.double(), self.train_set.y.double())
            self.test_set = kl.RowDataset(self.test_set.x.double(), self.test_set.y.double(), self.test_set.y_noisy)


def in_float64():
    """The weights of all ranks, in order, after 5 epochs."""
    found = []
    common = {"memory": "1GB", "batch_size": 101}
    for machine in (
        kl.KernelMachine(LAPLACIAN, **common),
        kl.GeneralKernelMachine(LAPLACIAN, 301, projection_period=2, **common),
    ):
        quiet_trainer(5, **shared()).fit(machine, datamodule=DoubleDigits(label_noise=0.1))
        found.append(machine.ranks.all_gather_in_order(machine.alpha.detach(), machine.num_centers))
    return found


def test_weights_are_those_of_one_rank_but_for_rounding():
    """In float32 the preconditioner amplifies rounding to 1.4e-5; see tests/test_ranks.py."""
    for ours, alone in zip(on_ranks(4, in_float64)[3], in_float64(), strict=True):
        assert float((ours - alone).norm() / alone.norm()) < 1e-11


def stream(folder):
    """EigenPro 4 on a stream, of which every rank reads all rows."""
    machine = kl.GeneralKernelMachine(LAPLACIAN, 50, memory="1GB", batch_size=64, projection_period=2)
    data = StreamDataModule(folder)
    trainer = quiet_trainer(2, **shared())
    trainer.fit(machine, datamodule=data)
    return {**machine.train_metrics, **machine.eval_metrics, "norm": machine.rkhs_norm}


def test_a_stream_on_two_ranks(tmp_path):
    folder = tmp_path / "big"
    write_synthetic(folder, kind=1, rows=700, test_rows=100, shard_rows=300)
    wanted = stream(folder)
    for found in on_ranks(2, stream, folder):
        assert found == pytest.approx(wanted, rel=1e-4)
