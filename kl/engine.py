"""Blocked kernel products: the one place where kernel values are computed in bulk.

No temporary is larger than one tile, whatever n is; a tile is small enough for the last-level cache, so that the
distances, the kernel's formula and the product with the weights each find it there.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kl.kernels.base import Kernel
from kl.rows import Rows

TILE_ROWS = 2048
TILE_COLUMNS = 1024  # 2048 x 1024 float32 is 8 MB; narrower tiles starve the matmul, wider ones leave the cache


def spans(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover 0..n-1."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def kernel_matmul(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    same: Tensor | None = None,  # shape: (m,)
) -> Tensor:
    """K(x, z) v without forming K.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: the m rows to evaluate at.
        z: the p centres.
        v: weights, shape (p, c); converted to the dtype of x, in which the product is taken.
        same: the row of z that each row of x is, -1 where it is none (see `Kernel.block`).

    Returns:
        Tensor of shape (m, c), in the dtype of x.
    """
    v = v.to(x.data.dtype)
    out = v.new_zeros(len(x), v.shape[1])
    for rows in spans(len(x), TILE_ROWS):
        x_tile = x[rows]
        for columns in spans(len(z), TILE_COLUMNS):
            tile_same = None if same is None else same[rows] - columns.start
            tile = kernel.block(x_tile, z[columns], tile_same)
            out[rows].addmm_(tile, v[columns])
    return out


def kernel_matrix(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    same: Tensor | None = None,  # shape: (m,)
) -> Tensor:
    """K(x, z) as a matrix of shape (m, p), filled tile by tile so that only the result itself is large."""
    out = x.data.new_empty(len(x), len(z))
    for rows in spans(len(x), TILE_ROWS):
        out[rows] = kernel.block(x[rows], z, None if same is None else same[rows])
    return out


def kernel_matrix_lower(
    kernel: Kernel,
    x: Rows,  # n rows
) -> Tensor:
    """K(x, x) with only its lower triangle filled, shape (n, n): half the work, all that a Cholesky reads."""
    n = len(x)
    out = x.data.new_empty(n, n)
    for rows in spans(n, TILE_ROWS):
        same = torch.arange(rows.start, rows.stop, device=out.device)
        out[rows, : rows.stop] = kernel.block(x[rows], x[: rows.stop], same)
    return out
