"""Files that appear complete or not at all, what killed processes leave, and the folder of what can be made again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kl.errors import InputError
from kl.system.signals import signals_wait

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
FOREIGN = 86400  # seconds after its last change that a partial file of another host is nobody's any more
_PARTIAL = re.compile(r"\..+\.(?P<pid>\d+)(@(?P<host>[0-9a-f]{8}))?\.partial")


def cache_folder() -> Path:
    """Where results that can be computed again are kept: $XDG_CACHE_HOME/kl, or ~/.cache/kl.

    Raises:
        InputError: nobody knows where that is.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kl"
    except RuntimeError as error:  # no $HOME, and a user whom the system does not know
        raise InputError(
            "there is no folder for exact solutions and decoded images, for HOME is not set and the user is unknown: "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def expand_home(path: str | os.PathLike[str]) -> str:
    """The path with its leading ~ or ~user replaced by that home folder.

    Raises:
        InputError: there is no such home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise InputError(
            f"{os.fspath(path)} lies in a home folder, and there is none: set the environment variable HOME, or give "
            "the whole path"
        )
    return expanded


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends, and leaves no trace if it fails.

    It is written beside its target, flushed to disk, and renamed over it in one step: whoever reads, and whenever the
    process is killed, there is the old file or the new one, whole. Ctrl-C, SIGTERM and SIGHUP are answered once
    the new one is there. Folders are made as needed. What processes that were killed have left in the folder is
    removed.

    Args:
        path: where the file is to appear.

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    partial = target.with_name(f".{target.name}.{os.getpid()}@{HOST}.partial")
    try:
        with signals_wait(), _owned(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, target)
    except BaseException:
        with suppress(OSError):  # there may be none, as where the folder is a file
            partial.unlink()
        raise


def _owned(path: Path) -> BinaryIO:
    """A new file that is locked until it is closed, or this process ends."""
    while True:
        file = path.open("wb")
        with suppress(OSError):  # a file system without locks, on which nobody removes it either
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file
        file.close()  # who looked for leftovers had it between the two


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files in a folder that no living process owns.

    The owner holds a lock, which ends with it: another process may have its number. A lock may not be seen on another
    host, whose files are removed a day after they were written last.
    """
    for path in folder.glob(".*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found is None or (held := hold(path)) is None:
            continue
        try:
            if not _may_be_owned(found["host"], int(found["pid"]), os.fstat(held).st_mtime):
                path.unlink(missing_ok=True)
        finally:
            os.close(held)


def _may_be_owned(host: str | None, pid: int, changed: float) -> bool:
    """Whether a process that no lock shows may be writing a partial file."""
    if host is None:  # one without a lock, of this host
        return Path("/proc", str(pid)).exists() or not Path("/proc").exists()
    return host != HOST and time.time() - changed < FOREIGN


def hold(path: Path) -> int | None:
    """Lock a file or folder that is there; None where another process has, or where that cannot be told.

    Returns:
        A file descriptor; the lock is gone when it is closed, or when this process ends, however that comes.
    """
    try:
        opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(opened), os.stat(path)):
            return opened
    except OSError:  # it is held, or gone
        pass
    os.close(opened)
    return None
