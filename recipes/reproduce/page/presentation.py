"""What an experiment shows: figures, rows of numbers, a comparison with the published ones, and what follows."""

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
    """What it is, with all that it depends on."""
    ours: float | None
    """None: it was not reached, and `note` says how."""
    published: float
    source: str
    """Paper and table."""
    unit: str = ""
    spread: float | None = None
    """Standard deviation of ours over seeds."""
    tolerance: float | None = None
    """How far ours may be from the published one to count as the same; None where nothing was agreed."""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the published."""
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
    """A statement of the paper that is no number, and whether these results bear it out."""

    text: str
    holds: bool | None
    """None: these results cannot tell."""
    seen: str
    """What was seen, in numbers."""
    source: str

    @property
    def verdict(self) -> str:
        """In a word."""
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
            title: above it, a format of the first row's fields.
            table: the numbers.
            columns: of each its heading, a format of the row's fields, and the one to take where one of these fields
                has no value ("" unless given).
        """
        found = table.to_dict("records")
        rows = [tuple(cell(row, *column[1:]) for column in columns) for row in found]
        return cls(title.format(**found[0]), tuple(column[0] for column in columns), rows)


def cell(row: Mapping[str, Any], form: str, missing: str = "") -> str:
    """The fields of a row in a format; in the format `missing` where one of them is None or NaN."""
    values = [Formatter().get_field(name, (), row)[0] for _, name, _, _ in Formatter().parse(form) if name]
    return (missing if any(map(is_missing, values)) else form).format(**row)


@dataclass(frozen=True)
class Presentation:
    """All that an experiment shows."""

    figures: dict[str, Figure]
    """By the name of their files."""
    rows: list[dict[str, Any]]
    """The numbers that the figures show, one flat record each."""
    comparisons: list[Comparison] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    """What the results say, and what they cannot say."""

    def as_dict(self) -> dict[str, Any]:
        """All but the figures, as JSON has it."""
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
    """A number to four digits, and all digits before the point."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
