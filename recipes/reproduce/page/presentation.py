"""What an experiment shows: figures, rows of numbers, a comparison with published numbers, and conclusions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from matplotlib.figure import Figure

from recipes.reproduce.table import DataFrame, is_missing


@dataclass(frozen=True)
class Comparison:
    """One published number beside ours."""

    quantity: str
    """The name of the number, with everything that it depends on."""
    ours: float | None
    """None if it was not reached; `note` says more."""
    published: float
    source: str
    """Paper and table."""
    unit: str = ""
    spread: float | None = None
    """Standard deviation of ours over seeds."""
    tolerance: float | None = None
    """The largest difference that counts as agreement; None if no tolerance was agreed."""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Our number less the published one."""
        return None if self.ours is None else self.ours - self.published

    @property
    def agrees(self) -> bool | None:
        """Whether the difference is within the tolerance."""
        if self.tolerance is None or self.difference is None:
            return None
        return abs(self.difference) <= self.tolerance + 1e-9

    def cells(self) -> tuple[str, ...]:
        """The row of a table; see `HEADER`."""
        spread = "" if self.spread is None else f" ± {self.spread:.2g}"
        tolerance = f"{self.tolerance or 0:.2g}"
        verdict = {None: "", True: f"within {tolerance}", False: f"not within {tolerance}"}[self.agrees]
        return (
            f"{self.quantity}{f', {self.unit}' if self.unit else ''}",
            ("not reached" if self.ours is None else number(self.ours)) + spread,
            number(self.published),
            "" if self.difference is None else f"{self.difference:+.3g}",
            "; ".join(text for text in (verdict, self.note) if text),
            self.source,
        )


HEADER = ("", "ours", "published", "difference", "", "source")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper other than a number, and whether these results support it."""

    text: str
    holds: bool | None
    """None if these results cannot decide."""
    seen: str
    """The evidence, in numbers."""
    source: str

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return {True: "holds", False: "does not hold", None: "cannot be told"}[self.holds]


@dataclass(frozen=True)
class Table:
    """Further numbers, as text."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @classmethod
    def of(cls, title: str, table: DataFrame, *columns: tuple[str, str] | tuple[str, str, str]) -> Table:
        """A line for each row of a table.

        Args:
            title: the title, a format of the first row's fields.
            table: the numbers.
            columns: for each column its heading, a format of the row's fields, and the format to take if one of these
                fields has no value ("" by default).
        """
        found = table.to_dict("records")
        rows = [tuple(cell(row, *column[1:]) for column in columns) for row in found]
        return cls(title.format(**found[0]), tuple(column[0] for column in columns), rows)


def cell(row: Mapping[str, Any], form: str, missing: str = "") -> str:
    """The fields of a row in a format; in the format `missing` if one of them is None or NaN."""
    values = [Formatter().get_field(name, (), row)[0] for _, name, _, _ in Formatter().parse(form) if name]
    return (missing if any(map(is_missing, values)) else form).format(**row)


@dataclass(frozen=True)
class Presentation:
    """Everything that an experiment shows."""

    figures: dict[str, Figure]
    """Figures by the names of their files."""
    rows: list[dict[str, Any]]
    """The numbers that the figures show, one flat record each."""
    comparisons: list[Comparison] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    """What the results say, and what they cannot say."""

    def as_dict(self) -> dict[str, Any]:
        """Everything but the figures, as plain values."""
        return {
            "comparisons": [
                {**vars(each), "difference": each.difference, "agrees": each.agrees} for each in self.comparisons
            ],
            "claims": [{**vars(each), "verdict": each.verdict} for each in self.claims],
            "tables": [{"title": t.title, "header": t.header, "rows": list(t.rows)} for t in self.tables],
            "sentences": self.sentences,
            "rows": self.rows,
        }


def number(value: float) -> str:
    """A number with four significant digits, and all digits before the point."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
