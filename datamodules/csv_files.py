"""Tables in CSV files: which delimiter they have, which names, and their rows in chunks."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import warnings
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from datamodules.table_sources import check_names, require_file, rows_of_a_chunk, short_name
from kl.errors import InputError
from kl.system.files import expand_home

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")
MAX_COLUMNS = 10_000
HEAD = 1_000_000  # bytes that are looked at for the header
SNIFFED = 20  # lines by which the delimiter is found


class CsvSource:
    """A CSV file in UTF-8 whose first line names the columns.

    Args:
        path: the file.
        delimiter: one character; None finds it among comma, semicolon, tab and bar.

    Raises:
        InputError: there is no such file, or it is no such table; the message says why.
    """

    def __init__(self, path: str | os.PathLike[str], delimiter: str | None = None) -> None:
        self.where = self.path = expand_home(path)
        self._head = _read_head(self.path)
        self._require_few_columns()
        self.delimiter = self._sniff() if delimiter is None else _check_delimiter(delimiter)
        header = self._fields(self.delimiter)[0]
        if len(header) < 2:
            raise InputError(
                f"{self.where} must have at least two columns; one was found, {short_name(header[0])!r}, with the "
                f"delimiter {self.delimiter!r}: name the right one by --delimiter"
            )
        names = [name.strip() for name in header]
        self._index = names[0] == ""  # as DataFrame.to_csv() writes it: the numbers of the rows
        if self._index:
            log.info("%s: the first column has no name: taken as numbers of the rows, and left out", self.where)
        self.columns = check_names(self.where, names[1:] if self._index else names)
        del self._head

    def _require_few_columns(self) -> None:
        first = self._head.lstrip("\r\n").partition("\n")[0]
        columns = 1 + max(map(first.count, DELIMITERS))
        if columns > MAX_COLUMNS or len(first) >= HEAD // 4:
            raise InputError(
                f"{self.where} must have at most {MAX_COLUMNS} columns in a first line of names below {HEAD // 4} "
                f"letters; it has at least {columns} in {len(first)}: is it the right file? Give so many features as "
                "arrays, by npz:FILE"
            )

    def _sniff(self) -> str:
        """The delimiter that gives the most columns, as many in each of the first lines."""
        found = {}
        for delimiter in DELIMITERS:
            counts = [len(fields) for fields in self._fields(delimiter)]
            found[delimiter] = (counts[0] > 1 and len(set(counts)) == 1, counts[0])
        best = max(found, key=lambda delimiter: found[delimiter])
        if found[best][1] < 2:
            name = self._fields(",")[0][0]
            raise InputError(
                f"{self.where} must have at least two columns; one was found, {short_name(name)!r}, since no comma, "
                f"semicolon, tab or bar separates them: name the delimiter by --delimiter"
            )
        return best

    def _fields(self, delimiter: str) -> list[list[str]]:
        """The fields of the first lines."""
        found: list[list[str]] = []
        try:
            for fields in csv.reader(io.StringIO(self._head, newline=""), delimiter=delimiter):
                if fields and len(found) < SNIFFED:
                    found.append(fields)
                elif fields:
                    return found
        except csv.Error as error:
            if not found:
                raise InputError(f"{self.where} is no table: its first line cannot be read ({error})") from error
        return found[:-1] if len(found) > 1 and len(self._head) >= HEAD else found  # the last may be cut

    def chunks(self, texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """The rows, some at a time, with those columns read as texts.

        Raises:
            InputError: a line has too many fields, a quote is not closed, or the bytes are not UTF-8.
        """
        import pandas as pd

        names = [*[""] * self._index, *self.columns]
        try:
            with open(self.path, "rb") as file, warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                reader = pd.read_csv(
                    file,
                    sep=self.delimiter,
                    names=names,
                    header=0,
                    index_col=False,
                    dtype=dict.fromkeys(texts, str),
                    na_values=["?"],
                    skipinitialspace=self.delimiter != " ",
                    encoding="utf-8-sig",
                    low_memory=False,
                    chunksize=rows_of_a_chunk(len(names)),
                )
                with reader:
                    for frame in reader:
                        yield frame.iloc[:, 1:] if self._index else frame
        except UnicodeDecodeError as error:
            raise _not_utf8(self.path, error) from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
            if isinstance(error, pd.errors.ParserWarning):
                said = f"its lines have more fields than the {len(names)} of the first"
            else:
                said = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
            raise InputError(
                f"{self.where} cannot be read as a table: {said}: correct that line, or name another --delimiter"
            ) from error


def _read_head(path: str) -> str:
    """The first bytes of a file as text.

    Raises:
        InputError: there is no such file, or it is empty, binary or not UTF-8.
    """
    require_file(path)
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if b"\0" in head or head[:2] in (b"\x1f\x8b", b"PK"):
        raise InputError(f"{path} must be a text file of comma-separated values; it is binary: unpack or convert it")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not text.strip():
        raise InputError(f"{path} must hold a table; it is empty")
    return text


def _not_utf8(path: str, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]
    return InputError(
        f"{path} must be in UTF-8; it holds the byte 0x{byte:02x}, which is not: convert it, as by iconv -f latin1 -t "
        "utf-8"
    )


def _check_delimiter(delimiter: str) -> str:
    found = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(found) != 1 or found in '"\r\n' or found.isalnum():
        raise InputError(f"delimiter must be one character, or tab; got {delimiter!r}")
    return found
