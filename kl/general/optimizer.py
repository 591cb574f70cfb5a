"""EigenPro 3 and 4 as one torch optimizer: projected, doubly preconditioned SGD for p centres and any data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from kl.distributed.ranks import Ranks
from kl.eigenpro.preconditioner import Preconditioner
from kl.general.projection import Projection
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul, thin_matmul
from kl.rows.rows import Rows


class ProjectedEigenPro(Optimizer):
    """SGD in the RKHS that projects its iterate onto span{K(., z_1), ..., K(., z_p)} every T steps.

    A step on a batch of m rows with residual g = f(X_B) - Y_B makes every row a temporary centre and adds a correction
    on the subsample Z_S, the first s centres:

        w = -(eta / m) g                                             weights of the temporary centres X_B
        alpha_S += (eta / m) E diag(D) E^T K(Z_S, X_B) g
        h += K(Z, X_B) w

    After T steps the temporary centres are projected onto the span of the centres and dropped:

        alpha += theta with K(Z, Z) theta = h

    An iterative projection starts from minus the correction that the T steps have added on the subsample. The temporary
    centres and the correction are both large on the top eigendirections, where they nearly cancel. So the error of an
    inexact projection scales with their small sum; without this start it would be large and make training diverge.

    T = 1 is EigenPro 3, which needs no temporary centres; T > 1 is EigenPro 4. The subsample consists of centres, so
    the correction lies in the span and P commutes with the projection. At T = 1 the mean of a step is therefore zero
    only at the least-squares solution. At T > 1 the batches before the next projection also see the part of each
    temporary centre outside the span, so the limit is only near that solution.

    Args:
        alpha: the weights of this rank, shape (p_r, c), float64, a parameter or another leaf tensor.
        kernel: the kernel.
        preconditioner: E and D, on the first s centres.
        projection: solves K(Z, Z) theta = h.
        lr: the step size eta; a learning-rate scheduler or monitor sees it as the group's "lr".
        batch_size: the m that eta was chosen for; smaller batches keep the weight eta / m per row.
        projection_period: T, in steps.
        ranks: the ranks that share the centres and the temporary centres.

    Attributes:
        h: K(Z_r, X) w for the rows X of the steps since the last projection, shape (p_r, c), float64.
        corrected: the correction added on the subsample since the last projection, shape (s, c), float64.

    Source: Abedsoltan, Belkin, Pandit 2023, arXiv:2302.02605 (T = 1); Abedsoltan, Ma, Pandit, Belkin
    2024, arXiv:2411.16658 (T > 1); the subsample of centres is ours.
    """

    def __init__(
        self,
        alpha: Tensor,
        kernel: Kernel,
        preconditioner: Preconditioner,
        projection: Projection,
        lr: float,
        batch_size: int,
        projection_period: int,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__([alpha], {"lr": lr, "batch_size": batch_size, "projection_period": projection_period})
        self.kernel, self.preconditioner, self.projection = kernel, preconditioner, projection
        self.ranks, vectors = ranks or Ranks(), preconditioner.vectors
        self.h = torch.zeros_like(alpha, requires_grad=False)
        self.corrected = self.h.new_zeros(len(vectors), alpha.shape[1])
        self._own = Preconditioner(vectors[self.ranks.local_rows(len(vectors))], preconditioner.weights)
        self._temporary: list[tuple[Rows, Tensor]] = []
        self._steps = 0  # since the last projection

    def temporary_values(
        self,
        x: Rows,  # m rows
    ) -> Tensor | float:
        """sum_i w_i K(x, x_i) over the temporary centres of this rank, shape (m, c); 0 if there are none."""
        return sum(kernel_matmul(self.kernel, x, rows, weights) for rows, weights in self._temporary)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], float] | None = None,
        *,
        x: Rows,  # m rows, the same on all ranks
        residual: Tensor,  # g, shape: (m, c)
        block: Tensor,  # K(X_B, Z_r), shape: (m, p_r)
    ) -> None:
        """Apply one step; every T-th step ends with a projection."""
        if closure is not None:  # Lightning passes a closure that only runs its hooks
            with torch.enable_grad():
                closure()
        group = self.param_groups[0]
        alpha, scale = group["params"][0], group["lr"] / max(len(x), group["batch_size"])
        residual = residual.to(block.dtype)
        weights = residual * -scale
        s, own_s = len(self.preconditioner.vectors), len(self._own.vectors)
        coefficients = self.ranks.all_reduce_sum(self._own.coefficients(block[:, :own_s], residual).mul_(scale))
        correction = thin_matmul(self.preconditioner.vectors, coefficients)
        alpha[:own_s] += correction[self.ranks.local_rows(s)]
        self.corrected += correction
        self.h += thin_matmul(block.T, weights)
        self._steps += 1
        if self._steps >= group["projection_period"]:
            self.project()
        else:
            own = self.ranks.positions(len(x), weights.device)
            self._append(*((x, weights) if self.ranks.size == 1 else (x[own], weights[own])))

    @torch.no_grad()
    def project(self) -> None:
        """Replace the temporary centres by weights on the centres, and start a new period."""
        if self._steps == 0:
            return
        self.param_groups[0]["params"][0] += self.projection.solve(self.h, -self.corrected)
        self.clear()

    def clear(self) -> None:
        """Drop the temporary centres, and start a new period."""
        self._temporary, self._steps = [], 0
        self.h.zero_()
        self.corrected.zero_()

    def _append(self, x: Rows, weights: Tensor) -> None:
        """Add temporary centres, and merge groups of similar size, as a binary counter does, so that few are left."""
        self._temporary.append((x, weights))
        while len(self._temporary) > 1 and len(self._temporary[-1][0]) >= len(self._temporary[-2][0]):
            (first, first_weights), (second, second_weights) = self._temporary[-2:]
            self._temporary[-2:] = [(Rows.cat([first, second]), torch.cat([first_weights, second_weights]))]
