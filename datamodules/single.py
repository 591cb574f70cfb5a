"""One array of samples from a file: NumPy's .npz and .npy, or a tensor that torch.save has written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.samples import as_array, read_first
from kl.errors import CheckpointError, InputError
from kl.system.saved import load_plain

ARRAY_FILES = (".npz", ".npy", ".pt")


def read_array(path: str | os.PathLike[str], keys: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """The array of a .npy or .pt file, or the first of `keys` that a .npz file or a dict in a .pt file holds.

    No code from the file is run.

    Args:
        path: a file of one of `ARRAY_FILES`.
        keys: names of arrays.

    Returns:
        The name of the array in messages, and the array.

    Raises:
        InputError: the file is missing, damaged or of another kind, or holds none of the names.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return read_first(path, keys)
    if not Path(path).is_file():
        raise InputError(f"{path} must be a {suffix} file; there is no such file")
    return ("the array", _read_npy(path)) if suffix == ".npy" else _read_tensor(path, keys)


def _read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        # Memory-mapped first, so that a header that claims more data than the file has takes no memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" in str(error):
            raise InputError(
                f"{path} holds Python objects, which are not loaded: store numbers of one shape"
            ) from error
        raise InputError(f"{path} is not a .npy file or is damaged: write it again with numpy.save") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} must be a single array, as numpy.save writes; it is a .npz file: name it so")
    return np.array(array)


def _read_tensor(path: str | os.PathLike[str], keys: tuple[str, ...]) -> tuple[str, np.ndarray]:
    try:
        found: Any = load_plain(path)
    except CheckpointError as error:
        raise InputError(f"{path}: {error}: write a tensor with torch.save") from error
    name = "the tensor"
    if isinstance(found, dict):
        name = next((key for key in keys if key in found), "")
        if not name:
            there = ", ".join(map(str, found)) or "nothing"
            raise InputError(f"{path} must hold {' or '.join(keys)}, or one tensor; it holds: {there}")
        found = found[name]
    if not isinstance(found, Tensor):
        raise InputError(f"{name} in {path} must be a tensor; got a {type(found).__name__}")
    if found.device.type != "cpu" or found.untyped_storage().nbytes() < found.numel() * found.element_size():
        raise InputError(f"{name} in {path} does not hold all values of its shape {tuple(found.shape)}: save a clone()")
    return name, as_array(name, found)
