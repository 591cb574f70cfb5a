"""Whether several steps may share a training batch of Lightning, whose own work is done once a batch."""

from __future__ import annotations

import warnings

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer, TQDMProgressBar

from kl.errors import CheckpointError

HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step")
SHOWING = (Callback, TQDMProgressBar, RichProgressBar, Timer)  # whose own hooks show or ask for the time
MACHINE_HOOKS = (
    *(*HOOKS, "training_step"),
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
)


def counts_batches(trainer: pl.Trainer) -> bool:
    """Whether a setting or a callback of the trainer counts training batches, or does something at each of them.

    A callback may say so itself, by an attribute `counts_batches`. False holds for the hooks of the class that says it
    and of those above it, because a subclass may do anything in hooks of its own.
    """
    # Lightning takes the int 1 for one batch, and 1.0 for all.
    parts = [getattr(trainer, name, 0) for name in ("limit_train_batches", "val_check_interval")]  # 0: by the clock
    if trainer.max_steps != -1 or (trainer.min_steps or 0) > 0 or not all(isinstance(part, float) for part in parts):
        return True
    return min(parts) < 1.0 or any(_counts(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def _counts(callback: Callback) -> bool:
    if "counts_batches" in vars(callback) or getattr(callback, "counts_batches", False):
        return bool(callback.counts_batches)  # type: ignore[attr-defined]
    for hook in HOOKS:
        if hook in vars(callback):  # a function that was set on this callback alone
            return True
        classes = type(callback).__mro__
        place = next((i for i, cls in enumerate(classes) if hook in vars(cls)), -1)
        if any("counts_batches" in vars(cls) for cls in classes[: place + 1]):
            continue  # it says False of this hook
        if classes[place] is ModelCheckpoint:
            if callback._every_n_train_steps > 0 or callback._train_time_interval is not None:  # type: ignore[attr-defined]
                return True
        elif classes[place] not in SHOWING:
            return True
    return False


def hooks_batches(machine: pl.LightningModule, known: type[pl.LightningModule]) -> bool:
    """Whether a machine does something at each training batch that the class `known` does not."""
    return any(
        name in vars(machine) or getattr(type(machine), name) is not getattr(known, name) for name in MACHINE_HOOKS
    )


def follow_checkpoint(trainer: pl.Trainer, steps_per_batch: int) -> None:
    """Let a run go on from the end of an epoch that had another number of training batches than its epochs have.

    A checkpoint counts the batches of its last epoch, which is over, and of all epochs; Lightning compares the first
    with the batches of the run, and the second with `val_check_interval`. Lightning also warns unless all steps are a
    multiple of the batches of an epoch.

    Raises:
        CheckpointError: the checkpoint was written at a validation that this run does not make, for which Lightning
            would train on a further batch.
    """
    loop, batches = trainer.fit_loop.epoch_loop, trainer.num_training_batches
    if not loop.batch_progress.current.ready or batches == float("inf"):
        return
    for name in ("ready", "started", "processed", "completed"):
        setattr(loop.batch_progress.current, name, int(batches))
        if steps_per_batch == 1:
            setattr(loop.batch_progress.total, name, trainer.global_step)
    if loop.restarting:
        if loop.restarted_on_last and not loop._should_check_val_epoch():
            raise CheckpointError(
                "the checkpoint was written at the validation after its last epoch, and this run has none there: "
                "resume with validation, or from a checkpoint that was written with save_on_train_epoch_end=True"
            )
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
