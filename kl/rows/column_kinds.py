"""What the columns of a table hold: numbers, categories, truth values or dates, found over chunks of rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kl.errors import InputError
from kl.rows.cells import TRUTHS, codes_of, days_of_texts, is_number_dtype

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("numeric", "category", "boolean", "date")
_NUMBER, _TRUTH, _DATE, _TEXT = range(4)
_CALLED = ("a number", "true or false", "a date", "a text")
_KIND_OF = ("numeric", "boolean", "date", "category")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class ColumnScan:
    """Counts what the cells of one column are. Feed it chunks of rows by `add`, then ask for the `kind`.

    Args:
        name: of the column.

    Attributes:
        rows: cells seen.
        missing: of them those without a value.
        first_missing: the number of the first such row, from 0; -1 where there is none.

    Example:
        >>> import pandas as pd
        >>> scan = ColumnScan("age")
        >>> scan.add(pd.Series([31, None, 40]))
        >>> scan.kind(), scan.missing
        ('numeric', 1)
    """

    def __init__(self, name: str) -> None:
        self.name, self.rows, self.missing, self.first_missing = name, 0, 0, -1
        self._counts = [0] * len(_CALLED)
        self._first: list[tuple[int, str]] = [(0, "")] * len(_CALLED)  # row and value
        self._comma = ""  # the first text that looks like a number with a decimal comma

    def add(self, cells: pd.Series) -> None:
        """Count the next cells.

        Raises:
            InputError: a number is infinite.
        """
        if is_number_dtype(cells):
            values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
            classes = np.where(np.isnan(values), -1, _NUMBER)
            self._require_finite(np.isinf(values), values)
            self._count(classes, lambda row: f"{values[row]:g}")
            return
        codes, texts = codes_of(cells)
        known = np.append(self._classes_of(texts), -1)
        self._count(known[codes], lambda row: texts[codes[row]])

    def _require_finite(self, bad: np.ndarray, values: np.ndarray) -> None:
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"column {self.name} must hold finite numbers; row {self.rows + row + 1} (counted from 1) holds "
                f"{values[row]}: correct the value, or leave it empty"
            )

    def _classes_of(self, texts: list[str]) -> np.ndarray:
        """What each text is, int64, shape (len(texts),)."""
        import pandas as pd

        numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)
        found = np.where(np.isfinite(numbers), _NUMBER, _TEXT)  # "inf" may be a category
        found[[i for i, text in enumerate(texts) if text in TRUTHS]] = _TRUTH
        if (found == _TEXT).any():
            found[~np.isnan(days_of_texts(texts))] = _DATE
        if not self._comma:
            self._comma = next((text for text in texts if _DECIMAL_COMMA.fullmatch(text)), "")
        return found

    def _count(self, classes: np.ndarray, value_at: Callable[[int], str]) -> None:
        absent = classes < 0
        if absent.any() and not self.missing:
            self.first_missing = self.rows + int(absent.argmax())
        self.missing += int(absent.sum())
        for k in range(len(_CALLED)):
            there = classes == k
            if there.any() and not self._counts[k]:
                row = int(there.argmax())
                self._first[k] = self.rows + row, value_at(row)
            self._counts[k] += int(there.sum())
        self.rows += len(classes)

    def kind(self, asked: str | None = None) -> str | None:
        """One of `KINDS`; None if no cell has a value.

        Args:
            asked: "category" or "numeric", if the user has said so.

        Raises:
            InputError: the cells are of several kinds, or are not of the kind that the user has asked for.
        """
        there = [k for k, count in enumerate(self._counts) if count]
        if not there:
            return None
        if asked == "category":
            return asked
        if asked == "numeric" and there not in ([_NUMBER], [_TRUTH]):
            odd = next(k for k in there if k != _NUMBER)
            raise InputError(
                f"column {self.name} must hold numbers, because numeric= names it; {self._says(odd)}: correct that "
                "value, leave it empty, or do not name it"
            )
        if asked == "numeric":
            return asked
        if there == [_TEXT] and self._comma and _DECIMAL_COMMA.fullmatch(self._first[_TEXT][1]):
            raise InputError(
                f"column {self.name} must hold numbers with a decimal point; {self._says(_TEXT)}, with a comma: write "
                f"points, or add categorical={self.name}"
            )
        if there == [_TRUTH, _TEXT]:
            return "category"
        if len(there) > 1:
            usual = max(there, key=lambda k: self._counts[k])
            odd = min((k for k in there if k != usual), key=lambda k: self._first[k])
            raise InputError(
                f"column {self.name} must hold values of one kind; {self._says(odd)}, and {self._counts[usual]} of "
                f"{self.rows} rows hold {_CALLED[usual]}: correct that value, leave it empty where it is missing, or "
                f"add categorical={self.name}"
            )
        return _KIND_OF[there[0]]

    def _says(self, k: int) -> str:
        row, value = self._first[k]
        return f"row {row + 1} (counted from 1) holds {_short(value)!r}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def kinds_of(
    scans: dict[str, ColumnScan],
    categorical: tuple[str, ...] = (),
    numeric: tuple[str, ...] = (),
) -> dict[str, str]:
    """The kind of every column that has a value, by the column's name.

    Args:
        scans: of the columns, which have seen all rows.
        categorical: columns whose values are categories, whatever they look like.
        numeric: columns whose values are numbers.

    Raises:
        InputError: a column's cells are of several kinds, or not of the kind asked for.
    """
    asked = {**dict.fromkeys(categorical, "category"), **dict.fromkeys(numeric, "numeric")}
    found = {name: scan.kind(asked.get(name)) for name, scan in scans.items()}
    return {name: kind for name, kind in found.items() if kind is not None}
