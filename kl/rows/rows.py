"""Rows of features with their squared norms: what every kernel product is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kl.errors import InputError
from kl.rows.dense import require_dense
from kl.rows.digits import DIGITS, LEAST_ROWS, Digits, digits_pay, split, suit_digits
from kl.rows.flip import flipped
from kl.rows.int8 import Codes, encode
from kl.rows.workspace import rows_at_a_time, take_rows

PRECISIONS = ("high", "medium")


@dataclass(frozen=True)
class Rows:
    """Feature rows x_1..x_n and |x_1|^2..|x_n|^2, computed once and shared by all kernel products.

    Make one with `Rows.of`. The squared norms are summed in float64, because |x - z|^2 = |x|^2 + |z|^2 - 2<x, z>
    cancels and the error of the norms is what remains.

    Args:
        data: the features, shape (n, d).
        sq_norm: the squared norms, shape (n,); their dtype is the dtype of the kernel values.
        codes: the same rows as 8-bit integers (`kl.rows.int8`), None when the features are not 8-bit.
        rounded: whether the features hold bfloat16 values, whose products bfloat16 matrix units compute exactly.
        digits: the same rows as three integer digits (`kl.rows.digits`); None when the features are 8-bit, rounded or
            float64, and where float products are faster or more accurate.

    Example:
        >>> import torch, kl
        >>> rows = kl.Rows.of(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        >>> rows.sq_norm.tolist(), rows[:1].data.tolist(), rows.dtype
        ([25.0, 4.0], [[3.0, 4.0]], torch.float32)
    """

    data: Tensor  # shape: (n, d)
    sq_norm: Tensor  # shape: (n,)
    codes: Codes | None = None
    rounded: bool = False
    digits: Digits | None = None

    @classmethod
    def of(cls, x: Tensor, like: Rows | None = None, precision: str = "high") -> Rows:
        """Wrap a feature matrix; the features are copied only for "medium".

        Args:
            x: features, shape (n, d).
            like: rows that these rows will be multiplied with: 8-bit features are read on the scale of `like`, and
                features are rounded, or split into digits, if those of `like` are.
            precision: "high", or "medium": float32 features that are not 8-bit are rounded to bfloat16 (relative error
                2^-9), whose products are exact and faster.

        Raises:
            InputError: precision is neither "high" nor "medium", or x is not dense.
        """
        if precision not in PRECISIONS:
            raise InputError(f"precision must be high or medium; got {precision!r}")
        require_dense("x", x)
        codes = encode(x, like.codes if like is not None else None)
        if codes is not None:
            return cls(x, codes.sq_norm(x.shape[1], x.dtype), codes)
        rounded = x.dtype == torch.float32 and (precision == "medium" or (like is not None and like.rounded))
        if rounded:
            x = x.bfloat16().float()
            return cls(x, row_sq_norm(x), rounded=True)
        sq_norm = row_sq_norm(x)
        if like is None:
            suited = len(x) >= LEAST_ROWS and x.dtype == torch.float32 and suit_digits(x, sq_norm)
            wanted = suited and digits_pay(x.device, x.shape[1])
        else:
            wanted = like.digits is not None
        return cls(x, sq_norm, digits=split(x) if wanted else None)

    @classmethod
    def cat(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several sets, one after the other; as 8-bit integers or as digits if all sets are."""
        codes = [part.codes for part in parts if part.codes is not None]
        digits = [part.digits for part in parts if part.digits is not None]
        return cls(
            torch.cat([part.data for part in parts]),
            torch.cat([part.sq_norm for part in parts]),
            Codes.cat(codes) if len(codes) == len(parts) else None,
            all(part.rounded for part in parts),
            Digits.cat(digits) if len(digits) == len(parts) else None,
        )

    def double(self) -> Rows:
        """The same rows for kernel values in float64; the kernel products convert the features tile by tile."""
        if self.codes is not None:
            sq_norm = self.codes.sq_norm(self.data.shape[1], torch.float64)
        else:
            sq_norm = row_sq_norm(self.data, dtype=torch.float64)
        return replace(self, sq_norm=sq_norm)

    def floats(self) -> Rows:
        """The same rows as floats alone, without their 8-bit integers or digits."""
        return replace(self, digits=None) if self.codes is None else Rows(self.data, row_sq_norm(self.data))

    @property
    def integers(self) -> int:
        """How many int8 integers are kept of a feature: 1 if it is 8-bit, 3 digits, or none."""
        if self.codes is not None:
            return 1
        return 0 if self.digits is None else DIGITS

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of kernel values."""
        return self.sq_norm.dtype

    def flipped(self, shape: Sequence[int], axes: Sequence[int]) -> Rows:
        """The rows with some axes reversed, where a row is seen as a tensor of a shape with d elements."""
        codes = None if self.codes is None else self.codes.flipped(shape, axes)
        digits = None if self.digits is None else self.digits.flipped(shape, axes)
        return replace(self, data=flipped(self.data, shape, axes), codes=codes, digits=digits)

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Rows:
        codes = None if self.codes is None else self.codes[index]
        digits = None if self.digits is None else self.digits[index]
        return Rows(take_rows(self.data, index), take_rows(self.sq_norm, index), codes, self.rounded, digits)

    def split(self, counts: Sequence[int]) -> list[Rows]:
        """Consecutive parts, one with each of these numbers of rows."""
        ends = list(accumulate(counts, initial=0))
        return [self[start:stop] for start, stop in pairwise(ends)]


def row_sq_norm(x: Tensor, chunk: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """|x_i|^2 of every row, summed in float64 and rounded once to dtype (default: x's); shape (n,)."""
    found = x.new_empty(len(x), dtype=torch.float64)
    size = chunk or rows_at_a_time(x.shape[1])
    for out, rows in zip(found.split(size), x.split(size), strict=True):
        out.copy_(rows.to(torch.float64, copy=True).square_().sum(dim=1))
    return found.to(dtype or x.dtype)


class RowDataset(Dataset):
    """A training or test set held as whole tensors; indexing by an index tensor gives a whole batch (x, y, index).

    Args:
        x: features, float32 or float64, shape (n, d).
        y: targets, float, shape (n, c): one-hot {0, 1} rows for classes, numbers for regression.
        y_noisy: targets with label noise, shape (n, c), of a test set whose y is kept clean; None means no noise.

    Raises:
        InputError: shapes disagree, x has another dtype, a value is NaN or infinite, or there are no rows.

    Example:
        >>> import torch, kl
        >>> data = kl.RowDataset(torch.tensor([[0.0], [0.5], [1.0]]), torch.eye(3))
        >>> x, y, index = data[torch.tensor([2, 0])]
        >>> x.flatten().tolist(), y.argmax(dim=1).tolist(), len(data)
        ([1.0, 0.0], [2, 0], 3)
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


class RowNumbers(Dataset):
    """The numbers of n training rows alone, for machines that hold the rows: an index tensor gives (index,)."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Tensor) -> tuple[Tensor]:
        return (index,)


def one_hot(
    labels: Tensor,  # class indices, long, shape (n,)
    num_classes: int,
) -> Tensor:
    """Rows of {0, 1}, float32, shape (n, c)."""
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, labels[:, None], 1.0)


def is_one_hot(
    y: Tensor | np.ndarray,  # shape: (n, c)
) -> bool:
    """Whether every row has one 1 among zeros: classes, not regression values."""
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def data_key(
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    rows: int = 1000,
) -> str:
    """A digest of all targets and of a thousand rows of features, which tells training sets apart."""
    digest = hashlib.blake2b(f"{tuple(x.shape)} {tuple(y.shape)}".encode(), digest_size=16)
    for part in (y, x[:: max(1, len(x) // rows)]):
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()


def check_finite_matrix(name: str, x: Tensor) -> Tensor:
    """Return x if it is a non-empty finite float matrix.

    Raises:
        InputError: x is not; the message calls it `name`.
    """
    require_dense(name, x)
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point():
        received = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be a float tensor of shape (rows, columns); got {received}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise InputError(f"{name} must have at least one row and one column; got shape {tuple(x.shape)}")
    # The sum is finite only if every term is (or terms overflow), and needs no temporary of x's size.
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        row = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
        raise InputError(f"{name} must be finite; row {row} holds NaN or infinity: remove or replace such rows")
    return x


def far_origin(
    x: Tensor,  # shape: (n, d)
) -> Tensor:
    """The mean of the rows if they lie far from 0 for their spread, else 0; shape (d,).

    Far from 0, |x|^2 + |z|^2 - 2 <x, z> loses the digits of the distances, which are small beside |x|. Other rows,
    8-bit images among them, are not shifted.
    """
    total, squares = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device), 0.0
    for rows in x.split(rows_at_a_time(x.shape[1])):
        part = rows.to(torch.float64, copy=True)
        total += part.sum(dim=0)
        squares += float(part.square_().sum())
    mean = total / len(x)
    spread = squares / len(x) - float(mean.square().sum())
    return (mean if float(mean.square().sum()) > 100 * spread else torch.zeros_like(mean)).to(x.dtype)
