"""How one column of a table becomes features, by values that were fitted on the training rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from kl.errors import CheckpointError, InputError
from kl.rows.cells import TRUTHS, codes_of, days_of, numbers_of
from kl.rows.column_kinds import KINDS

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 50
# Two rows of a standardised column are at the squared distance 2 on average, and so are two rows whose one-hot columns
# differ. A single column of two values, as the indicator of missing values, is at that distance for the values 0 and:
TWO_VALUED = math.sqrt(2.0)


@dataclass(frozen=True)
class CellCounts:
    """How many cells, by column, are of a sort that no training row has had."""

    unseen: Counter[str] = field(default_factory=Counter)
    """Cells of another category."""
    missing: Counter[str] = field(default_factory=Counter)
    """Cells without a value."""


@dataclass(frozen=True)
class TableColumn:
    """The features of one column: its numbers standardised, or one 0/1 feature for each category.

    Args:
        name: of the column.
        kind: "numeric", "date" (days since 1970), "category" or "boolean".
        missing: whether training rows lack the value. Then a number has a further feature, sqrt(2) where it is missing
            and 0 elsewhere, and a category has a further 0/1 feature for "missing".
        fill: what a missing number becomes: the training rows' median.
        mean: of the training rows after filling.
        scale: their standard deviation after filling; 0 if they are all equal, which makes the feature 0.
        categories: texts, the most frequent first.
        other: whether all further texts share a 0/1 feature; if not, a text that is no category is 0 throughout.
    """

    name: str
    kind: str
    missing: bool = False
    fill: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    other: bool = False

    @property
    def is_number(self) -> bool:
        """Whether the column is standardised, and not one-hot."""
        return self.kind in ("numeric", "date")

    @property
    def width(self) -> int:
        """The number of features."""
        return (1 if self.is_number else len(self.categories) + self.other) + self.missing

    @property
    def feature_names(self) -> list[str]:
        """A name for each feature."""
        names = [self.name] if self.is_number else [f"{self.name}={category}" for category in self.categories]
        return names + [f"{self.name}:other"] * self.other + [f"{self.name}:missing"] * self.missing

    def write(
        self,
        cells: pd.Series,  # m cells
        out: np.ndarray,  # float32, shape: (m, width), all 0
        where: str,
        first_row: int,
        counts: CellCounts,
    ) -> None:
        """Write the features of m cells into `out`.

        Args:
            cells: of this column.
            out: the features' place.
            where: what messages call the table.
            first_row: the number of the first of these rows in the table, from 0.
            counts: count the cells of a sort that no training row has had.

        Raises:
            InputError: a cell is not of this column's kind.
        """
        if self.is_number:
            self._write_numbers(cells, out, where, first_row, counts)
        else:
            self._write_categories(cells, out, where, first_row, counts)

    def _write_numbers(self, cells: pd.Series, out: np.ndarray, where: str, first_row: int, counts: CellCounts) -> None:
        values, bad = numbers_of(cells) if self.kind == "numeric" else days_of(cells)
        if bad.any():
            self._refuse(cells, int(bad.argmax()), where, first_row)
        absent = np.isnan(values)
        values = np.where(absent, self.fill, values) - self.mean
        with np.errstate(over="ignore"):
            out[:, 0] = values / self.scale if self.scale else 0.0
        if not np.isfinite(out[:, 0]).all():
            self._refuse(cells, int((~np.isfinite(out[:, 0])).argmax()), where, first_row, " that float32 holds")
        if self.missing:
            out[absent, 1] = TWO_VALUED
        elif absent.any():
            counts.missing[self.name] += int(absent.sum())

    def _write_categories(
        self, cells: pd.Series, out: np.ndarray, where: str, first_row: int, counts: CellCounts
    ) -> None:
        codes, texts = codes_of(cells)
        place = {category: k for k, category in enumerate(self.categories)}
        rest = len(self.categories) if self.other else -1
        columns = np.array([*(place.get(text, rest) for text in texts), -2], dtype=np.int64)[codes]
        strange = (columns == -1) & (codes >= 0)
        if strange.any():
            row = int(strange.argmax())
            if self._is_other_kind(texts[codes[row]]):
                self._refuse(cells, row, where, first_row)
            counts.unseen[self.name] += int(strange.sum())
        there = np.flatnonzero(columns >= 0)
        out[there, columns[there]] = 1.0
        if self.missing:
            out[codes < 0, self.width - 1] = 1.0
        elif (codes < 0).any():
            counts.missing[self.name] += int((codes < 0).sum())

    def _is_other_kind(self, text: str) -> bool:
        """Whether a text that is no category is of another kind than all categories."""
        if self.kind == "boolean":
            return text not in TRUTHS
        return _is_number(text) and not any(map(_is_number, self.categories))

    def _refuse(self, cells: pd.Series, row: int, where: str, first_row: int, more: str = "") -> None:
        expected = {"numeric": "numbers", "date": "ISO dates, as 2024-05-31", "boolean": "true or false"}
        what = expected.get(self.kind) or f"texts such as {self.categories[0]!r}"
        raise InputError(
            f"column {self.name} of {where} must hold {what}{more}, as in training; row "
            f"{first_row + row + 1} (counted from 1) holds {str(cells.iloc[row])!r}: correct the value, or leave it "
            "empty where it is missing"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**asdict(self), "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, plain: Any) -> TableColumn:
        """The column that `to_dict` describes.

        Raises:
            CheckpointError: the dict describes no column.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(plain, Mapping) or set(plain) != known:
            raise CheckpointError(
                f"a column of the checkpoint's table must have {', '.join(sorted(known))}: train again"
            )
        texts, numbers = plain["categories"], [plain[name] for name in ("fill", "mean", "scale")]
        sound = isinstance(plain["name"], str) and plain["kind"] in KINDS
        sound = sound and all(isinstance(plain[name], bool) for name in ("missing", "other"))
        sound = sound and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        sound = sound and isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
        if not sound or plain["scale"] < 0 or not 0 <= len(set(texts)) == len(texts) <= MAX_CATEGORIES:
            raise CheckpointError(
                f"column {str(plain['name'])[:40]!r} of the checkpoint's table is damaged: train again"
            )
        found = cls(**{**plain, "categories": tuple(texts)})
        odd = texts or found.other if found.is_number else found.width == 0
        if odd or (found.kind == "boolean" and not set(texts) <= set(TRUTHS)):
            raise CheckpointError(f"column {found.name[:40]!r} of the checkpoint's table is damaged: train again")
        return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
