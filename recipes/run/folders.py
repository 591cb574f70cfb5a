"""The folder of a run: its path, the removal of what killed runs left, and of what a run that never started wrote."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from kl.errors import InputError
from kl.system.files import hold, remove_leftovers
from recipes.options.groups import TrainerOptions


def check_name(name: str | None) -> None:
    """Check what --name gives a run, whose folder has that name; None is a name of the command's own.

    Raises:
        InputError: a folder cannot have this name.
    """
    if name is not None and any("\udc80" <= each <= "\udcff" for each in name):  # bytes that are no characters
        raise InputError(
            f"name must be characters of the locale, whose encoding here is {sys.getfilesystemencoding()}; got "
            f"{name!r}: set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or give an ASCII name"
        )
    if name is not None and (name.strip() in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 200):
        raise InputError(f"name must be the name of a folder in --log-dir, of at most 200 bytes; got {name!r}")


def folder_name(name: str) -> str:
    """The name of a run without the characters that a folder's name cannot have."""
    return name.replace(":", "-").replace(os.sep, "-")


def find_checkpoint(options: TrainerOptions, name: str) -> Path | None:
    """The file that --resume means.

    Raises:
        InputError: there is no such file.
    """
    if options.resume is None:
        return None
    if options.resume != "last":
        path = Path(options.resume)
        with suppress(OSError):  # the name is too long
            if path.is_file():
                return path
        raise InputError(f"resume must be last or the path of a checkpoint; there is no file {path}")
    folder = Path(options.log_dir, name)
    found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"resume last found no checkpoint in {folder}: give the --log-dir and --name of the first run, or a path"
        )
    return found[-1]


def run_folder(options: TrainerOptions, name: str, resume: Path | None) -> tuple[Path, set[Path]]:
    """The folder of a run, new or that of the run which it resumes, and the paths that existed before.

    Raises:
        InputError: no file can be written there.
    """
    parent = Path(options.log_dir, name)
    require_writable(str(parent))
    remove_dead_runs(parent)
    if resume and is_run_of(resume, options.log_dir, name):
        folder = parent / resume.parent.parent.name
        return folder, {*folder.rglob("*"), folder, *folder.parents}
    before = {path for path in (parent, *parent.parents) if path.exists()}
    return new_version(parent), before


def is_run_of(checkpoint: Path, log_dir: str, name: str) -> bool:
    """Whether a checkpoint lies in a run folder of this name, so that the run can go on there."""
    return checkpoint.resolve().parent.parent.parent == Path(log_dir, name).resolve()


def new_version(folder: Path) -> Path:
    """Make the next version_N in a folder; no two runs get the same one."""
    number = 1 + max((int(path.name[8:]) for path in folder.glob("version_*") if path.name[8:].isdigit()), default=-1)
    while True:
        try:
            (folder / f"version_{number}").mkdir(parents=True)
        except FileExistsError:  # another run was quicker
            number += 1
        else:
            return folder / f"version_{number}"


def remove_new(folder: Path, before: set[Path]) -> None:
    """Remove what a run that never started has written; `before` are the paths that existed before it."""
    for path in sorted({*folder.rglob("*"), folder, *folder.parents} - before, reverse=True):
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def require_writable(folder: str) -> None:
    """Check that a folder exists or can be made, and is writable; folders that this check makes are removed.

    Raises:
        InputError: no file can be written there.
    """
    made: list[Path] = []
    try:
        for path in reversed([Path(folder), *Path(folder).parents]):
            if not path.exists():
                path.mkdir()
                made.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"log_dir must be a folder that can be written; {folder!r}: {error.strerror}: give another --log-dir"
        ) from error
    finally:
        for path in reversed(made):
            path.rmdir()


def remove_dead_runs(parent: Path) -> None:
    """Remove partial checkpoints, and run folders without a file, unless a living process owns them.

    Args:
        parent: the folder of the run folders version_N; a living process holds a lock on its own.
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
    """Remove a folder of empty folders; it stays if it has got a file meanwhile."""
    with suppress(OSError):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
