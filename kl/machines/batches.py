"""Whether several steps may share a training batch of Lightning, whose own work is done once a batch."""

from __future__ import annotations

import warnings

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer, TQDMProgressBar

HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step")
SHOWING = (Callback, TQDMProgressBar, RichProgressBar, Timer)  # whose own hooks show or ask for the time
MACHINE_HOOKS = (*HOOKS, "training_step", "on_before_batch_transfer", "transfer_batch_to_device")


def counts_batches(trainer: pl.Trainer) -> bool:
    """Whether a setting or a callback of the trainer counts training batches, or does something at each of them.

    A callback of ours says so itself, by an attribute `counts_batches`, which holds for the hooks of its own class.
    """
    # Lightning takes the int 1 for one batch, and 1.0 for all.
    parts = [getattr(trainer, name, 0) for name in ("limit_train_batches", "val_check_interval")]  # 0: by the clock
    if trainer.max_steps != -1 or (trainer.min_steps or 0) > 0 or not all(isinstance(part, float) for part in parts):
        return True
    return min(parts) < 1.0 or any(_counts(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def _counts(callback: Callback) -> bool:
    for hook in HOOKS:
        if hook in vars(callback):  # a function that was set on this callback alone
            return True
        owner = next(cls for cls in type(callback).__mro__ if hook in vars(cls))
        if "counts_batches" in vars(owner):
            if callback.counts_batches:  # type: ignore[attr-defined]
                return True
        elif owner is ModelCheckpoint:
            if callback._every_n_train_steps > 0 or callback._train_time_interval is not None:  # type: ignore[attr-defined]
                return True
        elif owner not in SHOWING:
            return True
    return False


def hooks_batches(machine: pl.LightningModule, known: type[pl.LightningModule]) -> bool:
    """Whether a machine does something at each training batch that the class `known` does not."""
    return any(
        name in vars(machine) or getattr(type(machine), name) is not getattr(known, name) for name in MACHINE_HOOKS
    )


def follow_checkpoint(trainer: pl.Trainer) -> None:
    """Let a run go on from the end of an epoch that had another number of training batches than its epochs have.

    A checkpoint counts the batches of its last epoch, which is over, and Lightning compares their number with that of
    the run. Lightning also warns unless all steps are a multiple of the batches of an epoch.
    """
    progress, batches = trainer.fit_loop.epoch_loop.batch_progress.current, trainer.num_training_batches
    if not progress.ready or batches == float("inf"):
        return
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress, name, int(batches))
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
