"""K(X, X) of the training rows: read where it is kept in memory, computed where it is not."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.engine import TILE, kernel_matmul, kernel_matrix, spans, symmetric_kernel_matrix, thin_matmul
from kl.kernels.base import Kernel
from kl.rows import Rows
from kl.workspace import Workspace


class KernelMatrix:
    """K(X, X), of which the first rows may be kept.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n.

    Attributes:
        kept: the rows of K that are kept, shape (k, n), k from 0 to n.
    """

    def __init__(self, kernel: Kernel, rows: Rows) -> None:
        self.kernel, self.rows = kernel, rows
        self.kept = rows.sq_norm.new_empty(0, len(rows))
        self._workspace = Workspace()

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, count: int) -> None:
        """Compute the first `count` rows and keep them; pairs among these are evaluated once."""
        if count == len(self.kept):
            return
        n = len(self)
        self.kept = self.rows.sq_norm.new_empty(0, n)  # lets go of what was kept before
        self.kept = self.rows.sq_norm.new_empty(count, n)
        first = self.rows[:count]
        symmetric_kernel_matrix(self.kernel, first, out=self.kept[:, :count])
        if count < n:
            kernel_matrix(self.kernel, first, self.rows[count:], out=self.kept[:, count:])

    def block(
        self,
        batch: Tensor,  # shape: (m,)
        s: int,
    ) -> Tensor:
        """K(X_B, X_S) for the rows `batch` and the first s rows, shape (m, s)."""
        if len(self.kept) == len(self):
            return self.kept[:, :s][batch]
        return kernel_matrix(self.kernel, self.rows[batch], self.rows[:s], same=batch)

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """K(X, X) v, shape (n, c), in the dtype of the kernel values."""
        k, v = len(self.kept), v.to(self.rows.dtype)
        out = v.new_empty(v.shape)
        out[:k] = thin_matmul(self.kept, v)
        if k < len(self):
            same = torch.arange(k, len(self), device=v.device)
            out[k:] = kernel_matmul(self.kernel, self.rows[k:], self.rows, v, same, self._workspace)
        return out

    def columns_matmul(
        self,
        batch: Tensor,  # shape: (m,)
        w: Tensor,  # shape: (m, c)
    ) -> Tensor:
        """K(X, X_B) w for the rows `batch`, each at most once; shape (n, c)."""
        k = len(self.kept)
        if k == 0:
            return self._computed(batch, w)
        if k == len(self):
            return self._read(batch, w)
        inside = batch < k
        return self._read(batch[inside], w[inside]) + self._computed(batch[~inside], w[~inside])

    def _computed(self, batch: Tensor, w: Tensor) -> Tensor:
        place = torch.full((len(self),), -1, device=batch.device)  # where each training row stands in the batch
        place[batch] = torch.arange(len(batch), device=batch.device)
        return kernel_matmul(self.kernel, self.rows, self.rows[batch], w, place, self._workspace)

    def _read(self, batch: Tensor, w: Tensor) -> Tensor:
        """The rows of K, which is symmetric, a few at a time: gathered into cache and multiplied there."""
        n, w = len(self), w.to(self.kept.dtype)
        step = max(1, TILE // n) if w.device.type == "cpu" else max(1, len(batch))
        buffer = self._workspace.take(min(step, max(1, len(batch))), n, self.kept, self.kept.dtype)
        out = w.new_zeros(w.shape[1], n)
        for part in spans(len(batch), step):
            rows = torch.index_select(self.kept, 0, batch[part], out=buffer[: len(batch[part])])
            out.addmm_(w[part].T, rows)
        return out.T
