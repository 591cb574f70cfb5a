"""Features as 8-bit integers, whose inner products an int8 matrix unit computes exactly and several times faster.

Images hold 8-bit pixels. Scaled to [0, 1], shifted by a mean and divided by a standard deviation, or normalised row by
row, the pixels are still x_i = r_i k_i + b_i with integers k_i in 0..255, so that

    <x_i, z_j> = r_i r_j <k_i, k_j> + r_i b_j S_i + b_i r_j S_j + d b_i b_j        with S_i = sum of k_i

and, if all rows share r and b, |x_i - z_j|^2 = r^2 (|k_i|^2 + |k_j|^2 - 2 <k_i, k_j>). Sums of integers lose nothing.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.rows.flip import flipped
from kl.rows.workspace import Workspace, rows_at_a_time, take_rows

log = logging.getLogger(__name__)

LEVELS = 255  # the largest k
OFFSET = 128  # int8 holds k - 128
MIN_FEATURES = 32  # with fewer features int8 products are no faster
MAX_FEATURES = 2**15  # with more features |k|^2 <= 255^2 d could overflow int32
MULTIPLE = 16  # features; matrix units need a multiple of 16, so zeros fill up the rows
# Rows that are examined first, at most so many values of them, so that data that is not 8-bit costs next to nothing.
SAMPLE, SAMPLE_VALUES = 64, 2**18
CANCELLATION = 32  # times |x|^2 that r^2 |k|^2 may be, because float32 loses the digits that cancel between them
# Times the seconds of a float32 product: without a matrix unit int8 products are slower than this, on a busy machine
# with a matrix unit they are not.
MAX_SLOWDOWN = 4

PER_ROW = ("values", "sums", "squares", "centred", "scale", "shift")  # the tensors of Codes, one row per row of x


@dataclass(frozen=True)
class Codes:
    """The integers k of x_i = r_i k_i + b_i, and what inner products and distances need beside them."""

    values: Tensor  # k - 128, int8, shape: (n, d filled up to a multiple of 16)
    sums: Tensor  # S_i = sum of k_i, int32, shape: (n,)
    squares: Tensor  # |k_i|^2, int32, shape: (n,)
    centred: Tensor  # |k_i - 128|^2, int32, shape: (n,)
    scale: Tensor  # r_i, float64, shape: (n,)
    shift: Tensor  # b_i, float64, shape: (n,)
    grid: tuple[float, float] | None  # (r, b) if all rows share them, else None

    def __getitem__(self, index: slice | Tensor) -> Codes:
        return Codes(**{name: take_rows(getattr(self, name), index) for name in PER_ROW}, grid=self.grid)

    def flipped(self, shape: Sequence[int], axes: Sequence[int]) -> Codes:
        """The rows with some axes reversed, where a row is seen as a tensor of a shape with d elements."""
        values, d = torch.empty_like(self.values), math.prod(shape)
        values[:, d:] = self.values[:, d:]
        values[:, :d] = flipped(self.values[:, :d], shape, axes)
        return replace(self, values=values)

    @classmethod
    def cat(cls, parts: Sequence[Codes]) -> Codes:
        """The rows of several sets, one after the other; the grid is kept if all sets share it."""
        grid = parts[0].grid if all(part.grid == parts[0].grid for part in parts) else None
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in PER_ROW}, grid=grid)

    def decode(self, d: int, dtype: torch.dtype) -> Tensor:
        """The rows x_i = r_i k_i + b_i, shape (n, d), equal to the encoded rows within a few units of rounding."""
        k = self.values[:, :d].to(dtype).add_(OFFSET)
        return k.mul_(self.scale.to(dtype)[:, None]).add_(self.shift.to(dtype)[:, None])

    def sq_norm(self, d: int, dtype: torch.dtype) -> Tensor:
        """|x_i|^2, shape (n,); to the bit what `inner` gives for a row with itself, if all rows share a grid."""
        if self.grid is None:
            r, b, sums = self.scale, self.shift, self.sums.double()
            return (r * r * self.squares.double() + 2 * r * b * sums + d * b * b).to(dtype)
        linear = self.linear(d, dtype)
        square = self.squares.to(dtype).mul_(self.grid[0] ** 2)
        return square if linear is None else square.add_(linear).add_(linear)

    def linear(self, d: int, dtype: torch.dtype) -> Tensor | None:
        """l_i = r b S_i + d b^2 / 2 on a grid (r, b), shape (n,), so that <x_i, x_j> = r^2 <k_i, k_j> + l_i + l_j."""
        assert self.grid is not None
        r, b = self.grid
        return None if b == 0 else (r * b * self.sums.double() + d * b * b / 2).to(dtype)

    def inner(
        self,
        other: Codes,
        d: int,
        product: Tensor,  # shape: (m, p)
        out: Tensor,  # shape: (m, p)
    ) -> Tensor:
        """Write <x_i, z_j> into `out`, and return it.

        Args:
            other: the codes of z.
            d: features.
            product: what `product` returned, shape (m, p); overwritten.
            out: floats, shape (m, p).
        """
        # From <k - 128, k' - 128> back to <k, k'>; the zeros that fill up the rows add nothing to <k - 128, k' - 128>.
        product.add_((OFFSET * self.sums - OFFSET**2 * d)[:, None]).add_((OFFSET * other.sums)[None, :])
        out.copy_(product)
        if self.grid is not None and self.grid == other.grid:
            out.mul_(self.grid[0] ** 2)
            rows, columns = self.linear(d, out.dtype), other.linear(d, out.dtype)
            return out if rows is None or columns is None else out.add_(rows[:, None]).add_(columns[None, :])
        r, b, sums = (each.to(out.dtype) for each in (self.scale, self.shift, self.sums))
        other_r, other_b, other_sums = (each.to(out.dtype) for each in (other.scale, other.shift, other.sums))
        out.mul_(r[:, None]).addcmul_(b[:, None], other_sums[None, :]).mul_(other_r[None, :])
        return out.addcmul_((r * sums + d * b)[:, None], other_b[None, :])

    def sq_dist(
        self,
        other: Codes,
        product: Tensor,  # shape: (m, p)
        out: Tensor,  # shape: (m, p)
    ) -> Tensor:
        """Write |x_i - z_j|^2 into `out`, and return it; both sets of rows must share one grid.

        The distance is exact but for one rounding, and therefore never below 0.

        Args:
            other: the codes of z.
            product: what `product` returned, shape (m, p); overwritten.
            out: floats, shape (m, p).
        """
        assert self.grid is not None
        torch.add(self.centred[:, None], product, alpha=-2, out=product).add_(other.centred[None, :])
        return out.copy_(product).mul_(self.grid[0] ** 2)

    def product(self, other: Codes, workspace: Workspace) -> Tensor:
        """<k_i - 128, k_j - 128>, int32, shape (m, p), exact; in `workspace` on a CPU."""
        return int8_product(self.values, other.values, workspace)


def encode(
    x: Tensor,  # shape: (n, d)
    like: Codes | None = None,
) -> Codes | None:
    """The codes of x; None if x is not 8-bit, or if the device's int8 products are inexact or slow.

    x counts as r k + b if it differs from r k + b by no more than a few units of rounding, and if r k is not so much
    larger than x that float32 would lose in their difference what the integers keep.

    Args:
        x: features, shape (n, d).
        like: codes whose r and b are tried first. A batch that does not hold every level still gets the r and b of the
            training rows.
    """
    n, d = x.shape
    if not (
        n
        and MIN_FEATURES <= d <= MAX_FEATURES
        and x.dtype in (torch.float32, torch.float64)
        and int8_is_exact(x.device)
    ):
        return None
    if like is not None and like.grid is not None:
        scale, shift = (torch.tensor(value, dtype=torch.float64, device=x.device) for value in like.grid)
        codes = _encoded(x, scale, shift, like.grid)
        if codes is not None:
            return codes
    low, high = x.min().double(), x.max().double()
    scale = _grid_step(x[: _sample(x)].flatten().double().sort()[0], low, high)
    codes = _encoded(x, scale, low, (float(scale), float(low)))
    return codes if codes is not None else _encode_each_row(x)


def _encode_each_row(
    x: Tensor,  # shape: (n, d)
) -> Codes | None:
    """The codes of x on a grid of its own for each row, None if a row fits no grid."""
    for rows in (x[: _sample(x)], x):  # sorting all rows takes seconds; most data that is not 8-bit ends at the first
        low, high = rows.amin(dim=1).double(), rows.amax(dim=1).double()
        parts = [_grid_step(part.sort(dim=1)[0].double(), *ends) for part, *ends in _chunks(rows, low, high)]
        codes = _encoded(rows, torch.cat(parts), low, None)
        if codes is None:
            return None
    return codes


def _grid_step(
    ordered: Tensor,  # values in increasing order, shape: (..., k)
    low: Tensor,  # shape: (...)
    high: Tensor,  # shape: (...)
) -> Tensor:
    """The step of the grid that each row of values seems to lie on, a whole fraction of high - low; shape (...)."""
    gaps = ordered.diff(dim=-1)
    span = high - low
    gap = torch.where(gaps > span[..., None] / (2 * LEVELS), gaps, torch.inf).amin(dim=-1)
    steps = (span / gap).round().clamp(1, LEVELS)
    return torch.where(span > 0, span / steps, 1.0)


def _encoded(x: Tensor, scale: Tensor, shift: Tensor, grid: tuple[float, float] | None) -> Codes | None:
    """The codes of x on given grids (one for all rows, or one per row); None if the rows do not fit."""
    n, d = x.shape
    scale, shift = scale.expand(n), shift.expand(n)
    values = torch.zeros(n, -(-d // MULTIPLE) * MULTIPLE, dtype=torch.int8, device=x.device)
    sums, squares, centred = (torch.zeros(n, dtype=torch.int32, device=x.device) for _ in range(3))
    start = 0
    for part, r, b in _chunks(x, scale[:, None], shift[:, None]):
        part = part.double()
        k = ((part - b) / r).round_()
        # x was rounded two or three times on the way from pixel to feature, each time by half an eps of |x|.
        near = 4 * torch.finfo(x.dtype).eps * part.abs().amax(dim=1, keepdim=True)
        fits = ((k >= 0) & (k <= LEVELS) & ((k * r + b - part).abs() <= near)).all() & (near < 1e-2 * r).all()
        if not fits:
            return None
        rows = slice(start, start + len(part))
        values[rows, :d] = (k - OFFSET).to(torch.int8)
        sums[rows], squares[rows] = k.sum(dim=1).int(), k.square().sum(dim=1).int()
        centred[rows] = (k - OFFSET).square_().sum(dim=1).int()
        start += len(part)
    squared = scale.square() * squares.double()
    norms = squared + 2 * scale * shift * sums.double() + d * shift.square()
    if squared.max() > CANCELLATION * norms.mean():
        return None
    return Codes(values, sums, squares, centred, scale, shift, grid)


def _chunks(x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Pieces of rows. The first piece is small, because most data that is not 8-bit is recognised there."""
    first, size = _sample(x), rows_at_a_time(x.shape[1])
    sizes = [min(len(x), first)] + [min(size, len(x) - i) for i in range(first, len(x), size)]
    return list(zip(*(each.split(sizes) for each in (x, *others)), strict=True))


