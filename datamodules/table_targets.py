"""What the target columns of a table are: classes or numbers, and numbers on a scale of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.table_sources import short_name
from datamodules.targets import targets
from kl.errors import InputError
from kl.rows.cells import TRUTHS, codes_of, is_number_dtype
from kl.rows.column_kinds import ColumnScan

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

FEW = 20  # different whole numbers that count as classes


@dataclass(frozen=True)
class TableTargets:
    """The targets of a table's rows.

    Args:
        values: class indices, shape (n,), long, or numbers in the target's own unit, float64, shape (n, c).
        class_names: one name per class; empty for regression.
    """

    values: Tensor
    class_names: list[str]


class TargetCells:
    """The cells of one target column, taken chunk by chunk: numbers, or texts by their codes.

    Args:
        name: of the column.
        where: what messages call the table.
        asked: "category" if they are classes, whatever they look like, "numeric" if they must be numbers; None if the
            cells decide.
    """

    def __init__(self, name: str, where: str, asked: str | None = None) -> None:
        self.name, self.where, self.asked = name, where, asked
        self._scan = ColumnScan(name)
        self._parts: list[tuple[np.ndarray, bool]] = []  # numbers, or codes of texts and True
        self._texts: dict[str, int] = {}

    def add(self, cells: pd.Series) -> None:
        """Take the next cells."""
        self._scan.add(cells)
        if is_number_dtype(cells) and self.asked != "category":
            self._parts.append((_numbers_of(cells), False))
            return
        codes, texts = codes_of(cells)
        numbers = [self._texts.setdefault(text, len(self._texts)) for text in texts]
        self._parts.append((np.array([*numbers, -1], dtype=np.int64)[codes], True))

    def values(self) -> tuple[np.ndarray, list[str]]:
        """The cells: numbers and no texts, or the codes of texts and the texts.

        Raises:
            InputError: a cell is missing, or the cells are of several kinds.
        """
        import pandas as pd

        kind, scan = self._scan.kind(self.asked), self._scan
        if kind is None or scan.missing:
            what = "in no row" if kind is None else f"in all rows but {scan.missing} of {scan.rows}"
            first = "" if kind is None else f", the first of them row {scan.first_missing + 1} (counted from 1)"
            remedy = "give another --target" if kind is None else "remove such rows, or predict them by kl predict"
            raise InputError(
                f"target {self.name} of {self.where} must have a value in every row; it has one {what}{first}: {remedy}"
            )
        if kind == "date":
            raise InputError(
                f"target {self.name} of {self.where} must hold classes or numbers; it holds dates: give days as "
                f"numbers, or add --categorical {self.name}"
            )
        if kind != "numeric":
            return np.concatenate([codes for codes, _ in self._parts]), list(self._texts)
        texts = [str(TRUTHS.index(text)) if text in TRUTHS else text for text in self._texts]
        known = _numbers_of(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"))
        return np.concatenate([known[part] if is_codes else part for part, is_codes in self._parts]), []


def _numbers_of(cells: pd.Series) -> np.ndarray:
    """Numbers: int64 if they are whole by their dtype and int64 holds them, else float64, NaN where one is missing."""
    whole = cells.dtype.kind in "iu" and not cells.isna().any() and (not len(cells) or int(cells.max()) < 2**63)
    return cells.to_numpy(np.int64) if whole else cells.to_numpy(dtype=np.float64, na_value=np.nan)


def table_targets(parts: list[list[TargetCells]], task: str) -> list[TableTargets]:
    """The targets of a training table and, optionally, of a test table, which have the same classes.

    Texts, truth values and few different whole numbers are classes, other numbers are numbers, unless `task` says
    otherwise. A log line says which was taken.

    Args:
        parts: of each table the target columns, with all rows.
        task: "classification", "regression" or "auto".

    Raises:
        InputError: a value is missing, the columns are not of the task, or all rows of the first table are equal.
    """
    names = [cells.name for cells in parts[0]]
    found = [[cells.values() for cells in part] for part in parts]
    texts = [name for name, (_, known) in zip(names, found[0], strict=True) if known]
    for (values, known), cells in zip(found[0], parts[0], strict=True):
        if values.min() == values.max():
            only = known[0] if known else f"{values[0]:g}"
            raise InputError(
                f"target {cells.name} of {cells.where} must have at least two values; all {len(values)} rows hold "
                f"{short_name(only)!r}: give another --target, or more rows"
            )
    if len(names) > 1 and (texts or task == "classification"):
        which = f"{texts[0]} holds texts" if texts else "--task classification has one"
        raise InputError(f"target may name several columns of numbers for regression; {which}: name one column")
    if texts:
        if task == "regression":
            raise InputError(f"target {names[0]} must hold numbers for --task regression; it holds texts: leave it out")
        return _classes_of_texts([part[0] for part in found], names[0], parts)
    columns = [np.stack([values for values, _ in part], axis=1) for part in found]
    if any(known for part in found for _, known in part):
        raise InputError(f"target {', '.join(names)} must hold numbers in the test file, as in the training file")
    if task == "auto" and any(cells.asked == "numeric" for cells in parts[0]):
        task = "regression"
        log.info("target %s: taken as numbers (regression), as asked", ", ".join(names))
    chosen = _guess(columns[0], names, task) if task == "auto" else task
    if chosen == "regression":
        return [TableTargets(torch.from_numpy(values.astype(np.float64)), []) for values in columns]
    labels = [values[:, 0] for values in columns]
    said = tuple(f"target {names[0]} of {part[0].where}" for part in (parts[0], parts[-1]))
    both = targets(labels[0], labels[1] if len(labels) > 1 else None, "classification", said)  # type: ignore[arg-type]
    return [TableTargets(each, both.class_names) for each in (both.train, both.test) if each is not None]


def _guess(values: np.ndarray, names: list[str], task: str) -> str:
    """The task of numeric targets, shape (n, c)."""
    different = len(np.unique(values))
    few = len(names) == 1 and different <= FEW
    if few and values.dtype.kind == "i":
        log.info("target %s holds %d different integers: taken as classes", names[0], different)
        return "classification"
    if few and (values == np.rint(values)).all():
        log.warning(
            "target %s holds floats, taken as numbers (regression), though they look like labels: for those give "
            "--task classification",
            names[0],
        )
    else:
        log.info("target %s: taken as numbers (regression)", ", ".join(names))
    return "regression"


def _classes_of_texts(
    found: list[tuple[np.ndarray, list[str]]], name: str, parts: list[list[TargetCells]]
) -> list[TableTargets]:
    """Class indices by the alphabet, over both tables."""
    if not all(known for _, known in found):
        raise InputError(
            f"target {name} of {parts[-1][0].where} must hold texts, as in the training file; it holds numbers"
        )
    names = sorted({text for _, known in found for text in known})
    if len(names) > max(FEW, len(found[0][0]) // 2):
        raise InputError(
            f"target {name} must hold classes, each in several rows; it holds {len(names)} different texts in "
            f"{len(found[0][0])} rows: give another --target"
        )
    index = {text: k for k, text in enumerate(names)}
    lookups = [np.array([index[text] for text in known], dtype=np.int64) for _, known in found]
    return [
        TableTargets(torch.from_numpy(lookup[codes]), names) for lookup, (codes, _) in zip(lookups, found, strict=True)
    ]


def target_scale(
    y: Tensor,  # float64, shape: (n, c)
    names: Sequence[str],
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each output, which training targets have subtracted and are divided by.

    Raises:
        InputError: float64 does not hold the square of a standard deviation, in which the mse is given.
    """
    scale, differ = y.std(dim=0, correction=0), y.amax(dim=0) > y.amin(dim=0)
    square = scale.square()
    if bool((bad := differ & ~(square.isfinite() & (square > 0))).any()):
        k = int(bad.nonzero()[0])
        least, largest = (float(each) for each in y[:, k].aminmax())
        raise InputError(
            f"target {names[k]} must hold numbers whose squares float64 can hold; it goes from {least:g} to "
            f"{largest:g}: multiply it by a power of ten"
        )
    return y.mean(dim=0).tolist(), torch.where(differ, scale, 1.0).tolist()
