"""The image files of a folder: each real file once, no hidden files, and no links to the folder or folders above it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from datamodules.images import check_regular
from kl.errors import InputError

log = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_DEPTH = 16
_NOT_DATA = ("__MACOSX", "@eaDir", "lightning_logs")  # of archives, of file servers, and of our own runs


def is_hidden(name: str) -> bool:
    """Whether an entry is hidden or otherwise not data of the user: .git, .ipynb_checkpoints, ._cat.jpg, __MACOSX."""
    return name.startswith(".") or name in _NOT_DATA


def class_folders(folder: Path) -> list[Path]:
    """The folders and links to folders in `folder`, by name, without hidden ones and links to it or a folder above."""
    real = os.path.realpath(folder)
    return [Path(entry.path) for entry in _entries(folder) if _is_folder(entry) and not _leads_round(entry, real)]


def image_files(
    folder: Path,
    outermost: Path | None = None,
) -> dict[str, Path]:
    """The path of each image file in `folder` and below, by its real path, sorted by folder and name.

    A file or folder that several links reach is listed once. A link to a folder that contains the link itself or the
    data is not followed, and a warning says so.

    Args:
        folder: the folder to search.
        outermost: the folder of all the data, if `folder` is a part of it.

    Raises:
        InputError: a folder cannot be read or lies too deep, or an entry with an image extension is no file.
    """
    found: dict[str, Path] = {}
    for path in sorted(
        _walk(folder, os.path.realpath(outermost or folder)), key=lambda path: (str(path.parent), path.name)
    ):
        check_regular(path, str(path))
        found.setdefault(os.path.realpath(path), path)
    return found


def _walk(folder: Path, data: str) -> Iterator[Path]:
    """Every path below `folder` with an image extension; each real folder is searched once."""
    waiting, walked = [(folder, 0)], set()
    while waiting:
        place, depth = waiting.pop()
        real = os.path.realpath(place)
        if real in walked:
            continue
        walked.add(real)
        if depth > MAX_DEPTH:
            raise InputError(f"{place} lies more than {MAX_DEPTH} folders below {folder}: give a folder nearer to it")
        for entry in _entries(place):
            if not _is_folder(entry):
                if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                    yield Path(entry.path)
            elif not _leads_round(entry, real, data):
                waiting.append((Path(entry.path), depth + 1))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read as a folder ({error.strerror}): remove it or let it be read"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return os.path.isdir(entry.path)  # False for a link to itself; entry.is_dir() would raise
    return entry.is_dir()


def _leads_round(entry: os.DirEntry[str], *folders: str) -> bool:
    """Whether the entry is a link to one of `folders` or to a folder above it."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    round_about = any(os.path.commonpath([target, folder]) == target for folder in folders)
    if round_about:
        _warn(f"{entry.path} is a link to {target}, which holds it: it is not followed")
    return round_about


def _warn(message: str) -> None:
    from pytorch_lightning.utilities import rank_zero_only  # here, because predictions for images need no Lightning

    rank_zero_only(log.warning)(message)
