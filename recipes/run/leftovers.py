"""What runs that were killed have left beside the folder of a new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kl.system.files import hold, remove_leftovers


def remove_dead_runs(parent: Path) -> None:
    """Remove parts of checkpoints and folders without a file, where no living process owns them.

    Args:
        parent: the folder of the version_N; the process of each holds a lock on it.
    """
    for folder in parent.glob("version_*"):
        if not (folder.name[8:].isdigit() and folder.is_dir()):
            continue
        for place in (folder, folder / "checkpoints"):
            remove_leftovers(place)
        if not _has_files(folder) and (held := hold(folder)) is not None:
            try:
                _remove_empty(folder)
            finally:
                os.close(held)


def _has_files(folder: Path) -> bool:
    return any(not path.is_dir() or path.is_symlink() for path in folder.rglob("*"))


def _remove_empty(folder: Path) -> None:
    """Remove a folder of empty folders; one that has got a file meanwhile stays."""
    with suppress(OSError):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
