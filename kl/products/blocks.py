"""Blocked kernel products: the one place where kernel values are computed in bulk.

No temporary is larger than a few tiles, whatever n is. On a CPU a tile fits into the cache, so that the inner products,
the kernel's formula (in place) and the product with the weights each find it there. On a GPU a tile is large enough to
keep every unit busy.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from kl.compiled.thin_products import add_thin_product, stores_columns, thin_product
from kl.kernels.kernel import Kernel
from kl.products.fused import choose, fused_matmul
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace, spans
from kl.system.huge_pages import on_huge_pages

# Values of a tile on a CPU: 4 MB in float32, and 4 MB for the int32 inner products of 8-bit features, fit into a cache.
TILE = 2**20
TILE_ON_GPU = 2**25  # values of a tile on a GPU: 128 MB in float32, enough work for every unit
LONG_SIDE = 1024  # rows of x in a tile on a CPU
# Columns to which weights are filled up with zeros for torch's product, which runs at half the speed with fewer columns
# on AVX-512 (measured, c = 10).
PADDED = 16
SUMMED = 4096  # terms of a float32 sum on a CPU; one sum of 100000 positive terms loses 1e-5 without AVX2 (measured)


def tile_shape(m: int, p: int, device: torch.device) -> tuple[int, int]:
    """Rows and columns of the tiles of an m x p kernel matrix."""
    size = TILE if device.type == "cpu" else TILE_ON_GPU
    rows = min(m, LONG_SIDE if device.type == "cpu" else m)
    columns = max(1, min(p, size // max(rows, 1)))
    return max(1, min(m, size // columns)), columns


def thin_matmul(
    a: Tensor,  # shape: (m, k)
    v: Tensor,  # shape: (k, c), of any dtype
) -> Tensor:
    """a v in the dtype of a, for a v of few columns; shape (m, c)."""
    v = v.to(a.dtype)
    if (product := thin_product(a, v)) is not None:
        return product
    if len(v) > SUMMED and _sums_lose_digits(a):
        return functools.reduce(torch.add, (thin_matmul(a[:, part], v[part]) for part in spans(len(v), SUMMED)))
    if a.stride(1) != 1 and a.stride(0) == 1 and v.shape[1] <= PADDED:
        return (v.T @ a.T).T  # a long matrix on the right and untransposed is several times faster on a CPU
    return (a @ _padded(v))[:, : v.shape[1]]


def _sums_lose_digits(values: Tensor) -> bool:
    """Whether torch adds up long products of these values one after the other, in a type that shows it."""
    return values.device.type == "cpu" and values.dtype != torch.float64


def _padded(
    v: Tensor,  # shape: (p, c)
) -> Tensor:
    """v with zero columns up to a multiple of 16 on a CPU, where torch's products of this width are faster; else v."""
    missing = -v.shape[1] % PADDED
    return torch.nn.functional.pad(v, (0, missing)) if missing and v.device.type == "cpu" else v


def kernel_matmul(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    same: Tensor | None = None,  # shape: (m,)
    workspace: Workspace | None = None,
) -> Tensor:
    """K(x, z) v without forming K.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: the m rows of evaluation.
        z: the p centres.
        v: weights, shape (p, c); converted to the dtype of the kernel values, in which the product is taken.
        same: for each row of x the index of the same row in z, -1 if z does not hold it, shape (m,) (see
            `Kernel.block`).
        workspace: memory of the tiles, for callers that multiply again and again.

    Returns:
        Tensor of shape (m, c), in the dtype of the kernel values.
    """
    c = v.shape[1]
    if choose(kernel, x, z, c).fused:
        return fused_matmul(kernel, x, z, v, same)
    v = v.to(x.dtype)
    by_columns = stores_columns(v, c)
    v = v if by_columns else _padded(v)
    out = v.new_zeros(c, len(x)).T if by_columns else v.new_zeros(len(x), v.shape[1])
    workspace = workspace or Workspace()
    height, width = tile_shape(len(x), len(z), x.data.device)
    for columns in spans(len(z), width):
        z_tile, weights = z[columns], v[columns]
        transposed = weights.T.contiguous() if by_columns else weights.T
        for rows in spans(len(x), height):
            tile = kernel.block(x[rows], z_tile, None if same is None else same[rows] - columns.start, workspace)
            if not by_columns or not add_thin_product(out[rows], tile, transposed):
                if _sums_lose_digits(v):  # addmm_ would go on with the sum of the tiles before
                    out[rows] += thin_matmul(tile, weights)
                else:
                    out[rows].addmm_(tile, weights)
    return out[:, :c]


def kernel_matrix(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    same: Tensor | None = None,  # shape: (m,)
    out: Tensor | None = None,  # shape: (m, p)
) -> Tensor:
    """K(x, z), shape (m, p), filled tile by tile, so that only the result itself is large.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: m rows.
        z: p rows.
        same: for each row of x the index of the same row in z, -1 if z does not hold it, shape (m,).
        out: where to write the result, shape (m, p); None is a new tensor.
    """
    out = on_huge_pages(x.sq_norm.new_empty(len(x), len(z))) if out is None else out
    workspace = Workspace()
    height, width = tile_shape(len(x), len(z), x.data.device)
    for rows in spans(len(x), height):
        for columns in spans(len(z), width):
            tile_same = None if same is None else same[rows] - columns.start
            out[rows, columns] = kernel.block(x[rows], z[columns], tile_same, workspace)
    return out


def symmetric_kernel_matrix(
    kernel: Kernel,
    x: Rows,  # n rows
    lower_only: bool = False,
    out: Tensor | None = None,  # shape: (n, n)
) -> Tensor:
    """K(x, x), shape (n, n), with each pair evaluated once.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: n rows.
        lower_only: do not write the upper triangle.
        out: where to write the result, shape (n, n); None is a new tensor.
    """
    n = len(x)
    out = on_huge_pages(x.sq_norm.new_empty(n, n)) if out is None else out
    workspace = Workspace()
    side = max(1, min(n, LONG_SIDE if out.device.type == "cpu" else int(TILE_ON_GPU**0.5)))
    for rows in spans(n, side):
        for columns in spans(rows.stop, side):
            same = torch.arange(rows.stop - rows.start, device=out.device) if rows == columns else None
            tile = kernel.block(x[rows], x[columns], same, workspace)
            out[rows, columns] = tile
            if not lower_only and rows != columns:
                out[columns, rows] = tile.T
    return out
