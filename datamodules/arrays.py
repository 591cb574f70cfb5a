"""A user's own arrays: a .npz file, or NumPy arrays and tensors in memory."""

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

from datamodules.base import KernelDataModule
from datamodules.npz_headers import check_members
from datamodules.raw import RawData
from datamodules.targets import check_task, targets
from kl.errors import InputError
from kl.rows.dense import require_dense
from kl.rows.encoding import FeatureEncoding
from kl.rows.pixels import channels_first
from kl.system.files import expand_home

KEYS = ("x_train", "y_train")
TEST_KEYS = ("x_test", "y_test")  # optional


class ArrayDataModule(KernelDataModule):
    """The arrays x_train, y_train and, optionally, x_test, y_test of a .npz file, in the order of their rows.

    x holds uint8 images (n, ...), which are divided by 255, or floats (n, ...), which keep their units. Each sample is
    flattened, images with channels first. One `kl.rows.encoding.FeatureEncoding` encodes both sets. Integers in y are
    classes, named by the sorted unique values of both sets; floats, shape (n,) or (n, c), are regression targets,
    unless `task` says otherwise. Rows are drawn only if train_size or test_size asks for it.

    Args:
        path: the .npz file. Pickled objects in it are refused.
        task: "classification" (y may be whole floats or one-hot rows), "regression" (y may be integers), or "auto".
        **options: those of `KernelDataModule`.

    Attributes:
        memory: budget for reading the file: bytes, "8GB", or "auto" (half of the free memory).

    Raises:
        InputError: the file or a key is missing or damaged, or an array is not as described.

    Example:
        >>> x = np.arange(6.0).reshape(3, 2)
        >>> data = ArrayDataModule.from_arrays(x, [0, 1, 1], x, [0, 1, 1])
        >>> data.setup()
        >>> data.train_set.y
        tensor([[1., 0.],
                [0., 1.],
                [0., 1.]])
    """

    def __init__(self, path: str | os.PathLike[str] | None, task: str = "auto", **options: Any) -> None:
        super().__init__(**options)
        self._asked_task = check_task(task)
        self.path = None if path is None else expand_home(path)
        self.memory: str | int = "auto"
        self.name = "arrays" if self.path is None else Path(self.path).stem
        self._arrays: dict[str, Any] | None = None

    @classmethod
    def from_arrays(
        cls, x_train: Any, y_train: Any, x_test: Any = None, y_test: Any = None, **options: Any
    ) -> ArrayDataModule:
        """The same data module from arrays, tensors or nested lists in memory, which are not modified.

        The test set is optional: without it there are no test metrics.
        """
        module = cls(path=None, **options)
        given = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        module._arrays = {key: value for key, value in given.items() if value is not None}
        return module

    def load(self) -> RawData:
        """Read the arrays and check what they hold."""
        if self.path is not None:
            arrays = read_npz(self.path, KEYS, TEST_KEYS, self.memory)
        elif self._arrays is not None:
            arrays = {key: as_array(key, value) for key, value in self._arrays.items()}
            for key in KEYS:
                if key not in arrays:
                    raise InputError(f"{key} must be an array; got None: only the test set is optional")
        else:
            raise InputError(
                "path must name a .npz file; this data module was made from arrays in memory, which "
                "checkpoints do not keep: make it again with ArrayDataModule.from_arrays"
            )
        if "x_test" in arrays:
            require_alike("x_test", arrays["x_test"].shape[1:], "x_train", arrays["x_train"].shape[1:])
        x_train, image_shape = samples("x_train", arrays["x_train"])
        x_test = samples("x_test", arrays["x_test"])[0] if "x_test" in arrays else None
        y = targets(arrays["y_train"], arrays.get("y_test"), self._asked_task)
        return RawData(x_train, y.train, x_test, y.test, y.class_names, image_shape)


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
