"""One log line per epoch, for runs without a terminal that could show a progress bar."""

from __future__ import annotations

import logging
import time

import pytorch_lightning as pl

from callbacks.common import Machine, val_name

log = logging.getLogger(__name__)

_SHOWN = {
    "train/mse": "train mse {:.3e}",
    "train/error": "train error {:.2%}",
    "train/mse_running": "train mse over the batches {:.3e}",
    "train/error_running": "train error over the batches {:.2%}",
    "val/mse": "{rows} mse {:.3e}",
    "val/error": "{rows} error {:.2%}",
}


class EpochLines(pl.Callback):
    """Logs after each epoch the errors, the RKHS norm if the machine has one, and the time left.

    Args:
        seconds: the least time between two lines; 0 logs every epoch.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Start the clock."""
        self._start, self._first = time.perf_counter(), trainer.current_epoch
        self._logged = self._start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Log the line of this epoch."""
        if not trainer.is_global_zero or time.perf_counter() - self._logged < self.seconds:
            return
        self._logged = time.perf_counter()
        known = {**{tag: float(value) for tag, value in trainer.callback_metrics.items()}, **pl_module.train_metrics}
        parts = [form.format(known[tag], rows=val_name(trainer)) for tag, form in _SHOWN.items() if tag in known]
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        each = (time.perf_counter() - self._start) / (epoch - self._first)
        left = f", {each:.1f} s an epoch, {each * (epochs - epoch):.0f} s left" if epochs > 0 else ""
        of = f"/{epochs}" if epochs > 0 else ""
        if hasattr(pl_module, "rkhs_norm"):
            parts.append(f"RKHS norm {pl_module.rkhs_norm:.6g}")
        log.info("epoch %d%s: %s%s", epoch, of, ", ".join(parts), left)
