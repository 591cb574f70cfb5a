"""The fitted values f(X), carried through every EigenPro step, and the RKHS norm that follows from them.

A step changes the weights on the batch B and on the subsample S, so f(X) changes by K(X, X_B) w_B + K(X, X_S) w_S. The
first product is the kernel work of the step, the same n m entries that predicting f(X_B) from scratch would need. The
second is postponed: the w_S of all steps are summed up, and their product with K(X, X_S) is added only when fitted
values are read. So each step knows f(X_B) exactly without further kernel evaluations. The training error over all rows
after an epoch needs only the product with K(X, X_S), n s kernel values if this matrix is not kept. The norm follows
from the fitted values when it is read: |f_k|_H^2 = <alpha_k, f_k(X)>. Sums are kept in float64, so that a long run does
not drift.

Several ranks share the rows (see `kl.distributed.ranks`): each rank carries f at its own rows and has all of X_S.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kl.compiled.eigenpro_step import values_at
from kl.compiled.thin_products import IndexedRows, stores_columns
from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.optimizer import Update
from kl.products.blocks import kernel_matmul, kernel_matrix, thin_matmul
from kl.products.kept import KernelMatrix
from kl.rows.rows import Rows
from kl.system.clock import Clock, untimed


class FittedValues(nn.Module):
    """f(X_r) on the training rows of this rank, and |f_k|_H^2 for each output, exact after `flush` and `settle`.

    Args:
        n: training rows of all ranks.
        s: subsample rows, the first s of the training rows.
        c: outputs.
        ranks: the ranks that share the rows.

    Attributes:
        n: training rows of all ranks.
        columns: K(X_r, X_S), shape (n_r, s), if it is kept, else None.
        clock: measures the kernel product of `advance` as "sweep".
    """

    clock: Clock = staticmethod(untimed)
    values: Tensor
    pending: Tensor
    sq_norm: Tensor
    _alpha: Tensor | None = None  # the weights of f, if sq_norm is not yet theirs, shape: (n_r, c)

    def __init__(self, n: int, s: int, c: int, ranks: Ranks | None = None) -> None:
        super().__init__()
        self.ranks = ranks or Ranks()
        self.n, own = n, self.ranks.count(n)
        # f(X_r) without the pending part, shape: (n_r, c)
        self.register_buffer("values", torch.zeros(own, c, dtype=torch.float64))
        # sum of the w_S whose effect on f(X_r) is still to be added, shape: (s, c)
        self.register_buffer("pending", torch.zeros(s, c, dtype=torch.float64))
        # |f_k|_H^2, shape: (c,)
        self.register_buffer("sq_norm", torch.zeros(c, dtype=torch.float64))
        self._matrix: KernelMatrix | None = None
        self._subsample: Rows | None = None
        self.columns: Tensor | None = None

    def attach(
        self,
        matrix: KernelMatrix,
        subsample: Rows,  # X_S, s rows
        columns: Tensor | None,  # K(X_r, X_S), shape: (n_r, s)
    ) -> None:
        """Set the kernel matrix, the subsample and K(X_r, X_S), which is None if it is not kept."""
        self._matrix, self._subsample, self.columns = matrix, subsample, columns
        if stores_columns(matrix.rows.sq_norm, self.values.shape[1]):  # as the kernel products that are added to them
            for name in ("values", "pending"):
                setattr(self, name, getattr(self, name).T.contiguous().T)

    def keep_rows(self, count: int) -> None:
        """Compute the first `count` rows of K(X, X) and keep them for the steps that follow."""
        whole = self.n if self.ranks.size == 1 else None
        if whole in (count, len(self.matrix.kept)):
            self.columns = None  # a part of the rows that will be kept, or that are freed now
        self.matrix.keep(count)
        if count == whole:
            self.columns = self.matrix.kept[:, : len(self.pending)]

    def release_rows(self) -> None:
        """Free the kept rows of K(X, X), and `columns` if they are a part of them; `keep_rows` computes them again."""
        self.flush()
        self.keep_rows(0)

    @property
    def matrix(self) -> KernelMatrix:
        """K(X, X_r)."""
        assert self._matrix is not None  # attach() has run
        return self._matrix

    @property
    def subsample(self) -> Rows:
        """X_S."""
        assert self._subsample is not None  # attach() has run
        return self._subsample

    def block(
        self,
        local: Tensor,  # rows of this rank, shape: (m_r,)
    ) -> Tensor | IndexedRows:
        """K(X_B, X_S) for rows of this rank, shape (m_r, s), read if it is kept, else computed."""
        if self.columns is not None:
            kept = IndexedRows.of(self.columns, local, self.pending.shape[1])
            return self.columns[local] if kept is None else kept
        return self._computed(local)

    def _computed(self, local: Tensor) -> Tensor:
        same = local * self.ranks.size + self.ranks.rank
        return kernel_matrix(self.matrix.kernel, self.matrix.rows[local], self.subsample, same)

    def at(
        self,
        local: Tensor,  # rows of this rank, shape: (m_r,)
        block: Tensor | IndexedRows,  # K(X_B, X_S), shape: (m_r, s)
    ) -> Tensor:
        """f(X_B) for rows of this rank, shape (m_r, c), float64."""
        if not isinstance(block, IndexedRows):
            return self.values[local] + thin_matmul(block, self.pending)
        found = values_at(block, self.values, self.pending)
        return self.values[local] + block.matmul(self.pending) if found is None else found

    def advance(self, batch: Batch, update: Update, features: Callable[[], tuple[Batch, Rows]] | None = None) -> None:
        """Add the effect of one update of the weights to the fitted values; `weights_changed` must follow.

        Args:
            batch: B.
            update: the weights that the update added.
            features: what `matrix.begin_features` returned; None gathers the features now.
        """
        with self.clock("sweep"):
            self.matrix.add_columns_product(self.values, batch, update.batch, features)  # K(X_r, X_B) w_B
        self.pending.add_(update.subsample)

    def weights_changed(
        self,
        alpha: Tensor,  # the weights of f, shape: (n_r, c)
    ) -> None:
        """Leave `sq_norm` to `settle`, which takes it from these weights."""
        if self._alpha is None or self._alpha.data_ptr() != alpha.data_ptr():  # a module's attributes are slow to set
            self._alpha = alpha

    def become(
        self,
        values: Tensor,  # f(X_r), shape: (n_r, c)
        alpha: Tensor,  # its weights, shape: (n_r, c)
    ) -> None:
        """Take another f."""
        self.values.copy_(values)
        self.pending.zero_()
        self._alpha = alpha
        self.settle()

    def flush(self) -> Tensor:
        """f(X_r) on all training rows of this rank, shape (n_r, c), after the pending product is added."""
        if self.pending.any():
            if self.columns is not None:
                kept, s = self.matrix.kept, len(self.pending)
                # K(X_S, X) of a matrix that is kept as a whole is read along its rows, which is twice as fast.
                whole = self.ranks.size == 1 and len(kept) == self.n
                added = thin_matmul(kept[:s].T if whole else self.columns, self.pending)
            else:
                same = self.ranks.positions(self.n, self.values.device)
                added = kernel_matmul(self.matrix.kernel, self.matrix.rows, self.subsample, self.pending, same)
            self.values.add_(added)
            self.pending.zero_()
        self.settle()
        return self.values

    def settle(self) -> None:
        """Bring `sq_norm` up to date; call this on all ranks before reading it.

        With the pending weights p, f(X) is `values` + K(X, X_S) p, and <alpha, f(X)> = <alpha, values> + <p, f(X_S)>,
        because K(X_S, X) alpha = f(X_S).
        """
        if self._alpha is None:
            return
        found = (self._alpha * self.values).sum(dim=0)
        if self.pending.any():
            s = len(self.pending)
            own = torch.arange(self.ranks.count(s), device=self.values.device)
            square = self._computed(own) if self.columns is None else self.columns[: len(own)]  # K(X_S, X_S)
            found += (self.pending[self.ranks.local_rows(s)] * self.at(own, square)).sum(dim=0)
        self.sq_norm.copy_(self.ranks.all_reduce_sum(found))
        self._alpha = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FittedValues:
        """Torch's way to another device, also for the weights that the norm waits for."""
        self._alpha = None if self._alpha is None else fn(self._alpha)
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy keeps: the values, and no part of the kernel matrix."""
        self.settle()
        run = ("_matrix", "_subsample", "columns")
        kept = {name: value for name, value in self.__dict__.items() if name != "clock"}
        return kept | dict.fromkeys(run)

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        self.settle()
        super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._alpha = None
        super()._load_from_state_dict(*args, **options)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the state, to go back to with `load_state_dict`."""
        return {name: value.clone() for name, value in self.state_dict().items()}
