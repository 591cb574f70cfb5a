"""Rows of features with their squared norms: what every kernel product is made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kl.errors import InputError


@dataclass(frozen=True)
class Rows:
    """Feature rows x_1..x_n and |x_1|^2..|x_n|^2, computed once and shared by all kernel products.

    The squared norms are summed in float64: |x - z|^2 = |x|^2 + |z|^2 - 2<x, z> cancels, so their error counts.
    """

    data: Tensor  # shape: (n, d)
    sq_norm: Tensor  # shape: (n,)

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """Wrap a feature matrix of shape (n, d); no copy of it is made."""
        return cls(x, row_sq_norm(x))

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Rows:
        return Rows(self.data[index], self.sq_norm[index])

    def gram(self, other: Rows) -> Tensor:
        """Inner products <x_i, z_j>, shape (n, p): a new tensor that the caller may overwrite."""
        return self.data @ other.data.T


def row_sq_norm(x: Tensor, chunk: int = 8192) -> Tensor:
    """|x_i|^2 of every row, summed in float64 and rounded once to x's dtype; shape (n,)."""
    parts = [rows.double().square().sum(dim=1) for rows in x.split(chunk)]
    return torch.cat(parts).to(x.dtype) if parts else x.new_empty(0)


class RowDataset(Dataset):
    """A training or test set held as whole tensors; indexing by an index tensor gives a whole batch (x, y, index).

    Args:
        x: features, float32 or float64, shape (n, d).
        y: targets, float, shape (n, c): one-hot {0, 1} rows for classes, numbers for regression.
        y_noisy: targets with label noise where y is kept clean (test sets), shape (n, c).

    Raises:
        InputError: shapes disagree, x has another dtype, a value is NaN or infinite, or there are no rows.
    """

    def __init__(self, x: Tensor, y: Tensor, y_noisy: Tensor | None = None) -> None:
        check_finite_matrix("x", x)
        check_finite_matrix("y", y)
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"x must be float32 or float64, in which kernel values are computed; got {x.dtype}")
        if len(x) != len(y):
            raise InputError(
                f"x and y must have one row per sample; got {len(x)} rows of features and {len(y)} of targets"
            )
        if y_noisy is not None and y_noisy.shape != y.shape:
            raise InputError(f"y_noisy must have y's shape {tuple(y.shape)}; got {tuple(y_noisy.shape)}")
        self.x, self.y, self.y_noisy = x, y, y_noisy

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.as_tensor(index)
        return self.x[index], self.y[index], index


def check_finite_matrix(name: str, x: Tensor) -> Tensor:
    """Return x if it is a non-empty finite float matrix, else raise InputError naming `name`."""
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        came = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be a float tensor of shape (rows, columns); got {came}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise InputError(f"{name} must have at least one row and one column; got shape {tuple(x.shape)}")
    # A sum is finite only if every term is (or terms overflow); it needs no temporary of x's size.
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        row = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
        raise InputError(f"{name} must be finite; row {row} holds NaN or infinity: remove or replace such rows")
    return x
