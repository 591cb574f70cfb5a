"""Which columns of a table the user has named for what, and what was found of each column, for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from datamodules.table_sources import TableSource
from kl.errors import InputError
from kl.rows.table import TableEncoding, TableFit, listed
from kl.system.wording import counted

SHOWN_COLUMNS = 30
Names = str | int | Iterable[str | int]
"""Names of columns, in a list or separated by commas; data frames may have numbers for names."""
EXCLUSIVE = (("target", "drop"), ("categorical", "numeric"), ("categorical", "drop"), ("numeric", "drop"))


def named_columns(source: TableSource, asked: Mapping[str, Names]) -> dict[str, tuple[str, ...]]:
    """The columns that target, categorical, numeric and drop name, all of which are there.

    Raises:
        InputError: a column is not there, no target is named, or a column is named for things that exclude each other.
    """
    found = {option: _names(value, source.columns) for option, value in asked.items()}
    if not found["target"]:
        columns = listed(source.columns)
        raise InputError(f"target must name the column to learn; {source.where} has: {columns}: give --target COLUMN")
    for option, names in found.items():
        for name in names:
            if name not in source.columns:
                lower = {column.lower(): column for column in source.columns}
                close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
                hint = f" (did you mean {lower[close[0]]!r}?)" if close else ""
                raise InputError(
                    f"{option} must name a column of {source.where}, whose first line has: {listed(source.columns)}; "
                    f"got {name!r}{hint}"
                )
    for one, other in EXCLUSIVE:
        if both := sorted(set(found[one]) & set(found[other])):
            raise InputError(f"column {both[0]} must be named by {one} or by {other}, not by both")
    return found


def kind_asked_of(column: str, names: Mapping[str, tuple[str, ...]]) -> str | None:
    """ "category" or "numeric" if the user has said that of a column; `names` are those of `named_columns`."""
    if column in names["categorical"]:
        return "category"
    return "numeric" if column in names["numeric"] else None


def described(where: str, fit: TableFit, table: TableEncoding) -> str:
    """A table for people: each column that is used, its kind, its values and how many are missing."""
    used = {column.name: column for column in table.columns}
    rows = [("column", "kind", "values", "missing")]
    for name, column in list(used.items())[:SHOWN_COLUMNS]:
        rows.append((name, column.kind, fit.parts[name].values_text(), str(fit.parts[name].missing or "")))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]
    if len(used) > SHOWN_COLUMNS:
        lines.append(f"and {len(used) - SHOWN_COLUMNS} more columns")
    trained = next(iter(fit.parts.values())).rows
    title = f"{where}: {counted(trained, 'training row')}, {counted(len(used), 'column')} as "
    title += counted(table.num_features, "feature")
    return "\n  ".join([f"{title}; target: {', '.join(table.targets)}", *lines])


def _names(value: Names, columns: list[str]) -> tuple[str, ...]:
    """Names in a list or separated by commas; a text that is a column's name is that one."""
    if isinstance(value, str):
        value = [value] if value in columns else [name.strip() for name in value.split(",") if name.strip()]
    elif not isinstance(value, Iterable):
        value = [value]
    return tuple(dict.fromkeys(str(name) for name in value))
