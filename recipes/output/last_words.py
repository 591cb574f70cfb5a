"""The report why a process of `kl` ends: on standard error or, from a rank, to the command that started it.

Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ends, and of typer for a KeyboardInterrupt
READER_GONE = 141  # the exit code of a program that SIGPIPE ends
PARENT, NAME = "KL_PARENT", "KL_RANK"  # variables in a rank's environment: its parent's pid; a name such as rank 1 of 2
FILE = "TORCHELASTIC_ERROR_FILE"  # another: the file of torch.distributed.elastic for the rank's error
INTERVAL = 0.5  # seconds between two checks of the parent
REMEDY = "all ranks stop; where an epoch was finished, --resume last goes on from there"


@dataclass(frozen=True)
class LastWords:
    """The report of a process at its end. torch.distributed.elastic reads the first two fields as well."""

    message: str
    """The text for the user."""
    timestamp: float
    """The time, in seconds since 1970."""
    code: int
    """The exit code."""
    no_answer: bool
    """Whether the reason is that another rank does not answer."""


def is_rank() -> bool:
    """Whether a command of `kl` has started this process as one of its ranks."""
    return PARENT in os.environ


def say_last(message: str, code: int, no_answer: bool = False) -> None:
    """Report why this process ends. A rank reports to the command that started it; only its first report counts."""
    if is_rank():
        path = os.environ[FILE]
        if os.path.exists(path):
            return
        try:
            with open(f"{path}.part", "w", encoding="utf-8") as file:
                json.dump(asdict(LastWords(message, time.time(), code, no_answer)), file)
            os.replace(file.name, path)
            return
        except OSError:  # the disk is full
            pass
    print(message, file=sys.stderr, flush=True)


def read_last(path: str) -> LastWords | None:
    """The report of a rank; None if there is none."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return LastWords(**json.load(file))


def end_with_parent() -> None:
    """Watch the process that started this rank, and end the rank as soon as that process is gone."""
    parent = int(os.environ[PARENT])

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        if os.environ.get("LOCAL_RANK") != "0":
            # The first rank speaks, and would meet a lost rank before it looks if the others ended earlier.
            time.sleep(2 * INTERVAL)
        try:
            if os.environ.get("LOCAL_RANK") == "0":
                os.write(2, f"error: the command that started the ranks was killed: {REMEDY}\n".encode())
        finally:  # also if standard error is closed
            os._exit(1)

    threading.Thread(target=look, daemon=True, name="watch of the parent").start()
