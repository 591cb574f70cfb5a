"""Standard output, whose loss is an error of its own, and standard error, which may go unheard."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO


class OutputLost(Exception):
    """Standard output cannot be written any more.

    No OSError: libraries would answer it, and take another file's full disk for it.

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
            _to_nothing(self.fileno())  # what is still buffered goes there
            raise OutputLost(error) from error


class _Messages(io.FileIO):
    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:  # there is nowhere left to say it, and what is computed is no less right
            _to_nothing(self.fileno())
            return len(memoryview(data))  # type: ignore[arg-type]


def check_streams() -> bool:
    """Put these in the place of Python's standard streams; False where standard output is closed.

    A closed stream's number would be given to the next file that is opened, and what is printed written into it.
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
    """Text for a file; a character that the encoding has not is written as its escape."""
    buffered = io.BufferedWriter(raw)
    at_once = isinstance(like, io.TextIOWrapper) and like.line_buffering
    encoding = like.encoding if like is not None else None
    return io.TextIOWrapper(buffered, encoding=encoding, errors=errors, line_buffering=at_once or raw.isatty())


def _to_nothing(number: int) -> None:
    """Let a file descriptor write to, and read from, nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
