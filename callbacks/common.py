"""What several callbacks share: how they find each other, the loggers, and the metrics of the present epoch."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from kl.machines.data_facts import facts_of

Machine: TypeAlias = Any
"""A kl.KernelMachine; Lightning's own signatures say LightningModule, which has none of its attributes."""

CallbackT = TypeVar("CallbackT", bound=pl.Callback)


def find_callback(trainer: pl.Trainer, kind: type[CallbackT]) -> CallbackT | None:
    """The trainer's first callback of that class; None where it has none."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]


def tensorboard_loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    """The trainer's TensorBoard loggers; none under fast_dev_run."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def val_name(trainer: pl.Trainer) -> str:
    """What the val/* values are of: "validation" where a part of the training rows is held out, else "test"."""
    return "validation" if facts_of(trainer).validation else "test"


def validation_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The val/* values of the validation that this epoch ended with; empty where it ran none.

    `trainer.callback_metrics` keeps values of earlier epochs, which would be compared with this epoch's training.
    """
    every = trainer.check_val_every_n_epoch
    due = every is None or (trainer.current_epoch + 1) % every == 0
    if not (trainer.enable_validation and due and trainer.is_last_batch):  # max_steps ends an epoch without one
        return {}
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
