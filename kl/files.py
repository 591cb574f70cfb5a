"""Files that appear complete or not at all, and the folder of those that can be made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kl.signals import signals_wait


def cache_folder() -> Path:
    """Where results that can be computed again are kept: $XDG_CACHE_HOME/kl, or ~/.cache/kl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kl"


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends, and leaves no trace if it fails.

    It is written beside its target, flushed to disk, and renamed over it in one step: whoever reads, and whenever the
    process is killed, there is the old file or the new one, whole. Ctrl-C, SIGTERM and SIGHUP are answered once
    the new one is there. Folders are made as needed.

    Args:
        path: where the file is to appear.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with signals_wait():
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
    except BaseException:
        with suppress(OSError):  # there may be none, as where the folder is a file
            partial.unlink()
        raise
