"""The best epoch on the validation part: find it, keep its checkpoint, and stop when no better one follows."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from callbacks.common import Machine, find_callback, validation_metrics
from callbacks.exact_interpolation import ExactInterpolation
from kl.checks import check_count
from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import read_checkpoint, require_values
from kl.machines.data_facts import facts_of
from kl.system.files import written_whole

log = logging.getLogger(__name__)

Values = dict[str, Any]  # "epoch", counted from 1, and values by tag


class BestEpoch(pl.Callback):
    """Finds the epoch with the lowest error on the validation part, and may stop training when no better one follows.

    The best epoch has the lowest val/error; ties are broken by the lowest val/mse, then by the earliest epoch. For
    regression, and for a `kl.RecursiveFeatureMachine`, which chooses its round so, it has the lowest val/mse. With
    label noise the noisy labels count (val/error_noisy, val/mse_noisy), because clean labels are not known in practice.
    Values that are not finite count as infinite.

    Args:
        patience: stop after this many epochs without a better one; None never stops.

    Attributes:
        best: the values of the best epoch: "epoch" counted from 1, train/*, val/*, for a kernel machine rkhs/norm and
            rkhs/norm_per_class, and with an `ExactInterpolation` exact/distance. None before the first epoch ends.
        last: the same values of the last epoch.

    Raises:
        InputError: patience is not a whole number of at least 1; or (at fit start) the data module holds out no
            validation part, so that the epoch would be chosen on the test set.
    """

    def __init__(self, patience: int | None = None) -> None:
        self.patience = None if patience is None else check_count("patience", patience)
        self.best: Values | None = None
        self.last: Values | None = None

    def setup(self, trainer: pl.Trainer, pl_module: Machine, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's epochs are loaded after this."""
        if stage == "fit":
            self.best = self.last = None

    def state_dict(self) -> dict[str, Values | None]:
        """What a checkpoint keeps."""
        return {"best": self.best, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Values | None]) -> None:
        """Restore what a checkpoint kept.

        Raises:
            CheckpointError: `state_dict` is not the state of a `BestEpoch`.
        """
        require_values("state of BestEpoch", state_dict, {"best": dict | None, "last": dict | None})
        for name, values in state_dict.items():
            if values is not None:
                require_values(f"{name} epoch", values, {"epoch": int})
        self.best, self.last = state_dict["best"], state_dict["last"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Check that the data module does not validate on the test set."""
        if facts_of(trainer).validation == 0:
            raise InputError(
                "BestEpoch chooses an epoch by val/*, which with validation=0 is of the test set: hold a part of the "
                "training rows out, as by validation=0.1"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Compare the epoch's values with the best, and stop if the best epoch is `patience` epochs old."""
        if not validation_metrics(trainer):
            return
        values = epoch_values(trainer, pl_module)
        # All ranks must agree on the best epoch, but their sums may differ in the last bits.
        self.last = trainer.strategy.broadcast(values)
        assert self.last is not None
        names = pl_module.epochs_compared_by
        if self.best is None or _merit(self.last, names) < _merit(self.best, names):
            self.best = self.last
        elif self.patience is not None and self.last["epoch"] - self.best["epoch"] >= self.patience:
            trainer.should_stop = True
            log.info("no better epoch on the validation part for %d epochs: stopping", self.patience)


class BestCheckpoint(Checkpoint):
    """Writes folder/best.ckpt after each epoch that `chooser` finds better than all epochs before.

    Put it after `last_checkpoint` in the list of callbacks. If a crash then leaves best.ckpt unwritten, last.ckpt holds
    the epoch that best.ckpt lacks. A run that resumes into another folder copies the checkpoint of the best epoch: the
    one it resumes from, or the best.ckpt beside that one.

    Args:
        folder: where best.ckpt is written.
        chooser: finds the best epoch.
    """

    def __init__(self, folder: str | Path, chooser: BestEpoch) -> None:
        self.path, self.chooser = Path(folder) / "best.ckpt", chooser

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """If the run resumes, find the checkpoint of its best epoch.

        Raises:
            CheckpointError: there is no such checkpoint.
        """
        if self.chooser.best is not None and trainer.ckpt_path and trainer.is_global_zero:
            self._take_over(Path(trainer.ckpt_path), self.chooser.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Write the checkpoint."""
        best = self.chooser.best
        if best is not None and best["epoch"] == trainer.current_epoch + 1:
            trainer.save_checkpoint(self.path)

    def _take_over(self, resumed: Path, best: Values) -> None:
        beside = resumed.with_name(self.path.name)
        for source in (resumed, beside):
            if source.exists() and _is_of(source, best):
                if source.resolve() != self.path.resolve():
                    with source.open("rb") as read, written_whole(self.path) as written:
                        shutil.copyfileobj(read, written)
                return
        raise CheckpointError(
            f"the best epoch of the run so far is {best['epoch']}, and {beside} does not hold it: put the best.ckpt of "
            f"the run beside {resumed.name}, or train again"
        )


def epoch_values(trainer: pl.Trainer, machine: Machine) -> Values:
    """The values of the current epoch for reports, as plain numbers."""
    tested = {tag: machine.eval_metrics[tag] for tag in validation_metrics(trainer)}  # logged ones are float32
    values: Values = {"epoch": trainer.current_epoch + 1, **machine.train_metrics, **tested}
    if hasattr(machine, "rkhs_norm"):
        values |= {"rkhs/norm": machine.rkhs_norm, "rkhs/norm_per_class": machine.rkhs_norm_per_class.tolist()}
    exact = find_callback(trainer, ExactInterpolation)
    if exact is not None and exact.solution is not None:
        values["exact/distance"] = exact.epoch_distance(trainer, machine)
    return values


def _merit(values: Values, names: tuple[str, ...]) -> tuple[float, ...]:
    """The values by which epochs are compared; the lowest is the best."""
    noisy = "_noisy" if "val/error_noisy" in values else ""
    known = (values.get(f"val/{name}{noisy}", 0.0) for name in names)
    return tuple(value if math.isfinite(value) else math.inf for value in known)


def _is_of(path: Path, best: Values) -> bool:
    """Whether a checkpoint was written at the end of the best epoch of this run."""
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("callbacks", {}).get(BestEpoch.__qualname__, {})
    return bool(state.get("best") == best and checkpoint.get("epoch") == best["epoch"] - 1)
