"""K(X, X) of the training rows: read where it is kept in memory, computed where it is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.distributed.ranks import Batch, Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import TILE, kernel_matmul, kernel_matrix, symmetric_kernel_matrix, thin_matmul
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace, spans

FILLED = 4096  # rows of K that several ranks compute at a time, for which they gather features


class KernelMatrix:
    """K(X, X_r), the columns of K(X, X) at the rows that this rank owns; of one rank, all of them.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: X_r, n_r rows.
        n: rows of all ranks.
        ranks: who owns which.

    Attributes:
        kept: the first rows of K(X, X_r), shape (k, n_r), k from 0 to n.
    """

    def __init__(self, kernel: Kernel, rows: Rows, n: int | None = None, ranks: Ranks | None = None) -> None:
        self.kernel, self.rows, self.ranks = kernel, rows, ranks or Ranks()
        self._n = len(rows) if n is None else n
        self.kept = rows.sq_norm.new_empty(0, len(rows))
        self._workspace = Workspace()

    def __len__(self) -> int:
        return self._n

    def keep(self, count: int) -> None:
        """Compute the first `count` rows and keep them; one rank evaluates pairs among these once."""
        if count == len(self.kept):
            return
        self.kept = self.rows.sq_norm.new_empty(0, len(self.rows))  # lets go of what was kept before
        self.kept = self.rows.sq_norm.new_empty(count, len(self.rows))
        if self.ranks.size > 1:
            self._keep_of_all(count)
            return
        first = self.rows[:count]
        symmetric_kernel_matrix(self.kernel, first, out=self.kept[:, :count])
        if count < len(self):
            kernel_matrix(self.kernel, first, self.rows[count:], out=self.kept[:, count:])

    def _keep_of_all(self, count: int) -> None:
        """The same where the rows are other ranks', too."""
        for part in spans(count, FILLED):
            batch = Batch(torch.arange(part.start, part.stop, device=self.kept.device), self.ranks)
            features = batch.begin_all_gather_rows(self.rows)().split(batch.counts)
            for rank, rows in enumerate(features):
                first = part.start + (rank - part.start) % self.ranks.size
                same = batch.local if rank == self.ranks.rank else None
                kernel_matrix(self.kernel, rows, self.rows, same, out=self.kept[first : part.stop : self.ranks.size])

    def matmul(
        self,
        v: Tensor,  # shape: (n_r, c)
    ) -> Tensor:
        """K(X_r, X) v, of which every rank gives its rows, shape (n_r, c), in the dtype of the kernel values."""
        k, v = len(self.kept), v.to(self.rows.dtype)
        if self.ranks.size > 1:
            return self._matmul_of_all(v)
        out = v.new_empty(v.shape)
        out[:k] = thin_matmul(self.kept, v)
        if k < len(self):
            same = torch.arange(k, len(self), device=v.device)
            out[k:] = kernel_matmul(self.kernel, self.rows[k:], self.rows, v, same, self._workspace)
        return out

    def _matmul_of_all(
        self,
        v: Tensor,  # shape: (n_r, c)
    ) -> Tensor:
        """The same where the rows are other ranks', too."""
        out = v.new_zeros(v.shape)
        for part in spans(len(self), FILLED):
            batch = Batch(torch.arange(part.start, part.stop, device=v.device), self.ranks)
            out += self.columns_matmul(batch, batch.all_gather(v[batch.local]))
        return out

    def begin_features(self, batch: Batch) -> Callable[[], tuple[Batch, Rows]]:
        """Start to gather what `columns_matmul` needs: the rows that are not kept, and their features."""
        k = len(self.kept)
        if k == len(self):
            return lambda: (batch, self.rows[:0])  # which it does not ask for
        rest = batch if k == 0 else Batch(batch.positions[batch.positions >= k], self.ranks)
        features = rest.begin_all_gather_rows(self.rows)
        return lambda: (rest, features())

    def columns_matmul(
        self,
        batch: Batch,  # m rows
        w: Tensor,  # shape: (m, c)
        features: Callable[[], tuple[Batch, Rows]] | None = None,
    ) -> Tensor:
        """K(X_r, X_B) w, shape (n_r, c); `features` come from `begin_features`, if not now."""
        k = len(self.kept)
        if k == len(self):
            return self._read(batch.positions, w)
        rest, rows = (features or self.begin_features(batch))()
        if k == 0:
            return self._computed(rest, rows, w)
        inside = batch.positions < k
        return self._read(batch.positions[inside], w[inside]) + self._computed(rest, rows, w[~inside])

    def _computed(self, batch: Batch, rows: Rows, w: Tensor) -> Tensor:
        place = torch.full((len(self.rows),), -1, device=w.device)  # where each row stands in the batch
        place[batch.local] = torch.arange(batch.local_slice.start, batch.local_slice.stop, device=w.device)
        return kernel_matmul(self.kernel, self.rows, rows, w, place, self._workspace)

    def _read(self, positions: Tensor, w: Tensor) -> Tensor:
        """The rows of K, which is symmetric, a few at a time: gathered into cache and multiplied there."""
        n, w = len(self.rows), w.to(self.kept.dtype)
        step = max(1, TILE // n) if w.device.type == "cpu" else max(1, len(positions))
        buffer = self._workspace.take(min(step, max(1, len(positions))), n, self.kept, self.kept.dtype)
        out = w.new_zeros(w.shape[1], n)
        for part in spans(len(positions), step):
            rows = torch.index_select(self.kept, 0, positions[part], out=buffer[: len(positions[part])])
            out.addmm_(w[part].T, rows)
        return out.T
