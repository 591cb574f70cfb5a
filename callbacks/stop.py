"""Stopping once the training data is fitted."""

from __future__ import annotations

import logging

import pytorch_lightning as pl

from callbacks.common import Machine
from kl import InputError
from kl.checks import check_positive
from kl.machines.checkpoints import require_values
from kl.system.wording import counted

log = logging.getLogger(__name__)


class StopWhenInterpolated(pl.Callback):
    """Stops at the first epoch with no training error: the "overfitted" classifier of the source below.

    The error is the machine's train/error, computed over all rows with the weights at the end of the epoch. A machine
    that has only means over the epoch's batches, as for a stream, uses train/error_running and train/mse_running.

    Args:
        mse: also stop once train/mse is at most this; required for regression, which has no classification error.

    Attributes:
        stopped_epoch: epochs trained when the condition was first met, counted from 1; None if it was not.

    Raises:
        InputError: mse is not a finite number above 0, or (at fit start) it is missing for regression.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 3.
    """

    def __init__(self, mse: float | None = None) -> None:
        self.mse = None if mse is None else check_positive("mse", mse, "or None")
        self.stopped_epoch: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: Machine, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's epoch is loaded after this."""
        if stage == "fit":
            self.stopped_epoch = None

    def state_dict(self) -> dict[str, int | None]:
        """What a checkpoint keeps."""
        return {"stopped_epoch": self.stopped_epoch}

    def load_state_dict(self, state_dict: dict[str, int | None]) -> None:
        """Restore what a checkpoint kept."""
        require_values("StopWhenInterpolated", state_dict, {"stopped_epoch": int | None})
        self.stopped_epoch = state_dict["stopped_epoch"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Check that `mse` is given for regression."""
        if self.mse is None and not pl_module.is_classifier:
            raise InputError(
                "StopWhenInterpolated needs mse for regression, which has no classification error; got mse=None: give "
                "--stop-mse 1e-4, StopWhenInterpolated(mse=1e-4) from Python, or leave it out"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Stop if the epoch's training error is 0 or its mse is small enough."""
        metrics = pl_module.train_metrics  # empty if max_steps ended the first epoch early
        error, mse = (metrics.get(tag, metrics.get(f"{tag}_running")) for tag in ("train/error", "train/mse"))
        fitted = error == 0 or (self.mse is not None and mse is not None and mse <= self.mse)
        if not trainer.strategy.reduce_boolean_decision(fitted) or self.stopped_epoch is not None:
            return
        self.stopped_epoch = trainer.current_epoch + 1
        trainer.should_stop = True
        log.info("the training data is fitted after %s", counted(self.stopped_epoch, "epoch"))
