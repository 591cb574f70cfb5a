"""Gradients in x of f(x) = sum_j v_j K(x, z_j), in blocks, from closed forms (`kl.kernels.gradients`).

`kl.products.differentiable` finds the same gradients of any kernel by autograd, at the cost of one backward pass an
output. Here c outputs cost one kernel block and one product with a right side of c (d + 1) columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kl.kernels.gradients import Gradients, Totals
from kl.kernels.kernel import Kernel
from kl.products.blocks import tile_shape
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace, rows_at_a_time, spans


def mean_row(
    z: Rows,  # p rows
) -> Tensor:
    """The mean of the rows, summed in float64, in the dtype of the kernel values; shape (d,)."""
    total = torch.zeros(z.data.shape[1], dtype=torch.float64, device=z.data.device)
    for rows in z.data.split(rows_at_a_time(z.data.shape[1])):
        total += rows.sum(dim=0, dtype=torch.float64)
    return (total / len(z)).to(z.dtype)


def gradient_matmul(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    same: Tensor | None = None,  # shape: (m,)
    origin: Tensor | None = None,  # shape: (d,)
    columns: int | None = None,
) -> Tensor:
    """sum_j v_jk grad_x K(x_i, z_j), shape (m, c, d), in the dtype of the kernel values.

    The temporaries are a few tiles of K and c (d + 1) numbers for each row of x and for each column of a tile.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: the m rows at which gradients are taken.
        z: the p centres.
        v: weights, shape (p, c).
        same: for each row of x the index of the same row in z, -1 if z does not hold it, shape (m,).
        origin: `mean_row` of z, for callers that have it.
        columns: centres of a tile at most, which bounds its right side.

    Raises:
        InputError: the kernel does not define its gradient; the message names the method to define.
    """
    v = v.to(x.dtype)
    totals = Totals(len(x), v.shape[1], mean_row(z) if origin is None else origin)
    for rows, span, gradients in _tiles(kernel, x, z, same, columns):
        gradients.add_products(v[span], totals[rows])
    return totals.finish(x.data.to(x.dtype))


def gradient_row_matmul(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    signs: Tensor,  # shape: (m, k, c), of any dtype
    same: Tensor | None = None,  # shape: (m,)
    origin: Tensor | None = None,  # shape: (d,)
) -> Tensor:
    """The gradient at x_i of sum_o signs_iko f_o, shape (m, k, d): at each row k combinations of the c outputs.

    Each combination costs one product with the c columns of v and one with d + 1 columns, so that c d never appears.
    Arguments and errors are those of `gradient_matmul`.
    """
    v, signs = v.to(x.dtype), signs.to(x.dtype)
    totals = Totals(len(x), signs.shape[1], mean_row(z) if origin is None else origin)
    for rows, span, gradients in _tiles(kernel, x, z, same):
        for k in range(signs.shape[1]):
            gradients.add_row_products(signs[rows, k] @ v[span].T, totals[rows], k)
    return totals.finish(x.data.to(x.dtype))


def gradient_sum(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    u: Tensor,  # shape: (m,)
    same: Tensor | None = None,  # shape: (m,)
    origin: Tensor | None = None,  # shape: (d,)
) -> Tensor:
    """sum_i u_i grad f_k(x_i) for f_k(x) = sum_j v_jk K(x, z_j), shape (c, d), in float64.

    The cost is that of about one kernel product for any c. Arguments and errors are those of `gradient_matmul`.
    """
    origin, u, v = mean_row(z) if origin is None else origin, u.to(x.dtype), v.to(x.dtype)
    out = torch.zeros(v.shape[1], x.data.shape[1], dtype=torch.float64, device=x.data.device)
    for rows, span, gradients in _tiles(kernel, x, z, same):
        out += v[span].T @ gradients.over_rows(u[rows], origin)
    return out


def _tiles(
    kernel: Kernel, x: Rows, z: Rows, same: Tensor | None, columns: int | None = None
) -> Iterator[tuple[slice, slice, Gradients]]:
    workspace = Workspace()
    height, width = tile_shape(len(x), len(z), x.data.device)
    for span in spans(len(z), min(width, columns or width)):
        for rows in spans(len(x), height):
            tile_same = None if same is None else same[rows] - span.start
            yield rows, span, kernel.gradients(x[rows], z[span], tile_same, workspace)
