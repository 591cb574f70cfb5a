"""Tiles of distances and kernel values in one pass; the C++ is in kernel_values.cpp."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor


def distances_of_integers(
    code: ctypes.CDLL,
    product: Tensor,  # int32, shape: (m, p)
    rows: Tensor,  # int32, shape: (m,)
    columns: Tensor,  # int32, shape: (p,)
    scale: float,
) -> Tensor:
    """scale (rows_i + columns_j - 2 product_ij), float32, shape (m, p), in the memory of `product`."""
    out = product.view(torch.float32)
    rows, columns = rows.contiguous(), columns.contiguous()
    code.distances_of_integers(
        *(product.data_ptr(), rows.data_ptr(), columns.data_ptr(), scale, *product.shape),
        *(torch.get_num_threads(), out.data_ptr()),
    )
    return out


def distances_of_floats(
    code: ctypes.CDLL,
    inner: Tensor,  # float32, shape: (m, p)
    rows: Tensor,  # float32, shape: (m,)
    columns: Tensor,  # float32, shape: (p,)
) -> Tensor:
    """max(rows_i - 2 inner_ij + columns_j, 0), in the memory of `inner`."""
    rows, columns = rows.float().contiguous(), columns.float().contiguous()
    code.distances_of_floats(
        inner.data_ptr(), rows.data_ptr(), columns.data_ptr(), *inner.shape, torch.get_num_threads()
    )
    return inner


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


def radial(code: ctypes.CDLL, formula: str, sq_dist: Tensor, rate: float) -> Tensor:
    """The values of a radial kernel, in the memory of the squared distances.

    Args:
        code: the library.
        formula: "gaussian" is exp(-rate s) of squared distances s, "laplacian" exp(-t) with t = rate sqrt(s),
            "matern32" (1 + t) exp(-t), "matern52" (1 + t + t^2 / 3) exp(-t).
        sq_dist: squared distances, float32, shape (m, p).
        rate: above 0.
    """
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
