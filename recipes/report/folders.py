"""Which folder of a run a path means."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kl.errors import InputError

EVENTS = "events.out.tfevents.*"
RESULTS, OPTIONS = "results.json", "config.yaml"
MEND = "remove the file, or give another run"


@dataclass(frozen=True)
class Found:
    """The folder of a run."""

    folder: Path
    said: str | None = None
    """How the folder was chosen, where the path left a choice."""


def find_run(path: Path) -> Found:
    """The run that a path means: its folder, a folder of its versions, or a checkpoint in it.

    Raises:
        InputError: there is no run.
    """
    if not path.exists():
        raise InputError(f"there is no run {str(path)!r}: give a folder that kl fit has made; its last line names it")
    if path.is_file():
        folder = path.resolve().parent.parent
        if path.suffix != ".ckpt" or path.resolve().parent.name != "checkpoints" or not is_run(folder):
            raise InputError(
                f"{str(path)!r} is neither the folder of a run nor a checkpoint in one: give a folder that kl fit has "
                "made"
            )
        return Found(path.parent.parent if path.parent.name == "checkpoints" else folder)
    if is_run(path):
        return Found(path)
    runs = sorted((each for each in versions(path) if is_run(each)), key=number_of)
    if runs:
        others = f"the latest of {len(runs)} runs there" if len(runs) > 1 else "the run there"
        return Found(runs[-1], f"{path}: {runs[-1].name} is {others}")
    inside = sorted(each.name for each in path.iterdir() if each.is_dir() and any(map(is_run, versions(each))))
    remedy = f"name one of its folders: {', '.join(inside[:5])}" if inside else "give a folder that kl fit has made"
    raise InputError(f"the folder {str(path)!r} holds no run: {remedy}")


def read_file(path: Path, longest: int) -> bytes:
    """The bytes of a file in the folder of a run.

    Raises:
        InputError: it cannot be read, is no regular file (a pipe would never end), or has more than `longest` bytes.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is no regular file: {MEND}")
        if path.stat().st_size > longest:
            raise InputError(f"{path} has more than {longest} bytes: {MEND}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}: {MEND}") from error


def versions(folder: Path) -> list[Path]:
    """The folders version_N in a folder."""
    return [each for each in folder.glob("version_*") if each.name[8:].isdecimal() and each.is_dir()]


def number_of(version: Path) -> int:
    """N of a folder version_N."""
    return int(version.name[8:])


def is_run(folder: Path) -> bool:
    """Whether a folder holds a file by which a run is known."""
    return (folder / OPTIONS).is_file() or (folder / RESULTS).is_file() or any(folder.glob(EVENTS))


def labels_of(folders: list[Path]) -> list[str]:
    """A short name of each run: its last two folders, or as many as tell the runs apart."""
    whole = [folder.resolve().parts for folder in folders]
    deepest = max(map(len, whole))
    for count in range(2, deepest + 1):
        names = ["/".join(parts[-count:]).lstrip("/") for parts in whole]
        if len(set(names)) == len(names):
            return names
    return ["/".join(parts) for parts in whole]


def common_folder(folders: list[Path]) -> Path:
    """The deepest folder that holds all runs; of one run, the run's folder."""
    if len(folders) == 1:
        return folders[0]
    if any(folder.is_absolute() for folder in folders):
        folders = [folder.resolve() for folder in folders]
    return Path(os.path.commonpath(folders))
