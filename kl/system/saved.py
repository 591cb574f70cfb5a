"""Tensors and plain values on disk: written completely or not at all, and read only if every checksum is right."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from kl.errors import CheckpointError
from kl.system.files import written_whole


def save_values(path: str | os.PathLike[str], values: dict[str, Any]) -> None:
    """Write tensors and plain values to a file.

    Raises:
        OSError: the file cannot be written; the old file is unchanged.
    """
    try:
        with written_whole(path) as file:
            torch.save(values, file)
    except RuntimeError as error:  # torch's zip writer raises it on a full disk
        raise OSError(" ".join(str(error).split())) from error


def load_values(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """The dict that `save_values` wrote, its tensors on the device. No code in the file is run.

    Raises:
        CheckpointError: there is no such file, or it is damaged or something else. Callers add the path to the message.
    """
    values = load_plain(path, device)
    if not isinstance(values, dict):
        raise CheckpointError(f"the file is damaged or something else: it holds a {type(values).__name__}")
    return values


def load_plain(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """Any tensor or plain value that torch.save wrote, its tensors on the device. No code in the file is run.

    Raises:
        CheckpointError: there is no such file, or it is damaged or something else.
    """
    try:
        with Path(path).open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                if (damaged := archive.testzip()) is not None:  # torch.load does not look at the checksums
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            file.seek(0)
            return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # a damaged archive or pickle can raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(f"the file is damaged or something else: {reason}") from error
