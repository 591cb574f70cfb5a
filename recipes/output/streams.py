"""Standard output, whose loss raises `OutputLost`, and standard error, whose loss is ignored."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO


class OutputLost(Exception):
    """Standard output cannot be written any more.

    It is no OSError, because libraries would catch it, and could take it for a full disk of another file.

    Attributes:
        by_reader: whether its reader has gone, as in `kl ... | head -1`.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror})")
        self.by_reader = error.errno == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            _to_nothing(self.fileno())  # discards what is still buffered
            raise OutputLost(error) from error


class _Messages(io.FileIO):
    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:  # it cannot be reported anywhere, and the results are still right
            _to_nothing(self.fileno())
            return len(memoryview(data))  # type: ignore[arg-type]


def check_streams() -> bool:
    """Replace Python's standard streams by these classes; returns False if standard output is closed.

    A closed stream is opened on os.devnull. Otherwise the next opened file would get its descriptor, and the prints.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            _to_nothing(number)
    closed = sys.stdout is None
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # a caller may have put something else there
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.__stdout__, "backslashreplace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(2, "w", closefd=False), sys.__stderr__, "backslashreplace")
    return not closed


def _text(raw: io.FileIO, like: TextIO | None, errors: str) -> TextIO:
    """A text stream for a file; a character that the encoding lacks is written as its escape."""
    buffered = io.BufferedWriter(raw)
    at_once = isinstance(like, io.TextIOWrapper) and like.line_buffering
    encoding = like.encoding if like is not None else None
    return io.TextIOWrapper(buffered, encoding=encoding, errors=errors, line_buffering=at_once or raw.isatty())


def _to_nothing(number: int) -> None:
    """Redirect a file descriptor to os.devnull."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
