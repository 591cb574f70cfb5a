"""A progress bar over the whole run, on standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from callbacks.common import Machine

_SHOWN = {"train/error": "train error", "val/error": "val error"}


def _on_standard_error(make: Callable[[TQDMProgressBar], Tqdm]) -> Callable[[TQDMProgressBar], Tqdm]:
    """Wrap a method of Lightning that makes a bar on sys.stdout, so that the bar goes to standard error."""

    def made(self: TQDMProgressBar) -> Tqdm:
        with redirect_stdout(sys.stderr):
            return make(self)

    return made


class ProgressBar(TQDMProgressBar):
    """One bar for all epochs: steps done, time taken and left, batch error and |f|_H, then the epoch's errors.

    Lightning's own bar restarts every epoch, so it cannot show when the run ends, and it writes to standard output,
    which `--json` needs for its one object. If the number of steps is unknown, each epoch has its own bar, of
    training batches.

    Args:
        refresh_rate: training batches between updates of the bar.
    """

    counts_batches = False

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._drawn = -math.inf

    def on_train_start(self, *args: Any) -> None:
        """Make the bar when training starts or resumes."""
        super().on_train_start(*args)
        trainer = self.trainer
        self._total = total_steps(trainer)
        if self._total is not None:
            bar = self.train_progress_bar
            bar.reset(total=self._total)
            # A resumed run did not spend time on the steps of the earlier run.
            bar.initial = bar.n = min(trainer.global_step, self._total)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Show the number of the epoch, counted from 1."""
        if self._total is None:
            super().on_train_epoch_start(trainer, *args)
        of = "" if self._total is None else f"/{trainer.max_epochs}"
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}{of}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Machine, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar to the last step."""
        if self._total is None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        bar = self.train_progress_bar
        now, last = time.monotonic(), batch_idx + 1 == self.total_train_batches
        # At most ten times a second, because reading the numbers waits for a GPU.
        if self._should_update(batch_idx + 1, int(self.total_train_batches)) and (last or now - self._drawn > 0.1):
            self._drawn = now
            bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
            bar.update(trainer.global_step - bar.n)

    def get_metrics(self, trainer: pl.Trainer, pl_module: Machine) -> dict[str, Any]:
        """Error and norm of the step, and the last known errors of an epoch; no version number."""
        values = super().get_metrics(trainer, pl_module)
        values = {
            name: value for name, value in values.items() if name != "v_num" and name not in trainer.callback_metrics
        }
        if pl_module.batch_error is not None:
            values["error"] = pl_module.batch_error
        if pl_module.norm_is_free:
            values["norm"] = pl_module.rkhs_norm
        known = trainer.callback_metrics
        return values | {name: float(known[tag]) for tag, name in _SHOWN.items() if tag in known}

    init_sanity_tqdm = _on_standard_error(TQDMProgressBar.init_sanity_tqdm)
    init_train_tqdm = _on_standard_error(TQDMProgressBar.init_train_tqdm)
    init_validation_tqdm = _on_standard_error(TQDMProgressBar.init_validation_tqdm)
    init_test_tqdm = _on_standard_error(TQDMProgressBar.init_test_tqdm)
    init_predict_tqdm = _on_standard_error(TQDMProgressBar.init_predict_tqdm)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Write a line above the bar."""
        super().print(*args, sep=sep, **{"file": sys.stderr, **kwargs})


def total_steps(trainer: pl.Trainer) -> int | None:
    """The steps of the whole run; None if they are unknown."""
    batches, epochs, steps = trainer.num_training_batches, trainer.max_epochs, trainer.max_steps
    machine: Machine = trainer.lightning_module
    if machine.steps_per_batch > 1:
        batches = -(-machine.num_centers // machine.batch_rows)
    totals = [int(batches * epochs)] if epochs is not None and epochs > 0 and batches != float("inf") else []
    totals += [steps] if steps > 0 else []
    return min(totals, default=None)
