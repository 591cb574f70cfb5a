"""The tables of a folder: which there are, their splits, and the features that all methods get."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kl.errors import InputError
from kl.rows.table import TableEncoding
from kl.system.files import expand_home
from recipes.bench.tables.protocol import FOLDS, QUICK_SETS, Protocol

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Split:
    """One split of a set, with features fitted on its training rows."""

    x_train: np.ndarray  # float64, shape: (n, d)
    y_train: np.ndarray  # int64 labels, or targets of mean 0 and variance 1, float64, shape: (n,)
    x_test: np.ndarray  # float64, shape: (m, d)
    y_test: np.ndarray  # labels, or targets in their own unit, shape: (m,)
    num_classes: int
    """0 for regression."""
    offset: float = 0.0
    scale: float = 1.0
    """A training target times the scale plus the offset is in the target's own unit."""

    @property
    def is_classes(self) -> bool:
        """Whether the targets are classes."""
        return self.num_classes > 0


def find_sets(data_dir: str | None) -> dict[str, Path]:
    """The files of a folder's sets by their names: first those of regression, then those of classes.

    Raises:
        InputError: the folder holds no sets.
    """
    folder = Path(expand_home(data_dir or os.environ.get("KL_DATA_DIR") or "data"))
    paths = [*sorted(folder.glob("uci/*.npz")), *sorted(folder.glob("tables/*.csv"))]
    if not paths:
        raise InputError(
            f"data_dir must be a folder with uci/NAME.npz or tables/NAME.csv; {folder} has neither: give --data-dir, "
            "or set KL_DATA_DIR"
        )
    return {path.stem: path for path in paths}


def choose_sets(there: dict[str, Path], asked: str | None, scale: str) -> dict[str, Path]:
    """The sets that --sets names, or those of the scale.

    Raises:
        InputError: the folder does not have one of them.
    """
    names = list(QUICK_SETS if scale == "quick" else there)
    if asked is not None:
        names = list(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        if name not in there:
            why = "" if asked is not None else ", which --scale quick takes: name others by --sets"
            raise InputError(f"sets must be of {', '.join(there)}; got {name!r}{why}")
    return {name: there[name] for name in names}


def task_of(path: Path) -> str:
    """What is learnt from a file: "regression" of .npz, "classification" of .csv."""
    return "regression" if path.suffix == ".npz" else "classification"


def count_splits(path: Path) -> int:
    """How many splits the file has."""
    if path.suffix == ".csv":
        return FOLDS
    with np.load(path) as file:
        return int(file["fold"].max()) + 1


@functools.cache
def fingerprint(path: Path) -> str:
    """The SHA-256 of the file, by which results are kept."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.lru_cache(maxsize=1)  # the methods take turns on a split
def read_split(path: Path, split: int, protocol: Protocol) -> Split:
    """Read one split, with the rows that the protocol allows.

    A test row is one of fold `split`: the file's own fold for regression, of stratified folds with seed 0 for classes.
    """
    frame, target, fold = _read(path)
    rng = np.random.default_rng([protocol.seed, split])
    train = _at_most(np.flatnonzero(fold != split), protocol.train_rows, rng)
    test = _at_most(np.flatnonzero(fold == split), protocol.test_rows, rng)
    table = TableEncoding.fit(frame.iloc[train])
    x_train, x_test = (table.encode(frame.iloc[rows]).double().numpy() for rows in (train, test))
    if task_of(path) == "classification":
        return Split(x_train, target[train], x_test, target[test], int(target.max()) + 1)
    offset, scale = float(target[train].mean()), float(target[train].std()) or 1.0
    return Split(x_train, (target[train] - offset) / scale, x_test, target[test], 0, offset, scale)


def _read(path: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """All rows: the features' columns, the target (labels as 0, 1, ...), and the fold."""
    import pandas as pd
    from sklearn.model_selection import StratifiedKFold

    if path.suffix == ".npz":
        with np.load(path) as file:
            x, y, fold = file["x"], file["y"].astype(np.float64), file["fold"]
        return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])]), y, fold
    frame = pd.read_csv(path, keep_default_na=False)  # "NA" and "None" may be categories
    if frame.columns[-1] != "class":
        raise InputError(f"{path} must have the last column class; it is {frame.columns[-1]!r}: rename or move it")
    labels = np.unique(frame.pop("class").astype(str), return_inverse=True)[1]
    fold = np.empty(len(labels), dtype=np.int64)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for k, (_, test) in enumerate(folds.split(labels, labels)):
        fold[test] = k
    return frame, labels, fold


def _at_most(rows: np.ndarray, most: int | None, rng: np.random.Generator) -> np.ndarray:
    """The rows, or `most` drawn ones, in ascending order."""
    return rows if most is None or len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
