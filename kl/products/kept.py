"""K(X, X) of the training rows: the kept rows are read from memory, the others are computed in every product."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.compiled.thin_products import IndexedRows
from kl.distributed.ranks import Batch, Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import TILE, kernel_matmul, kernel_matrix, symmetric_kernel_matrix, thin_matmul
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace, spans
from kl.system.huge_pages import on_huge_pages

FILLED = 4096  # rows of K whose features several ranks gather and compute at a time; bounds the gathered copy


class KernelMatrix:
    """K(X, X_r), the columns of K(X, X) at the rows X_r that this rank owns; with one rank, all columns.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: X_r, n_r rows.
        n: rows of all ranks; None is n_r, for one rank.
        ranks: the ranks that share the rows; None is one rank.

    Attributes:
        kept: the first k rows of K(X, X_r), shape (k, n_r), k from 0 to n.
    """

    def __init__(self, kernel: Kernel, rows: Rows, n: int | None = None, ranks: Ranks | None = None) -> None:
        self.kernel, self.rows, self.ranks = kernel, rows, ranks or Ranks()
        self._n = len(rows) if n is None else n
        self.kept = rows.sq_norm.new_empty(0, len(rows))
        self._workspace = Workspace()

    def __len__(self) -> int:
        return self._n

    def keep(self, count: int) -> None:
        """Compute the first `count` rows and keep them; with one rank, each pair among these rows is evaluated once."""
        if count == len(self.kept):
            return
        self.kept = self.rows.sq_norm.new_empty(0, len(self.rows))  # frees the rows that were kept before
        self.kept = on_huge_pages(self.rows.sq_norm.new_empty(count, len(self.rows)))
        if self.ranks.size > 1:
            self._keep_of_all(count)
            return
        first = self.rows[:count]
        symmetric_kernel_matrix(self.kernel, first, out=self.kept[:, :count])
        if count < len(self):
            kernel_matrix(self.kernel, first, self.rows[count:], out=self.kept[:, count:])

    def _keep_of_all(self, count: int) -> None:
        """`keep` with several ranks, which own the rows together."""
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
        """K(X_r, X) v, shape (n_r, c), in the dtype of the kernel values; called on all ranks.

        Args:
            v: the rows of v that this rank owns, shape (n_r, c).
        """
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
        """`matmul` with several ranks, which own the rows together."""
        out = v.new_zeros(v.shape)
        for part in spans(len(self), FILLED):
            batch = Batch(torch.arange(part.start, part.stop, device=v.device), self.ranks)
            self.add_columns_product(out, batch, batch.all_gather(v[batch.local]))
        return out

    def begin_features(self, batch: Batch) -> Callable[[], tuple[Batch, Rows]]:
        """Start to gather what `add_columns_product` needs: the batch's rows that are not kept, and their features.

        The returned function waits for them. The caller may do other work meanwhile.
        """
        k = len(self.kept)
        if k == len(self):
            return lambda: (batch, self.rows[:0])  # `add_columns_product` reads all of K and uses neither
        rest = batch if k == 0 else Batch(batch.positions[batch.positions >= k], self.ranks)
        features = rest.begin_all_gather_rows(self.rows)
        return lambda: (rest, features())

    def add_columns_product(
        self,
        out: Tensor,  # shape: (n_r, c)
        batch: Batch,  # m rows
        w: Tensor,  # shape: (m, c)
        features: Callable[[], tuple[Batch, Rows]] | None = None,
    ) -> None:
        """out += K(X_r, X_B) w.

        Args:
            out: floats of any type, shape (n_r, c).
            batch: B, m rows.
            w: shape (m, c).
            features: what `begin_features` returned; None gathers the features now.
        """
        k = len(self.kept)
        if k == len(self):
            self._add_read(out, batch.positions, w)
            return
        rest, rows = (features or self.begin_features(batch))()
        if k:
            inside = batch.positions < k
            self._add_read(out, batch.positions[inside], w[inside])
            w = w[~inside]
        same = torch.full((len(self.rows),), -1, device=w.device)  # the place of each of our rows in the batch
        same[rest.local] = torch.arange(rest.local_slice.start, rest.local_slice.stop, device=w.device)
        out += kernel_matmul(self.kernel, self.rows, rows, w, same, self._workspace)

    def _add_read(self, out: Tensor, positions: Tensor, w: Tensor) -> None:
        """out += K(X_r, X_B) w with kept rows of K, which is symmetric; torch copies a few at a time into cache."""
        n, w = len(self.rows), w.to(self.kept.dtype)
        kept = IndexedRows.of(self.kept, positions, w.shape[1])
        if kept is not None:
            if out.T.is_contiguous() and out.dtype in (torch.float32, torch.float64):
                kept.add_t_product(out, w)
            else:
                out += kept.t_matmul(w)
            return
        step = max(1, TILE // n) if w.device.type == "cpu" else max(1, len(positions))
        buffer = self._workspace.take(min(step, max(1, len(positions))), n, self.kept, self.kept.dtype)
        found = w.new_zeros(w.shape[1], n)
        for part in spans(len(positions), step):
            rows = torch.index_select(self.kept, 0, positions[part], out=buffer[: len(positions[part])])
            found.addmm_(w[part].T, rows)
        out += found.T
