"""What several callbacks share: how they find each other, the loggers, and the metrics of the current epoch."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from kl.machines.data_facts import facts_of

Machine: TypeAlias = Any
"""A machine of kl. Lightning's signatures say LightningModule, which lacks the attributes of kl's machines."""

CallbackT = TypeVar("CallbackT", bound=pl.Callback)


def find_callback(trainer: pl.Trainer, kind: type[CallbackT]) -> CallbackT | None:
    """The trainer's first callback of that class; None if it has none."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]


def tensorboard_loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    """The trainer's TensorBoard loggers; none under fast_dev_run."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def val_name(trainer: pl.Trainer) -> str:
    """The name of the rows of val/*: "validation" if a part of the training rows is held out, else "test"."""
    return "validation" if facts_of(trainer).validation else "test"


def validation_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The val/* values of the validation at the end of this epoch; empty if there was none.

    `trainer.callback_metrics` also keeps the values of earlier epochs, which do not belong to this epoch's weights.
    """
    every = trainer.check_val_every_n_epoch
    due = every is None or (trainer.current_epoch + 1) % every == 0
    if not (trainer.enable_validation and due and trainer.is_last_batch):  # max_steps ends an epoch without validation
        return {}
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
