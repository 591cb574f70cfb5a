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
        if not code.are_rows(index.data_ptr(), len(index), len(matrix)):
            raise IndexError(f"index must lie in 0..{len(matrix) - 1}; got {int(index.min())}..{int(index.max())}")
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
        """matrix[index] v, float32, shape (m, c), stored column by column.

        Raises:
            IndexError: v has another number of rows.
        """
        _require_rows(v, self.matrix.shape[1])
        v = v.T.to(self.dtype).contiguous()
        out = v.new_zeros(len(v), len(self)).T
        self.add_product(out, v)
        return out

    def add_product(
        self,
        out: Tensor,  # float32, shape: (m, c)
        v: Tensor,  # v^T, float32, shape: (c, n)
    ) -> None:
        """out += matrix[index] v, for an `out` whose columns have no gaps."""
        self.code.dot_rows(
            *self.address(), v.data_ptr(), len(v), torch.get_num_threads(), out.data_ptr(), out.stride(1)
        )

    def t_matmul(
        self,
        w: Tensor,  # shape: (m, c)
    ) -> Tensor:
        """matrix[index]^T w, float32, shape (n, c), stored column by column.

        Raises:
            IndexError: w has another number of rows, or more than `MOST_OUTPUTS` columns.
        """
        out = self.matrix.new_zeros(w.shape[1], self.matrix.shape[1]).T
        self.add_t_product(out, w)
        return out

    def add_t_product(
        self,
        out: Tensor,  # float32 or float64, shape: (n, c)
        w: Tensor,  # shape: (m, c)
    ) -> None:
        """out += matrix[index]^T w, for an `out` whose columns follow each other without gaps.

        Raises:
            IndexError: w has another number of rows, or more than `MOST_OUTPUTS` columns, or `out` does not fit.
        """
        _require_rows(w, len(self))
        if w.shape[1] > MOST_OUTPUTS:
            raise IndexError(f"the weights must have at most {MOST_OUTPUTS} columns; got {w.shape[1]}")
        adds = {torch.float32: self.code.add_rows, torch.float64: self.code.add_rows_to_doubles}
        if out.shape != (self.matrix.shape[1], w.shape[1]) or not out.T.is_contiguous() or out.dtype not in adds:
            wanted, got = (self.matrix.shape[1], w.shape[1]), f"{tuple(out.shape)} {out.dtype}"
            raise IndexError(f"out must be floats or doubles of shape {wanted}, stored column by column; got {got}")
        w = w.to(self.dtype).contiguous()
        adds[out.dtype](*self.address(), w.data_ptr(), w.shape[1], torch.get_num_threads(), out.data_ptr())

    def address(self) -> tuple[int | None, ...]:
        """The first arguments of compiled functions: address and stride of the matrix, address of the index, m, n."""
        index = None if self.index is None else self.index.data_ptr()
        return self.matrix.data_ptr(), self.matrix.stride(0), index, len(self), self.matrix.shape[1]


def _require_rows(operand: Tensor, rows: int) -> None:
    if len(operand) != rows:
        raise IndexError(f"the weights must have {rows} rows; got {len(operand)}")


def thin_product(
    a: Tensor,  # float32, shape: (m, k)
    v: Tensor,  # float32, shape: (k, c)
) -> Tensor | None:
    """a v, float32, shape (m, c), by compiled code; None leaves the product to torch.

    Rows of a without gaps are read one after the other; if only its columns have no gaps, these are read. The result is
    stored column by column.
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


def stores_columns(values: Tensor, outputs: int) -> bool:
    """Whether compiled code multiplies values of this type and device with so many columns of weights."""
    return outputs <= MOST_OUTPUTS and code_for(values[:1].flatten()) is not None


def add_thin_product(
    out: Tensor,  # float32, shape: (m, c)
    a: Tensor,  # float32, shape: (m, k)
    v: Tensor,  # v^T, float32, shape: (c, k)
) -> bool:
    """out += a v by compiled code, for an `out` whose columns have no gaps; False leaves it to torch."""
    code = code_for(a[:1], v) if a.stride(1) == 1 and out.stride(0) == 1 else None
    if code is None or (*a.shape, len(v)) != (len(out), v.shape[1], out.shape[1]):  # torch names shapes that do not fit
        return False
    IndexedRows(code, a).add_product(out, v)
    return True
