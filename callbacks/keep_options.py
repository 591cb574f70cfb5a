"""The options of a run, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.common import Machine
from kl.system.files import written_whole

# Options whose value in the run may differ from the requested one: it is clipped, or comes from the checkpoint.
PLANNED = ("batch_size", "step_size", "top_q", "subsample", "projection_period")


class KeepOptions(pl.Callback):
    """Writes config.yaml into the run's folder once training starts; `kl fit --config` repeats the run.

    A requested value is written as the run uses it; "auto" is written as "auto".

    Args:
        options: plain values by option name.
        dump: turns the options into text.

    Attributes:
        written: whether the file was written.
    """

    def __init__(self, options: dict[str, Any], dump: Callable[[dict[str, Any]], str]) -> None:
        self.options, self.dump = options, dump
        self.written = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Write the file."""
        folder = trainer.log_dir
        if folder is None or not trainer.is_global_zero:
            return
        chosen = pl_module.parameters_chosen
        asked = [name for name in PLANNED if str(self.options.get(name, "auto")) != "auto" and name in chosen]
        runs = {**self.options, **{name: str(chosen[name]) for name in asked}}
        with written_whole(Path(folder, "config.yaml")) as file:
            file.write(self.dump(runs).encode())
        self.written = True
