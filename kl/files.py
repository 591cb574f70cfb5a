"""Files that appear complete or not at all, and the folder of those that can be made again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


def cache_folder() -> Path:
    """Where results that can be computed again are kept: $XDG_CACHE_HOME/kl, or ~/.cache/kl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kl"


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends, and leaves no trace if it fails.

    It is written beside its target, flushed to disk, and renamed over it in one step: whoever reads, and whenever the
    process is killed, there is the old file or the new one, whole. Ctrl-C is answered once the new one is there.
    Folders are made as needed.

    Args:
        path: where the file is to appear.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _interrupts_wait():
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
    except BaseException:
        with suppress(OSError):  # there may be none, as where the folder is a file
            partial.unlink()
        raise


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Keep Ctrl-C until the block is done; only a main thread ever hears it.

    torch.save answers a KeyboardInterrupt in the middle of a file by a RuntimeError that reads like a full disk.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:  # None: not Python's to set
        yield
        return
    pressed: list[Any] = []
    signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)
