"""Samples in arrays: read from .npz files, checked, and made ready for a `FeatureEncoding`, without Lightning."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.npz_headers import check_members
from kl.errors import InputError
from kl.rows.dense import require_dense
from kl.rows.encoding import FeatureEncoding
from kl.rows.pixels import channels_first


def read_npz(
    path: str | os.PathLike[str],
    keys: tuple[str, ...],
    optional: tuple[str, ...] = (),
    memory: str | int = "auto",
) -> dict[str, np.ndarray]:
    """The arrays `keys` of a .npz file, and those of `optional` that it holds; other arrays are not read.

    Raises:
        InputError: no such file, not a .npz file, damaged, a key is missing, or an array holds Python
            objects.
        MemoryBudgetError: the arrays need more than the budget.
    """
    with _open_npz(path) as file:
        if missing := [key for key in keys if key not in file.files]:
            found = ", ".join(file.files) or "nothing"
            also = f" (and may hold {', '.join(optional)})" if optional else ""
            raise InputError(f"{path} must hold {', '.join(keys)}{also}; {', '.join(missing)} not found among: {found}")
        there = [key for key in (*keys, *optional) if key in file.files]
        check_members(path, file.zip, there, memory)
        return {key: _read_key(path, file, key) for key in there}


def read_first(path: str | os.PathLike[str], keys: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """The first of the named arrays that a .npz file holds, with its name.

    Raises:
        InputError: as in `read_npz`, or the file holds none of the named arrays.
    """
    with _open_npz(path) as file:
        for key in keys:
            if key in file.files:
                check_members(path, file.zip, [key])
                return key, _read_key(path, file, key)
        found = ", ".join(file.files) or "nothing"
        raise InputError(f"{path} must hold {' or '.join(keys)}; it holds: {found}")


@contextlib.contextmanager
def _open_npz(path: str | os.PathLike[str]) -> Iterator[np.lib.npyio.NpzFile]:
    if not Path(path).is_file():
        raise InputError(f"{path} must be a .npz file; there is no such file")
    with open(path, "rb") as opened:  # np.load would leave a damaged file open
        try:
            file = np.load(opened, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a .npz file or is damaged: write it again with numpy.savez") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError(f"{path} must be a .npz file; it is a single .npy array: use numpy.savez")
        yield file


def _read_key(path: str | os.PathLike[str], file: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    try:
        return file[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise InputError(
                f"{key} in {path} holds Python objects, which are not loaded: store numbers of one shape"
            ) from error
        raise InputError(f"{key} in {path} is damaged ({error}): write it again with numpy.savez") from error


def as_array(name: str, value: Any) -> np.ndarray:
    """A NumPy array from an array, tensor or nested list, with no copy where possible."""
    for part in value if isinstance(value, list | tuple) else (value,):
        require_dense(name, part)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} must be numbers of one shape; its rows differ in length") from error


def samples(name: str, x: np.ndarray) -> tuple[Tensor, tuple[int, int, int] | None]:
    """Samples ready for a `FeatureEncoding`, shape (n, ...), and the shape (C, H, W) of images, else None.

    uint8 arrays (n, H, W), (n, C, H, W) and (n, H, W, C) with 1, 3 or 4 channels are images. Floats are float32 or
    float64 rows. Both are turned from (n, H, W, C) to channels first.

    Raises:
        InputError: the array is neither uint8 nor float, or it is empty.
    """
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InputError(
            f"{name} must hold uint8 images or floats; got {x.dtype}: convert it, as by .astype('float64')"
        )
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"{name} must have at least one row and one column; got shape {x.shape}")
    if x.dtype.kind == "f":
        dtype = np.float32 if x.dtype.itemsize <= 4 else np.float64
        return channels_first(torch.from_numpy(np.require(x, dtype, ["C", "W"]))).reshape(len(x), -1), None
    pixels = channels_first(torch.from_numpy(np.require(x, requirements=["C", "W"]))).contiguous()
    if x.ndim == 3:
        return pixels, (1, x.shape[1], x.shape[2])
    return pixels, (pixels.shape[1], pixels.shape[2], pixels.shape[3]) if x.ndim == 4 else None


def require_alike(name: str, shape: tuple[int, ...], wanted_name: str, wanted: tuple[int, ...]) -> None:
    """Check that two sample shapes of equal size have the same axes, if both have more than one axis.

    A single channel counts as no channel axis, and channels may be first or last. Flat rows are not checked.

    Raises:
        InputError: the samples have their values in different orders, which would mix up the features.
    """
    if len(shape) < 2 or len(wanted) < 2 or math.prod(shape) != math.prod(wanted):
        return
    axes = [channels_first(torch.empty(1, *each, device="meta")).shape[1:] for each in (shape, wanted)]
    first, second = ([size for size in each if size != 1] for each in axes)
    if first != second:
        raise InputError(
            f"{name} must have samples of the shape of {wanted_name}, {tuple(wanted)}; got {tuple(shape)}, as many "
            "values in another order: transpose them"
        )


def features_of(name: str, x: np.ndarray, encoding: FeatureEncoding) -> Tensor:
    """New samples `x` as feature rows, shape (n, d), encoded like the data set that `encoding` was fitted on."""
    return encoding.encode(samples(name, x)[0], name)
