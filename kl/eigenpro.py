"""EigenPro 2 as a torch optimizer: preconditioned SGD in the RKHS, written in terms of the weights alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from kl.engine import thin_matmul
from kl.preconditioner import Preconditioner


class Update(NamedTuple):
    """The weights that one step added, on the batch and on the subsample."""

    batch: Tensor  # w_B, shape: (m, c)
    subsample: Tensor  # w_S = E t, shape: (s, c)
    coefficients: Tensor  # t, shape: (q, c)


class EigenPro(Optimizer):
    """One step on a batch B of m rows with residual g = f(X_B) - Y_B:

        alpha_B -= (eta / m) g
        alpha_S += (eta / m) E diag(D) E^T K(X_S, X_B) g

    With q = 0 the second line is absent and the step is plain kernel SGD. The first s rows of alpha belong to the
    subsample S.

    Args:
        alpha: the weights, a parameter of shape (n, c); float64 keeps every small update.
        preconditioner: E and D.
        lr: the step size eta; a learning-rate scheduler or monitor sees it as the group's "lr".
        batch_size: m, which eta was chosen for. A smaller batch, as the last of an epoch, keeps the weight eta / m per
            row: at eta / (its rows) it would step beyond the edge of stability, which falls with the batch.

    Source: [MB19], the EigenPro iteration in terms of the weights.
    """

    def __init__(self, alpha: torch.nn.Parameter, preconditioner: Preconditioner, lr: float, batch_size: int) -> None:
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
        rows: Tensor,  # shape: (m,)
        residual: Tensor,  # g, shape: (m, c)
        block: Tensor,  # K(X_B, X_S), shape: (m, s)
    ) -> Update:
        """Apply one step to the rows `rows` of alpha (each at most once) and to the subsample."""
        if closure is not None:  # Lightning passes one that only runs its hooks
            with torch.enable_grad():
                closure()
        alpha = self.param_groups[0]["params"][0]
        scale = self.step_size / max(len(rows), self.param_groups[0]["batch_size"])
        residual = residual.to(block.dtype)
        batch = residual * -scale
        alpha.index_add_(0, rows, batch.to(alpha.dtype))
        coefficients = self.preconditioner.coefficients(block, residual).mul_(scale)
        subsample = thin_matmul(self.preconditioner.vectors, coefficients)
        alpha[: len(subsample)] += subsample
        return Update(batch, subsample, coefficients)
