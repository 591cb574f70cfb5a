"""Products with a few rows of a kept kernel matrix; the C++ is in kept_rows.cpp."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

MOST_OUTPUTS = 32  # with more, torch's product of copied rows is as fast


def rows_matmul(
    code: ctypes.CDLL,
    matrix: Tensor,  # float32, shape: (k, n)
    positions: Tensor,  # whole numbers, shape: (m,)
    w: Tensor,  # float32, shape: (m, c)
) -> Tensor:
    """sum_i matrix[positions_i, j] w_ik, shape (n, c), without a copy of the rows.

    Raises:
        IndexError: a position is not one of 0..k-1; compiled code would read other memory.
    """
    positions, w = positions.long().contiguous(), w.contiguous()
    if len(positions) != len(w):
        raise IndexError(f"w must have a row for each of the {len(positions)} positions; got {len(w)}")
    if len(positions):
        low, high = map(int, positions.aminmax())
        if low < 0 or high >= len(matrix):
            raise IndexError(f"positions must lie in 0..{len(matrix) - 1}; got {low}..{high}")
    out = w.new_zeros(w.shape[1], matrix.shape[1])
    code.add_rows(
        *(matrix.data_ptr(), matrix.stride(0), positions.data_ptr(), len(positions), matrix.shape[1]),
        *(w.data_ptr(), w.shape[1], torch.get_num_threads(), out.data_ptr()),
    )
    return out.T
