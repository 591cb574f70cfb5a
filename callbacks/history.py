"""The metrics of every epoch, kept for figures and tables."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from callbacks.common import Machine, validation_metrics
from kl.errors import CheckpointError
from kl.machines.checkpoints import require_values

Curves = dict[str, list[tuple[int, float]]]  # by tag: epochs trained, value


class History(pl.Callback):
    """Keeps train/*, val/* and, for a kernel machine, rkhs/norm of every epoch.

    Attributes:
        history: by tag, (epochs trained, value); part of the checkpoint, so that a resumed run has all of it.
    """

    def __init__(self) -> None:
        self.history: Curves = {}

    def setup(self, trainer: pl.Trainer, pl_module: Machine, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's history is loaded after this."""
        if stage == "fit":
            self.history = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Append the epoch's values."""
        for tag, value in self.values(trainer, pl_module).items():
            self.history.setdefault(tag, []).append((trainer.current_epoch + 1, float(value)))

    def values(self, trainer: pl.Trainer, pl_module: Machine) -> dict[str, float]:
        """The epoch's values by tag."""
        tested = {tag: pl_module.eval_metrics[tag] for tag in validation_metrics(trainer)}  # logged ones are float32
        values = {**pl_module.train_metrics, **tested}
        if hasattr(pl_module, "rkhs_norm"):
            values["rkhs/norm"] = pl_module.rkhs_norm
        return values

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain lists."""
        return {"history": {tag: [list(point) for point in points] for tag, points in self.history.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history of a checkpoint.

        Raises:
            CheckpointError: `state_dict` does not hold a history.
        """
        require_values("history", state_dict, {"history": dict[str, list]})
        saved = state_dict["history"]
        try:
            self.history = {tag: [(int(epoch), float(value)) for epoch, value in saved[tag]] for tag in saved}
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"its history must be of pairs of an epoch and a value: {error}") from error
