"""The options of a run, kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml


class KeepOptions(pl.Callback):
    """Writes config.yaml into the run's folder once training starts; `kl fit --config` repeats the run.

    Args:
        options: plain values by option name.

    Attributes:
        written: whether training has started and the file was written.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.written = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        folder = trainer.log_dir
        if folder is None or not trainer.is_global_zero:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "config.yaml").write_text(yaml.safe_dump(self.options, sort_keys=False), encoding="utf-8")
        self.written = True
