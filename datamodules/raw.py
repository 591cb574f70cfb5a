"""What a data module's `load` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from kl.errors import InputError
from kl.rows.dense import require_dense


@dataclass(frozen=True)
class RawData:
    """A training set and, optionally, a test set as they were read, before subsampling, scaling and label noise.

    Pixels are uint8 0..255, channels first, and are divided by 255; floats keep their units (see `kl.rows.encoding`).
    """

    x_train: Tensor  # shape: (n, ...), uint8 or float
    y_train: Tensor  # shape: (n,), class indices (long), or (n, c), float, for regression
    x_test: Tensor | None = None  # shape: (n_test, ...); None: there is no test set
    y_test: Tensor | None = None  # shape: (n_test,) or (n_test, c)
    class_names: list[str] = field(default_factory=list)
    """One name per class, in the order of their indices; empty for regression."""
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W); None if the rows are not images."""

    def __post_init__(self) -> None:
        if (self.x_test is None) != (self.y_test is None):
            given, lacking = ("y", "x") if self.x_test is None else ("x", "y")
            raise InputError(f"{lacking}_test is missing beside {given}_test: give both, or neither for no test set")
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if x is None or y is None:
                continue
            require_dense(f"x_{part}", x)
            require_dense(f"y_{part}", y)
            if len(x) != len(y):
                raise InputError(
                    f"x_{part} and y_{part} must have one row per sample; got {len(x)} rows and {len(y)} targets"
                )
            if x.numel() == 0:
                raise InputError(f"x_{part} must have at least one row and one column; got shape {tuple(x.shape)}")
        widths = self.x_train[0].numel(), (self.x_train if self.x_test is None else self.x_test)[0].numel()
        if widths[0] != widths[1]:
            raise InputError(f"x_train and x_test must have equally many features; got {widths[0]} and {widths[1]}")

    @property
    def task(self) -> str:
        """ "classification" or "regression"."""
        return "classification" if self.class_names else "regression"
