"""A user's own arrays: a .npz file, or NumPy arrays and tensors in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datamodules.base import KernelDataModule
from datamodules.raw import RawData
from datamodules.samples import as_array, read_npz, require_alike, samples
from datamodules.targets import check_task, targets
from kl.errors import InputError
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
        >>> import numpy as np
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
