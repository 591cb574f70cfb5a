"""How the rows of a table become features: fitted on the training rows, and kept in checkpoints as plain values."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.rows.column_kinds import ColumnScan, kinds_of
from kl.rows.table_columns import CellCounts, TableColumn
from kl.rows.table_fit import MAX_SAMPLE, MIN_SAMPLE, VALUES, CategoryFit, NumberFit

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class TableEncoding:
    """Features of a table: numbers standardised, categories one-hot, missing values filled and marked.

    A number becomes (value - mean) / scale, with the mean and the standard deviation of the training rows; a missing
    one becomes the training rows' median first. A date is a number of days. A category becomes a 0/1 feature for each
    of the training rows' 50 most frequent values, and one for all others where there are more. Two rows that differ in
    one category are then at the squared distance 2, which is also the mean squared distance of two training rows in a
    standardised column. So a category counts like a number.

    Args:
        columns: in the order of the features.
        targets: names of the columns that are learnt, which tables to predict may lack.
        dropped: names of the columns that are not used.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [30, 50], "town": ["Ulm", "Bonn"], "rent": [400.0, 900.0]})
        >>> encoding = TableEncoding.fit(table, targets=["rent"])
        >>> encoding.feature_names, encoding.encode(table).tolist()
        (['age', 'town=Bonn', 'town=Ulm'], [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    """

    columns: tuple[TableColumn, ...]
    targets: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        dataframe: pd.DataFrame,  # n training rows
        *,
        targets: Sequence[str] = (),
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> TableEncoding:
        """The encoding for these training rows.

        Args:
            dataframe: the training rows.
            targets: columns that are learnt, which are no features.
            categorical: columns whose values are categories, whatever they look like.
            numeric: columns whose values are numbers.
            drop: columns that are not used.

        Raises:
            InputError: a column's values are of several kinds, or no column is left.
        """
        names = [str(name) for name in dataframe.columns if name not in {*targets, *drop}]
        scans = {name: ColumnScan(name) for name in names}
        for name, scan in scans.items():
            scan.add(dataframe[name])
        fit = TableFit(kinds_of(scans, tuple(categorical), tuple(numeric)))
        fit.add(dataframe)
        return fit.encoding(targets, [*drop, *(name for name in names if name not in fit.parts)])

    @property
    def num_features(self) -> int:
        """The number of features, d."""
        return sum(column.width for column in self.columns)

    @property
    def feature_names(self) -> list[str]:
        """A name for each feature: the column, with its category where it is one."""
        return [name for column in self.columns for name in column.feature_names]

    @property
    def text_columns(self) -> set[str]:
        """The columns to be read as texts, because "01" is another category than "1"."""
        return {column.name for column in self.columns if column.kind == "category"}

    def encode(
        self,
        dataframe: pd.DataFrame,  # m rows
        where: str = "the table",
    ) -> Tensor:
        """Features, float32, shape (m, d); log lines count the cells of a sort that no training row has had.

        Args:
            dataframe: m rows; its columns may be in any order, and further ones are ignored with a log line.
            where: what messages call the table.

        Raises:
            InputError: a column is missing, or a value is not of its column's kind.
        """
        self.check_columns([str(name) for name in dataframe.columns], where)
        features = torch.zeros(len(dataframe), self.num_features)
        counts = CellCounts()
        self.write(dataframe, features, where, 0, counts)
        say_counts(counts, where)
        return features

    def write(
        self,
        dataframe: pd.DataFrame,  # m rows
        out: Tensor,  # float32, on the CPU, all 0, shape: (m, d)
        where: str,
        first_row: int,
        counts: CellCounts,
    ) -> None:
        """Write the features of a chunk of a table, whose columns have been checked, to their place.

        Args:
            dataframe: m rows.
            out: where the features go.
            where: what messages call the table.
            first_row: the number of the first of these rows in the table, from 0.
            counts: count the cells of a sort that no training row has had.

        Raises:
            InputError: a value is not of its column's kind.
        """
        place, start = out.numpy(), 0
        for column in self.columns:
            column.write(dataframe[column.name], place[:, start : start + column.width], where, first_row, counts)
            start += column.width

    def check_columns(self, names: Sequence[str], where: str) -> None:
        """Check the names of a table's columns, in any order; a log line names those that are ignored.

        Raises:
            InputError: a column is missing, or its name is there twice.
        """
        there, ours = set(names), [column.name for column in self.columns]
        missing = [name for name in ours if name not in there]
        if missing:
            known = {*ours, *self.targets, *self.dropped}
            close = difflib.get_close_matches(missing[0], [name for name in names if name not in known], n=1)
            hint = f" (is it {close[0]!r}?)" if close else ""
            raise InputError(
                f"{where} must have the columns of the training table; it lacks {listed(missing)}{hint}: add them; "
                "the order does not matter"
            )
        if twice := [name for name, count in Counter(names).items() if count > 1 and name in ours]:
            raise InputError(
                f"{where} must name each column once; {twice[0]!r} is there more often: rename one of them"
            )
        if learnt := [name for name in names if name in self.targets]:
            log.info("%s: the target, column %s, is not used to predict", where, listed(learnt))
        if new := [name for name in names if name not in {*ours, *self.targets, *self.dropped}]:
            log.warning("%s: ignored, because the training table has no such column: %s", where, listed(new))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        columns = [column.to_dict() for column in self.columns]
        return {"columns": columns, "targets": list(self.targets), "dropped": list(self.dropped)}

    @classmethod
    def from_dict(cls, plain: Any) -> TableEncoding:
        """The encoding that `to_dict` describes.

        Raises:
            CheckpointError: the dict describes no encoding of a table.
        """
        if not isinstance(plain, Mapping) or set(plain) != {"columns", "targets", "dropped"}:
            raise CheckpointError("the checkpoint's table must have columns, targets and dropped: train again")
        if not all(isinstance(plain[key], list | tuple) for key in plain) or not plain["columns"]:
            raise CheckpointError("the checkpoint's table must be of lists, with at least one column: train again")
        columns = tuple(TableColumn.from_dict(each) for each in plain["columns"])
        targets, dropped = tuple(plain["targets"]), tuple(plain["dropped"])
        names = [*(column.name for column in columns), *targets, *dropped]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise CheckpointError("the checkpoint's table must name each column once: train again")
        return cls(columns, targets, dropped)


class TableFit:
    """Fits an encoding over chunks of training rows.

    Args:
        kinds: of the columns to use, by their names.

    Attributes:
        parts: what has been fitted of each column.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        sample = max(MIN_SAMPLE, min(MAX_SAMPLE, VALUES // max(1, len(kinds))))
        self.parts: dict[str, NumberFit | CategoryFit] = {
            name: NumberFit(name, kind, sample) if kind in ("numeric", "date") else CategoryFit(name, kind)
            for name, kind in kinds.items()
        }

    def add(self, dataframe: pd.DataFrame) -> None:
        """Take the next training rows."""
        for name, part in self.parts.items():
            part.add(dataframe[name])

    def encoding(self, targets: Iterable[str] = (), dropped: Iterable[str] = ()) -> TableEncoding:
        """The encoding of the training rows; a column in which all rows are equal is dropped, and a log line says so.

        Args:
            targets: names of the columns that are learnt.
            dropped: names of the columns that are not used.

        Raises:
            InputError: no column is left.
        """
        columns = {name: part.column() for name, part in self.parts.items()}
        equal = [name for name, column in columns.items() if column is None]
        merged = [name for name in equal if getattr(self.parts[name], "differs", False)]
        if merged:
            log.warning(
                "left out, because float64 cannot hold their integers, which differ, but only beyond its 16 digits: "
                "%s; subtract a number from them, or make them categories",
                listed(merged),
            )
        if same := [name for name in equal if name not in merged]:
            log.info("left out, because all training rows are equal there: %s", listed(same))
        if names := [name for name, part in self.parts.items() if getattr(part, "looks_like_names", False)]:
            log.warning(
                "hardly a value comes twice in column %s, as in names or identifiers, of which nothing is learnt: "
                "leave it out by drop=",
                listed(names),
            )
        used = tuple(column for column in columns.values() if column is not None)
        if not used:
            raise InputError("the table must have a column to learn from beside the target; there is none that varies")
        return TableEncoding(used, tuple(targets), tuple(dict.fromkeys([*dropped, *equal])))


def say_counts(counts: CellCounts, where: str) -> None:
    """Log how many cells hold a category that no training row has had, or no value where all training rows have one."""
    for found, said in (
        (counts.unseen, "values that no training row has had, which count as no category"),
        (counts.missing, "missing values, of which training rows have none, become the median, or no category"),
    ):
        if found:
            numbers = ", ".join(f"{name} ({count})" for name, count in list(found.items())[:SHOWN])
            more = f" and {len(found) - SHOWN} more columns" if len(found) > SHOWN else ""
            log.warning("%s: %s: %s%s", where, said, numbers, more)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
