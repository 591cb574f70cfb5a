"""Files that appear complete or not at all, the leftovers of killed processes, and the folder of cached results."""

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
FOREIGN = 86400  # seconds without a change after which a partial file of another host counts as abandoned
_PARTIAL = re.compile(r"\..+\.(?P<pid>\d+)(@(?P<host>[0-9a-f]{8}))?\.partial")


def cache_folder() -> Path:
    """The folder of results that can be computed again: $XDG_CACHE_HOME/kl, or ~/.cache/kl.

    Raises:
        InputError: the home folder is unknown, because HOME is not set and the system does not know the user.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kl"
    except RuntimeError as error:  # no $HOME, and a user whom the system does not know
        raise InputError(
            "there is no folder for results that are kept, for HOME is not set and the user is unknown: "
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
    """Open a file for writing that replaces `path` when the block ends, and leaves no trace if the block fails.

    The file is written beside its target, flushed to disk, and renamed over the target in one step. So a reader finds
    the old file or the new one, complete, whenever the process is killed. Ctrl-C, SIGTERM and SIGHUP are answered after
    the rename. Folders are made as needed, and partial files of killed processes are removed from the folder.

    Args:
        path: where the file is to appear.

    Raises:
        OSError: the file cannot be written; the old file is unchanged.
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
        with suppress(OSError):  # there may be no partial file, for example if the folder is a file
            partial.unlink()
        raise


def _owned(path: Path) -> BinaryIO:
    """A new file that is locked until it is closed or this process ends."""
    while True:
        file = path.open("wb")
        with suppress(OSError):  # on a file system without locks `hold` fails, so no process removes the file
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file
        file.close()  # another process took it for a leftover between open and lock, and removed it


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files in a folder that no living process owns.

    The owner holds a lock, which ends with the owner; a process number proves nothing, because a later process may have
    the same number. Locks may not be seen across hosts, so the file of another host is removed a day after its last
    change.
    """
    for path in folder.glob(".*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found is None or (descriptor := hold(path)) is None:
            continue
        try:
            if not _may_be_owned(found["host"], int(found["pid"]), os.fstat(descriptor).st_mtime):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _may_be_owned(host: str | None, pid: int, changed: float) -> bool:
    """Whether a process may still be writing a partial file although no lock is seen."""
    if host is None:  # a file of this host without a lock
        return Path("/proc", str(pid)).exists() or not Path("/proc").exists()
    return host != HOST and time.time() - changed < FOREIGN


def hold(path: Path) -> int | None:
    """Lock an existing file or folder; None if another process holds the lock, or if this cannot be found out.

    Returns:
        A file descriptor. The lock ends when the descriptor is closed, or when this process ends in any way.
    """
    try:
        opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(opened), os.stat(path)):
            return opened
    except OSError:  # another process holds the lock, or the file is gone
        pass
    os.close(opened)
    return None
