"""Whether several steps may share a training batch of Lightning, whose own work is done once a batch."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar, Timer
from pytorch_lightning.utilities.model_helpers import is_overridden


def counts_batches(trainer: pl.Trainer) -> bool:
    """Whether a setting or a callback of the trainer counts training batches, or does something at each of them.

    A callback of ours says so itself, by an attribute `counts_batches`.
    """
    parts = trainer.limit_train_batches, trainer.val_check_interval  # type: ignore[attr-defined]
    if trainer.max_steps != -1 or parts != (1.0, 1.0):
        return True
    return any(_counts(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def _counts(callback: Callback) -> bool:
    said = getattr(callback, "counts_batches", None)
    if said is not None:
        return bool(said)
    if isinstance(callback, ModelCheckpoint):
        return callback._every_n_train_steps > 0 or callback._train_time_interval is not None
    if isinstance(callback, ProgressBar | Timer):
        return False
    hooks = ("on_train_batch_start", "on_train_batch_end")
    return any(is_overridden(hook, callback, parent=Callback) for hook in hooks)
