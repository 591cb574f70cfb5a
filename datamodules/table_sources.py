"""Where the rows of a table come from: what every source offers, and a pandas DataFrame as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

CELLS = 100_000  # of a chunk


class TableSource(Protocol):
    """A table that can be read several times, always in the same order of rows."""

    where: str
    """What messages call it."""
    columns: list[str]
    """The names of its columns, each once."""

    def chunks(self, texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """The rows, some at a time, with those columns read as texts."""
        ...


class FrameSource:
    """A pandas DataFrame as a source.

    Raises:
        InputError: it is no DataFrame, or has a column's name twice.
    """

    def __init__(self, dataframe: pd.DataFrame, where: str) -> None:
        import pandas as pd

        if not isinstance(dataframe, pd.DataFrame):
            raise InputError(f"{where} must be a pandas DataFrame; got a {type(dataframe).__name__}")
        self.where = where
        self.columns = check_names(where, [str(name) for name in dataframe.columns])
        self._frame = dataframe.set_axis(self.columns, axis=1)

    def chunks(self, texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """The rows, some at a time."""
        size = rows_of_a_chunk(len(self.columns))
        for start in range(0, len(self._frame), size):
            yield self._frame.iloc[start : start + size]


def check_names(where: str, names: list[str]) -> list[str]:
    """Return the names of columns, else raise InputError if one is empty or there twice."""
    for number, name in enumerate(names, 1):
        if not name:
            raise InputError(
                f"{where} must have a name for each column; column {number} of {len(names)} has none: name it, or "
                "remove its delimiter"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{where} must name each column once; {short_name(twice[0])!r} is there {names.count(twice[0])} times"
            f"{f' (and {len(twice) - 1} more names repeat)' if len(twice) > 1 else ''}: rename one of them"
        )
    return names


def rows_of_a_chunk(columns: int) -> int:
    """Rows that are read at once."""
    return max(100, CELLS // columns)


def require_file(path: str) -> None:
    """Raise InputError unless there is such a file."""
    remedy = "correct its path" if Path(path).is_absolute() else f"give its path as seen from {Path.cwd()}"
    try:
        if Path(path).is_file():
            return
        what = "there is no such file"
        if Path(path).is_dir():
            what, remedy = "it is a folder", "give a file in it"
    except (OSError, ValueError) as error:
        what = str(error)
    raise InputError(f"{path} must be a CSV or Parquet file; {what}: {remedy}")


def short_name(name: str) -> str:
    """A name or value as messages show it."""
    return name if len(name) <= 40 else f"{name[:37]}..."
