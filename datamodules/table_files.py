"""Tables in files: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from datamodules.csv_files import CsvSource
from datamodules.table_sources import TableSource, check_names, require_file, rows_of_a_chunk
from kl.errors import InputError
from kl.rows.table import TableEncoding, say_counts
from kl.rows.table_columns import CellCounts
from kl.system.files import expand_home

if TYPE_CHECKING:
    import pandas as pd

TABLE_FILES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
PARQUET_SAFE = (14, 0, 1)  # older versions of pyarrow may run code of a file's choice (CVE-2023-47248)


class ParquetSource:
    """A Parquet file.

    Raises:
        InputError: there is no such file, it is damaged, or pyarrow is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.where = self.path = expand_home(path)
        require_file(self.path)
        self._parquet = _import_parquet(self.path)
        with self._opened() as file:
            names = file.schema_arrow.names
        self.columns = check_names(self.where, [name for name in names if not name.startswith("__index_level_")])

    def _opened(self):  # type: ignore[no-untyped-def]
        try:
            return self._parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
            raise InputError(f"{self.where} is not a Parquet file or is damaged: write it again") from error

    def chunks(self, texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """The rows, some at a time.

        Raises:
            InputError: the file is damaged.
        """
        with self._opened() as file:
            size = rows_of_a_chunk(len(self.columns))
            batches = file.iter_batches(batch_size=size, columns=self.columns)
            while True:
                try:
                    batch = next(batches, None)
                    frame = None if batch is None else batch.to_pandas(ignore_metadata=True)
                except (OSError, ValueError, NotImplementedError) as error:
                    raise InputError(f"{self.where} is damaged ({' '.join(str(error).split())[:80]})") from error
                if frame is None:
                    return
                yield frame


def open_table(path: str | os.PathLike[str], delimiter: str | None = None) -> TableSource:
    """The table in a file: Parquet by its extension, else CSV.

    Raises:
        InputError: as `CsvSource` and `ParquetSource`; or a delimiter is given for Parquet.
    """
    if not is_parquet(path):
        return CsvSource(path, delimiter)
    if delimiter is not None:
        raise InputError(f"delimiter is of a CSV file; got {delimiter!r} for {path}: leave it out")
    return ParquetSource(path)


def encode_file(path: str | os.PathLike[str], table: TableEncoding, delimiter: str | None = None) -> Tensor:
    """The features of a file's rows by the encoding of a training table, float32, shape (m, d).

    Args:
        path: the file; its columns may be in any order, and further ones are ignored with a log line.
        table: fitted on the training rows.
        delimiter: of a CSV file; None finds it.

    Raises:
        InputError: the file is no table, has no rows, lacks a column, or a value is not of its column's kind.
    """
    if Path(path).suffix.lower() not in TABLE_FILES:
        raise InputError(
            f"input must be a {', '.join(TABLE_FILES)} file with the columns of the training table; got {path}"
        )
    source = open_table(path, delimiter)
    table.check_columns(source.columns, source.where)
    parts, counts, start = [], CellCounts(), 0
    for frame in source.chunks(table.text_columns):
        parts.append(torch.zeros(len(frame), table.num_features))
        table.write(frame, parts[-1], source.where, start, counts)
        start += len(frame)
    if not start:
        raise InputError(f"{source.where} must hold rows; it has a first line of names alone")
    say_counts(counts, source.where)
    return torch.cat(parts)


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether a file is Parquet by its extension."""
    return Path(path).suffix.lower() in (".parquet", ".pq")


def _import_parquet(path: str):  # type: ignore[no-untyped-def]
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{path} needs pyarrow, which is not installed: pip install pyarrow, or write a CSV file"
        ) from error
    version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdecimal())
    if version < PARQUET_SAFE:
        raise InputError(
            f"{path} needs pyarrow 14.0.1 or newer, since older ones may run code of a file; got {version}"
        )
    return pyarrow.parquet
