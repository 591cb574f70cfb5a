"""Rows of a kept kernel matrix, read where they lie; the C++ is in kept_rows.cpp."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.compiled import code_for

MOST_OUTPUTS = 32  # with more, torch's product of copied rows is as fast


@dataclass(frozen=True)
class KeptRows:
    """Some rows of a matrix, and products with them that make no copy of them.

    Args:
        code: the compiled library.
        matrix: float32, shape (k, n), each row without gaps.
        index: the rows, int64, from 0 to k - 1, shape (m,).
    """

    code: ctypes.CDLL
    matrix: Tensor
    index: Tensor

    @classmethod
    def of(cls, matrix: Tensor, index: Tensor, outputs: int) -> KeptRows | None:
        """The rows, if there is compiled code for products with so many columns; None leaves them to torch."""
        code = code_for(matrix[:1]) if outputs <= MOST_OUTPUTS else None
        return None if code is None else cls(code, matrix, index.contiguous())

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrix."""
        return self.matrix.dtype

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """matrix[index] v, float32, shape (m, c)."""
        v = v.T.to(self.dtype).contiguous()
        out = v.new_empty(len(self.index), len(v))
        self._call("dot_rows", v, len(v), out)
        return out

    def t_matmul(
        self,
        w: Tensor,  # shape: (m, c)
    ) -> Tensor:
        """matrix[index]^T w, float32, shape (n, c)."""
        w = w.to(self.dtype).contiguous()
        out = w.new_zeros(w.shape[1], self.matrix.shape[1])
        self._call("add_rows", w, w.shape[1], out)
        return out.T

    def _call(self, function: str, operand: Tensor, outputs: int, out: Tensor) -> None:
        getattr(self.code, function)(
            *(self.matrix.data_ptr(), self.matrix.stride(0), self.index.data_ptr(), len(self.index)),
            *(self.matrix.shape[1], operand.data_ptr(), outputs, torch.get_num_threads(), out.data_ptr()),
        )
