"""Fits the columns of a table over chunks of training rows: means, medians, standard deviations and categories."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from kl.errors import InputError
from kl.rows.cells import codes_of, days_of, numbers_of, text_of_day
from kl.rows.table_columns import MAX_CATEGORIES, TableColumn
from kl.system.wording import short_line

if TYPE_CHECKING:
    import pandas as pd

# A median is of VALUES / d rows at equal distances, but at least MIN_SAMPLE and at most MAX_SAMPLE, or up to twice as
# many, because more rows hardly change a median and would take the memory of the table.
MAX_SAMPLE, MIN_SAMPLE, VALUES = 10_000, 100, 2_000_000
# Texts of a column that are counted at once. Beyond, the rarer half is forgotten, so that a column of names takes no
# memory; the most frequent ones are then kept, though the last of them may be counted a little short.
MAX_TEXTS = 20_000


class NumberFit:
    """Mean, standard deviation and median of a numeric or date column.

    The sums of chunks are merged by the formula of Chan, Golub and LeVeque 1983, which does not cancel.
    """

    def __init__(self, name: str, kind: str, sample: int = MAX_SAMPLE) -> None:
        self.name, self.kind = name, kind
        self.rows = self.missing = 0
        self._count, self._mean, self._squares = 0, 0.0, 0.0  # of the values: how many, their mean, sum (v - mean)^2
        self._least, self._largest = math.inf, -math.inf
        self._integers: list[int] = []  # the least and the largest of the integers, exactly
        self._sample: list[np.ndarray] = []
        self._sampled, self._stride, self._limit = 0, 1, sample

    def add(self, cells: pd.Series) -> None:
        """Take the next rows."""
        values, _ = numbers_of(cells) if self.kind == "numeric" else days_of(cells)
        there = values[~np.isnan(values)]
        self.rows, self.missing = self.rows + len(values), self.missing + len(values) - len(there)
        if not len(there):
            return
        self._sample.append(there[-self._count % self._stride :: self._stride].copy())
        self._sampled += len(self._sample[-1])
        while self._sampled > 2 * self._limit:
            kept = np.concatenate(self._sample)[::2]
            self._sample, self._sampled, self._stride = [kept], len(kept), 2 * self._stride
        if cells.dtype.kind in "iu":
            known = [int(cells.min()), int(cells.max()), *self._integers]
            self._integers = [min(known), max(known)]
        self._least, self._largest = min(self._least, float(there.min())), max(self._largest, float(there.max()))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(there.mean())
            self._merge(len(there), mean, float(((there - mean) ** 2).sum()))

    def _merge(self, count: int, mean: float, squares: float) -> None:
        total, gap = self._count + count, mean - self._mean
        self._squares += squares + gap * gap * (self._count * count / total)
        self._mean += gap * (count / total)
        self._count = total

    @property
    def differs(self) -> bool:
        """Whether the rows hold different integers, even if float64 holds them as one number."""
        return len(set(self._integers)) > 1

    def column(self) -> TableColumn | None:
        """The fitted column; None if no row has a value, or if all rows have the same one in float64.

        Raises:
            InputError: the values are so large that their squares are beyond float64.
        """
        if not self._count or (self._least == self._largest and not self.missing):
            return None
        fill = float(np.median(np.concatenate(self._sample)))
        if self.missing:
            self._merge(self.missing, fill, 0.0)
        scale = math.sqrt(self._squares / self._count) if self._least < self._largest else 0.0
        if not math.isfinite(scale):
            raise InputError(
                f"column {self.name} must hold numbers whose squares float64 can hold; it reaches "
                f"{max(-self._least, self._largest):g}: divide the column by a power of ten"
            )
        return TableColumn(self.name, self.kind, self.missing > 0, fill, self._mean, scale)

    def values_text(self) -> str:
        """The range of the values, for people."""
        if not self._count:
            return ""
        if self.kind == "date":
            return f"{text_of_day(self._least)} to {text_of_day(self._largest)}"
        return f"{self._least:g} to {self._largest:g}"


class CategoryFit:
    """The most frequent texts of a category or boolean column."""

    def __init__(self, name: str, kind: str, limit: int = MAX_TEXTS) -> None:
        self.name, self.kind = name, kind
        self.rows = self.missing = 0
        self._counts: Counter[str] = Counter()
        self._limit, self._forgot = limit, False

    def add(self, cells: pd.Series) -> None:
        """Take the next rows."""
        codes, texts = codes_of(cells)
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        self.rows, self.missing = self.rows + len(codes), self.missing + int((codes < 0).sum())
        self._counts.update({text: int(count) for text, count in zip(texts, counts, strict=True) if count})
        if len(self._counts) > self._limit:
            self._counts, self._forgot = Counter(dict(self._ordered()[: self._limit // 2])), True

    def _ordered(self) -> list[tuple[str, int]]:
        """Texts and counts, the most frequent first, of equals by the alphabet."""
        return sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))

    def column(self) -> TableColumn | None:
        """The fitted column; None if no row has a value, or if all rows have the same one."""
        if not self._counts or (len(self._counts) == 1 and not self.missing):
            return None
        kept = tuple(text for text, _ in self._ordered()[:MAX_CATEGORIES])
        other = len(self._counts) > MAX_CATEGORIES
        return TableColumn(self.name, self.kind, self.missing > 0, categories=kept, other=other)

    def values_text(self) -> str:
        """The most frequent texts, for people, and how many more there are."""
        ordered = [short_line(text) for text, _ in self._ordered()]
        more = f"{'over ' * self._forgot}{len(ordered)} in all" if len(ordered) > 4 else ""
        return ", ".join([*ordered[:4], *filter(None, [more])])

    @property
    def looks_like_names(self) -> bool:
        """Whether hardly a text comes twice, as in a column of names or identifiers, from which nothing is learnt."""
        there = self.rows - self.missing
        return self.kind == "category" and (self._forgot or len(self._counts) > max(MAX_CATEGORIES, there // 2))
