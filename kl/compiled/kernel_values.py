"""Tiles of distances and kernel values in one pass; the C++ is in kernel_values.cpp."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor


def of_integers(
    code: ctypes.CDLL,
    formula: str,
    product: Tensor,  # int32, shape: (m, p)
    rows: Tensor,  # int32, shape: (m,)
    columns: Tensor,  # int32, shape: (p,)
    scale: float,
    rate: float = 0.0,
) -> Tensor:
    """A formula of the distances scale (rows_i + columns_j - 2 product_ij), float32, in the memory of `product`.

    Args:
        code: the library.
        formula: one of `kl.compiled.FORMULAS`.
        product: shape (m, p).
        rows: shape (m,).
        columns: shape (p,).
        scale: above 0.
        rate: of the formula, above 0.
    """
    out = product.view(torch.float32)
    rows, columns = rows.contiguous(), columns.contiguous()
    getattr(code, f"{formula}_of_integers")(
        *(product.data_ptr(), rows.data_ptr(), columns.data_ptr(), scale, *product.shape),
        *(rate, torch.get_num_threads(), out.data_ptr()),
    )
    return out


def of_floats(
    code: ctypes.CDLL,
    formula: str,
    inner: Tensor,  # float32, shape: (m, p)
    rows: Tensor,  # float32, shape: (m,)
    columns: Tensor,  # float32, shape: (p,)
    rate: float = 0.0,
) -> Tensor:
    """A formula of the distances max(rows_i - 2 inner_ij + columns_j, 0), in their memory; see `of_integers`."""
    rows, columns = rows.float().contiguous(), columns.float().contiguous()
    getattr(code, f"{formula}_of_floats")(
        *(inner.data_ptr(), rows.data_ptr(), columns.data_ptr(), *inner.shape, rate, torch.get_num_threads()),
    )
    return inner


def add_digits(
    code: ctypes.CDLL,
    sums: Tensor,  # int32, shape: (m, p)
    out: Tensor,  # float32, shape: (m, p)
    first: bool,
    scales: tuple[Tensor, Tensor] | None = None,  # float32, shapes: (m,), (p,)
) -> None:
    """out = sums + out / 2^8, or sums alone if it is the first, times the scales of rows and columns."""
    rows, columns = (None, None) if scales is None else (each.contiguous() for each in scales)
    addresses = (None, None) if rows is None or columns is None else (rows.data_ptr(), columns.data_ptr())
    code.add_digits(sums.data_ptr(), *addresses, *sums.shape, first, torch.get_num_threads(), out.data_ptr())


def distances_of_few(
    code: ctypes.CDLL,
    x: Tensor,  # float32, shape: (m, d)
    z: Tensor,  # float32, shape: (p, d)
) -> Tensor:
    """|x_i - z_j|^2 as the sum of the squares of few differences, shape (m, p)."""
    x, columns, out = x.contiguous(), z.T.contiguous(), x.new_empty(len(x), len(z))
    code.distances_of_few(
        *(x.data_ptr(), columns.data_ptr(), len(x), len(z), x.shape[1], torch.get_num_threads(), out.data_ptr())
    )
    return out


def of_distances(code: ctypes.CDLL, formula: str, sq_dist: Tensor, rate: float) -> Tensor:
    """A formula of squared distances, float32, shape (m, p), in their memory; see `of_integers`."""
    getattr(code, formula)(sq_dist.data_ptr(), sq_dist.numel(), rate, torch.get_num_threads())
    return sq_dist


def relu(
    code: ctypes.CDLL,
    gram: Tensor,  # float32, shape: (m, p)
    x_sq: Tensor,  # float32, shape: (m,)
    z_sq: Tensor,  # float32, shape: (p,)
    depth: int,
    tangent: bool,
    bias: float,
) -> Tensor:
    """The values of a ReLU network's kernel, in the memory of the inner products."""
    x_sq, z_sq = x_sq.float().contiguous(), z_sq.float().contiguous()
    code.relu(
        *(gram.data_ptr(), x_sq.data_ptr(), z_sq.data_ptr(), *gram.shape, depth, tangent, bias**2),
        torch.get_num_threads(),
    )
    return gram