def _sample(x: Tensor) -> int:
    """Rows of the first piece."""
    return max(1, min(SAMPLE, SAMPLE_VALUES // x.shape[1]))


def int8_is_exact(device: torch.device) -> bool:
    """Whether int8 products on this device are exact and not far slower than float32 ones; measured once."""
    return _probe(device.type, device.index)


@functools.lru_cache
def _probe(kind: str, index: int | None) -> bool:
    """`int8_is_exact` by one small product in both dtypes."""
    device = torch.device(kind, index) if index is not None else torch.device(kind)
    generator = torch.Generator().manual_seed(0)
    # At the extremes a unit that adds pairs in 16 bits would saturate.
    k = torch.randint(-OFFSET, OFFSET, (512, 784), generator=generator)
    k[:64, ::2], k[:64, 1::2], k[64:128] = -OFFSET, OFFSET - 1, -OFFSET
    a = k.to(device, torch.int8)
    x = a.float()
    try:
        exact = bool((_int8_product(a, a).cpu() == k @ k.T).all())
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
    else:
        if exact and seconds(lambda: _int8_product(a, a)) < MAX_SLOWDOWN * seconds(lambda: x @ x.T):
            return True
        reason = "they are slower than float32 ones" if exact else "they are not exact"
    log.info("8-bit features are multiplied in float32 on %s: int8 products are of no use here (%s)", device, reason)
    return False


def seconds(work: Callable[[], Tensor], repeats: int = 5) -> float:
    """The fastest of a few runs, after one to warm up, in seconds."""
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()[0, 0].item()  # reading a value waits for a device that works asynchronously
        best = min(best, time.perf_counter() - start)
    return best


def int8_product(
    a: Tensor,  # int8, shape: (m, k)
    b: Tensor,  # int8, shape: (p, k)
    workspace: Workspace,
) -> Tensor:
    """a b^T, int32, shape (m, p), exact where `int8_is_exact`; k is a multiple of 16; in `workspace` on a CPU."""
    return _int8_product(a, b, None if a.is_cuda else workspace.take(len(a), len(b), a, torch.int32))


def _int8_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a b^T in int32.

    CUDA needs more than 16 rows of a and a multiple of 8 rows of b, so zero rows are appended.
    """
    if not a.is_cuda:
        return torch._int_mm(a, b.T, out=out) if out is not None else torch._int_mm(a, b.T)
    m, p = len(a), len(b)
    a = torch.nn.functional.pad(a, (0, 0, 0, max(0, 17 - m)))
    b = torch.nn.functional.pad(b, (0, 0, 0, -p % 8))
    return torch._int_mm(a, b.T)[:m, :p]
