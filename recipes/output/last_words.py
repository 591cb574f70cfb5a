"""Why a process of `kl` ends: said on standard error, or, by a rank, to the command that started it.

Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass

INTERRUPTED = 130  # as of a program that Ctrl-C ends; what typer returns for a KeyboardInterrupt, too
READER_GONE = 141  # as of a program that SIGPIPE ends
PARENT, NAME = "KL_PARENT", "KL_RANK"  # environment variables of a rank: who started it; "rank 1 of 2", say
FILE = "TORCHELASTIC_ERROR_FILE"  # another: where torch.distributed.elastic lets it leave an error
INTERVAL = 0.5  # seconds between two looks at the parent
REMEDY = "all ranks stop; where an epoch was finished, --resume last goes on from there"


@dataclass(frozen=True)
class LastWords:
    """What a process says at its end. torch.distributed.elastic reads the first two as well."""

    message: str
    """What the user is to read."""
    timestamp: float
    """When, in seconds since 1970."""
    code: int
    """The exit code."""
    no_answer: bool
    """Whether the reason is that another rank does not answer."""


def is_rank() -> bool:
    """Whether a command of `kl` has started this process as one of its ranks."""
    return PARENT in os.environ


def say_last(message: str, code: int, no_answer: bool = False) -> None:
    """Say why this process ends. A rank leaves it to the command that started it; what a rank says first stands."""
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
    """What a rank has said, if it has."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return LastWords(**json.load(file))


def end_with_parent() -> None:
    """End this rank, from now on, as soon as the process that started it is gone."""
    parent = int(os.environ[PARENT])

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        try:
            if os.environ.get("LOCAL_RANK") == "0":
                os.write(2, f"error: the command that started the ranks was killed: {REMEDY}\n".encode())
        finally:  # also where nobody listens
            os._exit(1)

    threading.Thread(target=look, daemon=True, name="watch of the parent").start()
