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
from kl.engine import kernel_matmul, kernel_matrix
from kl.kernels.base import Kernel
from kl.rkhs.streaming import norm_increment
from kl.rows import Rows


class FittedValues(nn.Module):
    """f(X) on the n training rows and |f_k|_H^2 for each output, exact after every step.

    Args:
        n: training rows.
        s: subsample rows, the first s of the training rows.
        c: outputs.
    """

    values: Tensor
    pending: Tensor
    sq_norm: Tensor

    def __init__(self, n: int, s: int, c: int) -> None:
        super().__init__()
        # f(X) without the pending part, shape: (n, c)
        self.register_buffer("values", torch.zeros(n, c, dtype=torch.float64))
        # subsample weights whose effect on f(X) is still to be added, shape: (s, c)
        self.register_buffer("pending", torch.zeros(s, c, dtype=torch.float64))
        # |f_k|_H^2, shape: (c,)
        self.register_buffer("sq_norm", torch.zeros(c, dtype=torch.float64))
        self._kernel: Kernel | None = None

    def attach(
        self,
        kernel: Kernel,
        centers: Rows,  # n rows
        columns: Tensor | None,  # K(X, X_S), shape: (n, s)
    ) -> None:
        """Give the kernel, the training rows and, where memory allows to keep it, K(X, X_S)."""
        self._kernel, self._centers, self._columns = kernel, centers, columns
        first = centers[: len(self.pending)]
        self._square = self.block(torch.arange(len(first), device=first.data.device))  # K(X_S, X_S)

    def block(
        self,
        rows: Tensor,  # shape: (m,)
    ) -> Tensor:
        """K(X_B, X_S), shape (m, s), read where it is kept and computed where not."""
        if self._columns is not None:
            return self._columns[rows]
        assert self._kernel is not None  # attach() has run
        return kernel_matrix(self._kernel, self._centers[rows], self._centers[: len(self.pending)], same=rows)

    def at(
        self,
        rows: Tensor,  # shape: (m,)
        block: Tensor,  # K(X_B, X_S), shape: (m, s)
    ) -> Tensor:
        """f(X_B), shape (m, c), float64."""
        return self.values[rows] + (block @ self.pending.to(block.dtype)).double()

    def advance(
        self,
        rows: Tensor,  # shape: (m,)
        block: Tensor,  # K(X_B, X_S), shape: (m, s)
        before: Tensor,  # f(X_B) before the update, shape: (m, c)
        update: Update,
    ) -> None:
        """Follow one update of the weights."""
        assert self._kernel is not None  # attach() has run
        s = len(self.pending)
        subsample = torch.arange(s, device=rows.device)
        place = torch.full((len(self.values),), -1, device=rows.device)  # where each training row stands in B
        place[rows] = torch.arange(len(rows), device=rows.device)
        swept = kernel_matmul(self._kernel, self._centers, self._centers[rows], update.batch, same=place).double()
        subsample_before = self.at(subsample, self._square)
        change_batch = swept[rows] + block @ update.subsample
        change_subsample = swept[:s] + self._square @ update.subsample
        self.sq_norm += norm_increment(update.batch, before, change_batch)
        self.sq_norm += norm_increment(update.subsample, subsample_before, change_subsample)
        self.values += swept
        self.pending += update.subsample

    def flush(self) -> Tensor:
        """f(X) on all training rows, shape (n, c), with nothing pending any more."""
        if self.pending.any():
            assert self._kernel is not None  # attach() has run
            if self._columns is not None:
                added = self._columns @ self.pending.to(self._columns.dtype)
            else:
                s = len(self.pending)
                same = torch.arange(len(self.values), device=self.values.device)
                added = kernel_matmul(self._kernel, self._centers, self._centers[:s], self.pending, same=same)
            self.values += added.double()
            self.pending.zero_()
        return self.values

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the state, to go back to with `load_state_dict`."""
        return {name: value.clone() for name, value in self.state_dict().items()}
