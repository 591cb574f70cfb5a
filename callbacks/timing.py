"""How long an epoch takes and how much memory the run takes."""

from __future__ import annotations

import time

import pytorch_lightning as pl
import torch

from callbacks.common import Machine
from kl.system.memory import peak_memory


class Timing(pl.Callback):
    """Logs time/epoch_seconds and memory/peak (bytes) at every epoch.

    time/epoch_seconds is wall time from the start of the epoch to the end of its last step: loading batches, the steps,
    and what is logged at a step. Validation, the training error over all rows after the last step, and the callbacks'
    work at the end of an epoch are not included. The clock waits for a GPU only at the start and the end of an epoch,
    and before a validation within it.

    memory/peak is the peak so far of the process (CPU) or of torch's allocator (GPU), including the set-up.

    Attributes:
        seconds_per_epoch: time/epoch_seconds of every epoch of this fit.
    """

    counts_batches = False

    def __init__(self) -> None:
        self.seconds_per_epoch: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Forget an earlier fit."""
        self.seconds_per_epoch = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Start the clock."""
        self._spent = 0.0
        self._since = self._now(pl_module.device, wait=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Machine, *_: object) -> None:
        """Add the time since the batch before."""
        now = self._now(pl_module.device, wait=trainer.is_last_batch)
        self._spent += now - self._since
        self._since = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Stop the clock once a GPU has finished its queued steps, which belong to training."""
        if not trainer.sanity_checking and not trainer.is_last_batch:
            self._spent += self._now(pl_module.device, wait=True) - self._since

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Start the clock again, so that a validation within an epoch does not count."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Log the epoch's time and the peak memory."""
        self.seconds_per_epoch.append(self._spent)
        values = {"time/epoch_seconds": self._spent, "memory/peak": float(peak_memory(pl_module.device))}
        pl_module.log_dict(values, batch_size=1)

    @staticmethod
    def _now(device: torch.device, wait: bool) -> float:
        if wait and device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()
