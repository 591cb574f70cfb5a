"""EigenPro 2 as a torch optimizer: preconditioned SGD in the RKHS, written in terms of the weights alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from kl.compiled.eigenpro_step import update_weights
from kl.compiled.thin_products import IndexedRows
from kl.distributed.ranks import Batch
from kl.eigenpro.preconditioner import Preconditioner
from kl.products.blocks import thin_matmul


class Update(NamedTuple):
    """The weights that one step added, on the batch and on the subsample."""

    batch: Tensor  # w_B, the rows of all ranks, shape: (m, c)
    subsample: Tensor  # w_S = E t, in the dtype of alpha, shape: (s, c)


class EigenPro(Optimizer):
    """One step on a batch B of m rows with residual g = f(X_B) - Y_B:

        alpha_B -= (eta / m) g
        alpha_S += (eta / m) E diag(D) E^T K(X_S, X_B) g

    With q = 0 the second line is absent and the step is plain kernel SGD. With a ridge g = f(X_B) + ridge alpha_B -
    Y_B, and `kl.eigenpro.preconditioner.damping_weights` gives D. The first s rows of alpha belong to the subsample S.
    With several ranks, each rank holds its own rows of alpha, and the ranks exchange m c + q c numbers in a step.

    Args:
        alpha: the weights, shape (n_r, c), a parameter or another leaf tensor; float64 keeps every small update.
        preconditioner: E and D.
        lr: the step size eta; a learning-rate scheduler or monitor sees it as the group's "lr".
        batch_size: the m that eta was chosen for. A smaller batch, such as the last of an epoch, keeps the weight
            eta / m per row, because eta divided by its own rows would exceed its edge of stability, which is lower.

    Source: Ma, Belkin 2019, arXiv:1806.06144, the EigenPro iteration in terms of the weights.

    Example:
        >>> import torch, kl
        >>> from kl.distributed.ranks import Batch, Ranks
        >>> from kl.eigenpro.preconditioner import Preconditioner
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> alpha = torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
        >>> sgd = kl.EigenPro(alpha, Preconditioner(torch.zeros(1, 0), torch.zeros(0)), lr=1.0, batch_size=2)  # q = 0
        >>> batch, block = Batch(torch.arange(2), Ranks()), kl.Gaussian(1.0)(x, x[:1])
        >>> update = sgd.step(batch=batch, residual=-y, block=block)
        >>> alpha.flatten().tolist()
        [0.5, 1.0]
    """

    def __init__(self, alpha: Tensor, preconditioner: Preconditioner, lr: float, batch_size: int) -> None:
        super().__init__([alpha], {"lr": lr, "batch_size": batch_size})
        self.preconditioner = preconditioner

    @property
    def step_size(self) -> float:
        """eta."""
        return self.param_groups[0]["lr"]

    @step_size.setter
    def step_size(self, value: float) -> None:
        self.param_groups[0]["lr"] = value

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], float] | None = None,
        *,
        batch: Batch | None = None,  # m rows, m_r of them this rank's
        residual: Tensor | None = None,  # g, this rank's rows, shape: (m_r, c)
        block: Tensor | IndexedRows | None = None,  # K(X_B, X_S), this rank's rows, shape: (m_r, s)
        replay: Callable[[], None] | None = None,
    ) -> Update | None:
        """Apply one step to the batch's rows of alpha and to the subsample.

        In place of a batch, its residual and block, `replay` takes a recorded step (see `kl.eigenpro.graph`), which
        returns no update.

        Raises:
            TypeError: there is neither a replay nor a batch with its residual and block.
        """
        if closure is not None:  # Lightning passes a closure that only runs its hooks
            with torch.enable_grad():
                closure()
        if replay is not None:
            replay()
            return None
        if batch is None or residual is None or block is None:
            raise TypeError("step needs batch, residual and block")
        return self.update(batch, residual, block)

    def update(
        self,
        batch: Batch,
        residual: Tensor,  # g, this rank's rows, shape: (m_r, c)
        block: Tensor | IndexedRows,  # K(X_B, X_S), this rank's rows, shape: (m_r, s)
    ) -> Update:
        """`step` without the hooks of torch and Lightning."""
        alpha, ranks, s = self.param_groups[0]["params"][0], batch.ranks, len(self.preconditioner.vectors)
        scale = self.step_size / max(len(batch), self.param_groups[0]["batch_size"])
        if isinstance(block, IndexedRows) and ranks.size == 1:
            own = self.preconditioner
            found = update_weights(block, own.vectors, own.weights, residual, scale, alpha)
            if found is not None:
                return Update(*found)
        residual = residual.to(block.dtype)
        weights = residual * -scale
        alpha.index_add_(0, batch.local, weights.to(alpha.dtype))
        coefficients = ranks.all_reduce_sum(self.preconditioner.coefficients(block, residual).mul_(scale))
        subsample = thin_matmul(self.preconditioner.vectors, coefficients).to(alpha.dtype)
        alpha[: ranks.count(s)] += subsample[ranks.local_rows(s)]
        return Update(batch.all_gather(weights), subsample)
