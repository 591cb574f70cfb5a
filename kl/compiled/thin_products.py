"""Products of long rows with a few columns of weights, without copies of the rows; the C++ is in thin_products.cpp."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.compiled import code_for

MOST_OUTPUTS = 32  # with more, torch's product is as fast
LEAST_LENGTH = 64  # of rows; shorter ones leave vectors of the processor empty


@dataclass(frozen=True)
class IndexedRows:
    """Some rows of a matrix, and products with them that make no copy of them.

    Args:
        code: the compiled library.
        matrix: float32, shape (k, n), each row without gaps.
        index: the rows, int64, from 0 to k - 1, shape (m,); None is all rows.
    """

    code: ctypes.CDLL
    matrix: Tensor
    index: Tensor | None = None

    @classmethod
    def of(cls, matrix: Tensor, index: Tensor, outputs: int) -> IndexedRows | None:
        """The rows, if there is compiled code for products with so many columns; None leaves them to torch.

        Raises:
            IndexError: a row is not one of 0..k-1; compiled code would read other memory.
        """
        code = code_for(matrix[:1]) if outputs <= MOST_OUTPUTS else None
        if code is None:
            return None
        index = index.long().contiguous()
        if len(index):
            low, high = map(int, index.aminmax())
            if low < 0 or high >= len(matrix):
                raise IndexError(f"index must lie in 0..{len(matrix) - 1}; got {low}..{high}")
        return cls(code, matrix, index)

    def __len__(self) -> int:
        return len(self.matrix if self.index is None else self.index)

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrix."""
        return self.matrix.dtype

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """matrix[index] v, float32, shape (m, c).

        Raises:
            IndexError: v has another number of rows.
        """
        _require_rows(v, self.matrix.shape[1])
        v = v.T.to(self.dtype).contiguous()
        return self._added("dot_rows", v, len(v), v.new_zeros(len(self), len(v)))

    def t_matmul(
        self,
        w: Tensor,  # shape: (m, c)
    ) -> Tensor:
        """matrix[index]^T w, float32, shape (n, c), a transposed view.

        Raises:
            IndexError: w has another number of rows.
        """
        _require_rows(w, len(self))
        w = w.to(self.dtype).contiguous()
        return self._added("add_rows", w, w.shape[1], w.new_zeros(w.shape[1], self.matrix.shape[1])).T

    def _added(self, function: str, operand: Tensor, outputs: int, out: Tensor) -> Tensor:
        index = None if self.index is None else self.index.data_ptr()
        getattr(self.code, function)(
            *(self.matrix.data_ptr(), self.matrix.stride(0), index, len(self)),
            *(self.matrix.shape[1], operand.data_ptr(), outputs, torch.get_num_threads(), out.data_ptr()),
        )
        return out


def _require_rows(operand: Tensor, rows: int) -> None:
    if len(operand) != rows:
        raise IndexError(f"the weights must have {rows} rows; got {len(operand)}")


def thin_product(
    a: Tensor,  # float32, shape: (m, k)
    v: Tensor,  # float32, shape: (k, c)
) -> Tensor | None:
    """a v, float32, shape (m, c), by compiled code; None leaves the product to torch.

    Rows of a without gaps are read one after the other; if only its columns have no gaps, these are read, and the
    result is a transposed view.
    """
    by_rows = a.stride(1) == 1
    lines = a if by_rows else a.T
    if v.shape[1] > MOST_OUTPUTS or not len(lines) or lines.shape[1] < LEAST_LENGTH:
        return None
    operand = (v.T if by_rows else v).contiguous()
    if (code := code_for(lines[:1], operand)) is None:
        return None
    rows = IndexedRows(code, lines)
    return rows.matmul(operand.T) if by_rows else rows.t_matmul(operand)
