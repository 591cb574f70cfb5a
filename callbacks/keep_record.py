"""The record of a run in its folder: where its numbers come from, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.common import Machine, find_callback, val_name
from callbacks.confusion import ConfusionMatrix
from callbacks.spectrum import Spectrum
from callbacks.worst_errors import WorstErrors
from kl.system.files import written_whole


class KeepRecord(pl.Callback):
    """Writes results.json into the run's folder: once training starts, and again with the results.

    The file holds the `origin` of the run, "finished", "results" (None before the end), "rows" ("test" or "validation",
    the rows of val/*), and what other callbacks have found: "spectrum", `Spectrum.found`; "confusion", the "names" of
    the classes and the "counts" above 0 as [true, predicted, count]; "worst_errors", `WorstErrors.errors`. What no
    callback has found is None.

    Args:
        origin: command, commit, date and machine as plain values, from the type of the device that computes.
        dump: turns the record into text.

    Attributes:
        path: the file; None before it is written, and on all ranks but the first.
    """

    def __init__(self, origin: Callable[[str], dict[str, Any]], dump: Callable[[dict[str, Any]], str]) -> None:
        self.origin, self.dump = origin, dump
        self.path: Path | None = None
        self._record: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Write what is known."""
        folder = trainer.log_dir
        if folder is None or not trainer.is_global_zero:
            return
        self.path, self._record = Path(folder, "results.json"), self.origin(pl_module.device.type)
        spectrum = find_callback(trainer, Spectrum)
        self._write(
            finished=False,
            results=None,
            rows=val_name(trainer),
            spectrum=spectrum and spectrum.found,
            confusion=None,
            worst_errors=None,
        )

    def finish(self, trainer: pl.Trainer, results: dict[str, Any]) -> None:
        """Write all, after the run; on ranks without the file nothing."""
        if self.path is None:
            return
        confusion, worst = find_callback(trainer, ConfusionMatrix), find_callback(trainer, WorstErrors)
        counts = None
        if confusion is not None and confusion.matrix is not None:
            found = confusion.matrix
            places = found.nonzero().tolist()
            counts = {"names": confusion.names, "counts": [[i, j, int(found[i, j])] for i, j in places]}
        self._write(finished=True, results=results, confusion=counts, worst_errors=worst and worst.errors)

    def _write(self, **more: Any) -> None:
        assert self.path is not None
        self._record |= more
        with written_whole(self.path) as file:
            file.write(self.dump(self._record).encode())
