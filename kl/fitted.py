"""The fitted values f(X) and the RKHS norm of f, carried through every EigenPro step.

A step changes the weights on the batch B and on the subsample S, so f(X) changes by K(X, X_B) w_B + K(X, X_S) w_S. The
first product is the kernel work of the step, the same n m entries that predicting f(X_B) from scratch would need. The
second is left pending (w_S is summed up) and is added where values are asked for. So each step predicts its batch
exactly, the training error over all rows is known after each epoch, and the norm after each step, without one kernel
evaluation more. Sums are kept in float64: a long run does not drift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kl.eigenpro import Update
from kl.engine import kernel_matmul, thin_matmul
from kl.matrix import KernelMatrix
from kl.rkhs.streaming import norm_increment


class FittedValues(nn.Module):
    """f(X) on the n training rows and |f_k|_H^2 for each output, exact after every step.

    Args:
        n: training rows.
        s: subsample rows, the first s of the training rows.
        c: outputs.
    """

    values: Tensor
    pending: Tensor
    pending_on_subsample: Tensor
    sq_norm: Tensor
    _vectors: Tensor

    def __init__(self, n: int, s: int, c: int) -> None:
        super().__init__()
        # f(X) without the pending part, shape: (n, c)
        self.register_buffer("values", torch.zeros(n, c, dtype=torch.float64))
        # subsample weights whose effect on f(X) is still to be added, shape: (s, c)
        self.register_buffer("pending", torch.zeros(s, c, dtype=torch.float64))
        # their effect on f(X_S), shape: (s, c)
        self.register_buffer("pending_on_subsample", torch.zeros(s, c, dtype=torch.float64))
        # |f_k|_H^2, shape: (c,)
        self.register_buffer("sq_norm", torch.zeros(c, dtype=torch.float64))
        self._matrix: KernelMatrix | None = None
        self._columns: Tensor | None = None  # K(X, X_S), shape: (n, s)
        self._square_vectors: Tensor | None = None  # K(X_S, X_S) E, shape: (s, q); made when needed

    def attach(
        self,
        matrix: KernelMatrix,
        columns: Tensor | None,  # K(X, X_S), shape: (n, s)
    ) -> None:
        """Give the kernel matrix and, where memory allows to keep it, K(X, X_S)."""
        self._matrix, self._columns = matrix, columns

    def set_basis(
        self,
        vectors: Tensor,  # E of the preconditioner, shape: (s, q)
    ) -> None:
        """Say what subsample updates are combinations of; K(X_S, X_S) E is all that is needed of K(X_S, X_S)."""
        self._vectors = vectors
        self._square_vectors = None

    def keep_rows(self, count: int) -> None:
        """Compute and keep the first rows of K(X, X), which later steps read."""
        whole = count == len(self.values)
        if whole:
            self._columns = None  # a part of the whole
        self.matrix.keep(count)
        if whole:
            self._columns = self.matrix.kept[:, : len(self.pending)]

    @property
    def matrix(self) -> KernelMatrix:
        """K(X, X)."""
        assert self._matrix is not None  # attach() has run
        return self._matrix

    def block(
        self,
        rows: Tensor,  # shape: (m,)
    ) -> Tensor:
        """K(X_B, X_S), shape (m, s), read where it is kept and computed where not."""
        return self._columns[rows] if self._columns is not None else self.matrix.block(rows, len(self.pending))

    def at(
        self,
        rows: Tensor,  # shape: (m,)
        block: Tensor,  # K(X_B, X_S), shape: (m, s)
    ) -> Tensor:
        """f(X_B), shape (m, c), float64."""
        return self.values[rows] + thin_matmul(block, self.pending)

    def advance(
        self,
        rows: Tensor,  # shape: (m,)
        before: Tensor,  # f(X_B) before the update, shape: (m, c)
        update: Update,
    ) -> None:
        """Follow one update of the weights."""
        s = len(self.pending)
        swept = self.matrix.columns_matmul(rows, update.batch)  # K(X, X_B) w_B
        if self._square_vectors is None:
            self._square_vectors = self.block(torch.arange(s, device=rows.device)) @ self._vectors
        on_subsample = thin_matmul(self._square_vectors, update.coefficients)  # K(X_S, X_S) w_S
        # The two parts one after the other: w_S comes to a function that w_B has changed already.
        self.sq_norm += norm_increment(update.batch, before, swept[rows])
        subsample_before = self.values[:s] + self.pending_on_subsample + swept[:s]
        self.sq_norm += norm_increment(update.subsample, subsample_before, on_subsample)
        self.values += swept
        self.pending += update.subsample
        self.pending_on_subsample += on_subsample

    def flush(self) -> Tensor:
        """f(X) on all training rows, shape (n, c), with nothing pending any more."""
        if self.pending.any():
            if self._columns is not None:
                added = thin_matmul(self._columns, self.pending)
            else:
                rows, s = self.matrix.rows, len(self.pending)
                same = torch.arange(len(self.values), device=self.values.device)
                added = kernel_matmul(self.matrix.kernel, rows, rows[:s], self.pending, same=same)
            self.values += added
            self.pending.zero_()
            self.pending_on_subsample.zero_()
        return self.values

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the state, to go back to with `load_state_dict`."""
        return {name: value.clone() for name, value in self.state_dict().items()}
