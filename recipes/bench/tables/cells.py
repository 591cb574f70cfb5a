"""One cell: a method on a split of a set. It is measured, kept in a file, and found there again."""

from __future__ import annotations

import functools
import json
import math
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kl.system.files import written_whole
from kl.tuning.features import SUBSAMPLE_ROWS
from recipes.bench.record import one_line
from recipes.bench.tables.protocol import Protocol
from recipes.bench.tables.sets import fingerprint, read_split, task_of
from recipes.output.hardware import commit, version
from recipes.output.report import plain_values

DONE, FAILED, TIMED_OUT, NOT_RUN = "done", "failed", "timed out", "not run"
KEPT = (DONE, TIMED_OUT)  # other cells are tried again, because their cause may have been removed
PACKAGES = {
    "kl": "torch",
    "rfm": "torch",
    "xrfm": "xrfm",
}  # of a method whose version matters; others are of scikit-learn
WARNINGS = 5  # different warnings that a cell keeps


@dataclass(frozen=True)
class Asked:
    """What a cell is of; results are kept for all of this alone."""

    set: str
    path: str
    split: int
    method: str
    protocol: Protocol

    @property
    def key(self) -> dict[str, Any]:
        """What a kept cell must agree in: the rows by their hash, not by their path."""
        package = PACKAGES.get(self.method, "scikit-learn")
        plain = {**asdict(self), "path": fingerprint(Path(self.path))}
        found = {**plain, "version": f"{package} {version(package)}"}
        if self.method == "rfm" and self.protocol.train_rows > SUBSAMPLE_ROWS:
            found["candidate_rows"] = SUBSAMPLE_ROWS
        return found


@dataclass(frozen=True)
class Cell:
    """What was measured."""

    set: str
    split: int
    method: str
    task: str
    state: str
    """"done", "failed", "timed out" or "not run"."""
    value: float | None = None
    """The share of wrong classes, or the root mean squared error in the target's unit, on the test rows."""
    seconds: float | None = None
    """Of tuning and fitting."""
    predict_seconds: float | None = None
    candidates: int | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    """Why there is no value."""
    warnings: tuple[str, ...] = ()
    train_rows: int | None = None
    test_rows: int | None = None
    features: int | None = None


def measure(asked: Asked) -> Cell:
    """Tune, fit and test; whatever is raised is the reason of a failed cell."""
    from recipes.bench.tables import methods

    path = Path(asked.path)
    cell: dict[str, Any] = {"set": asked.set, "split": asked.split, "method": asked.method, "task": task_of(path)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            split = read_split(path, asked.split, asked.protocol)
            (n, d), m = split.x_train.shape, len(split.x_test)
            cell.update(train_rows=n, test_rows=m, features=d)
            start = time.perf_counter()
            fitted = methods.METHODS[asked.method](split, asked.protocol)
            cell.update(seconds=time.perf_counter() - start, candidates=fitted.candidates, chosen=fitted.chosen)
            start = time.perf_counter()
            value = loss(fitted.predict(split.x_test), split)
            cell.update(predict_seconds=time.perf_counter() - start, value=value, state=DONE)
            if not math.isfinite(value):
                cell.update(value=None, state=FAILED, reason="predictions that are not finite")
        except methods.NotRunError as error:
            cell.update(state=NOT_RUN, reason=str(error))
        except Exception as error:  # a failure is a row of the table
            cell.update(state=FAILED, reason=one_line(error))
    said = dict.fromkeys(f"{each.category.__name__}: {str(each.message).splitlines()[0]}"[:200] for each in caught)
    return Cell(**cell, warnings=tuple(said)[:WARNINGS])


def loss(predictions: Any, split: Any) -> float:
    """The share of wrong labels; or the root mean squared error in the target's own unit.

    Args:
        predictions: labels or standardised targets of the test rows, shape (m,).
        split: the `Split`.
    """
    if split.is_classes:
        return float((predictions != split.y_test).mean())
    return float((((predictions * split.scale + split.offset) - split.y_test) ** 2).mean() ** 0.5)


def ended(asked: Asked, state: str, reason: str) -> Cell:
    """The cell of a method that gave no answer."""
    return Cell(asked.set, asked.split, asked.method, task_of(Path(asked.path)), state, reason=reason)


def place(folder: Path, asked: Asked) -> Path:
    """The file of a cell."""
    return folder / "cells" / asked.set / f"{asked.method}-{asked.split}.json"


def keep(folder: Path, asked: Asked, cell: Cell) -> None:
    """Write a cell to its file, whole or not at all."""
    content = {"asked": asked.key, "commit": _commit(), "cell": asdict(cell)}
    with written_whole(place(folder, asked)) as file:
        file.write(json.dumps(plain_values(content), indent=1).encode() + b"\n")


@functools.cache
def _commit() -> str | None:
    """The commit of the code that this process has loaded."""
    return commit()


def kept(folder: Path, asked: Asked) -> Cell | None:
    """The cell that the folder has for exactly this; None where it has none that is finished."""
    try:
        content = json.loads(place(folder, asked).read_text())
        cell = Cell(**{**content["cell"], "warnings": tuple(content["cell"]["warnings"])})
        same = content["asked"] == asked.key
    except (OSError, ValueError, KeyError, TypeError):  # no file, or one of another version
        return None
    return cell if same and cell.state in KEPT else None
