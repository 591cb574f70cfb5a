"""The steps of EigenPro 3 and 4, with the guard against divergence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.eigenpro.divergence import LossGuard
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.preconditioner import Preconditioner
from kl.general.optimizer import ProjectedEigenPro
from kl.general.projection import Projection
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, thin_matmul
from kl.rows.rows import Rows


class ProjectedRun:
    """Fits f(x) = sum_j alpha_j K(x, z_j) on centres z_1..z_p to batches of any rows, by `ProjectedEigenPro`.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        centers: the centres of this rank.
        alpha: the weights of this rank, shape (p_r, c), float64, which the run changes in place.
        plan: m, eta and the estimates they follow from.
        preconditioner: E and D, on the first s centres.
        projection: solves K(Z, Z) theta = h.
        period: T, steps between two projections.
        ranks: the ranks that share the centres.

    Attributes:
        step_size: eta after any cuts, without the decay.
        optimizer: the `ProjectedEigenPro`.
        guard: the `LossGuard`.
        changed: whether the weights have changed since a reader of them, such as the machine's norm, set this to False.
        last_batch: f(X_B) before the last step and Y_B, each of shape (m, c); None before the first step.

    Source: Abedsoltan, Belkin, Pandit 2023, arXiv:2302.02605 and Abedsoltan, Ma, Pandit, Belkin 2024, arXiv:2411.16658.
    """

    def __init__(
        self,
        kernel: Kernel,
        centers: Rows,
        alpha: Tensor,  # shape: (p_r, c)
        plan: EigenProPlan,
        preconditioner: Preconditioner,
        projection: Projection,
        period: int,
        ranks: Ranks,
    ) -> None:
        self.kernel, self.centers, self.alpha = kernel, centers, alpha
        self.projection, self.ranks = projection, ranks
        self.guard = LossGuard(alpha)
        self.epoch, self.changed = 0, False
        self.last_batch: tuple[Tensor, Tensor] | None = None
        self.go_on_with(plan, preconditioner, period, plan.step_size)

    def go_on_with(self, plan: EigenProPlan, preconditioner: Preconditioner, period: int, step_size: float) -> None:
        """Continue with the parameters of an earlier run on the same subsample."""
        self.plan, self.step_size = plan, step_size
        self.optimizer = ProjectedEigenPro(
            self.alpha,
            self.kernel,
            preconditioner,
            self.projection,
            lr=plan.step_size,
            batch_size=plan.batch_size,
            projection_period=period,
            ranks=self.ranks,
        )

    def start_epoch(self, epoch: int = 0) -> None:
        """Remember the state that a diverging epoch goes back to; `epoch` is its number, for messages."""
        self.epoch = epoch
        self.guard.remember()

    @torch.no_grad()
    def step(
        self,
        x: Rows,  # m rows
        y: Tensor,  # shape: (m, c)
        share: float = 1.0,
        apply: Callable[..., None] | None = None,
    ) -> Tensor:
        """One step on a batch, the same on all ranks; returns f(X_B) before the step, shape (m, c).

        Args:
            x: the batch.
            y: its targets.
            share: the share of the step size that the decay leaves.
            apply: a function that calls `optimizer.step` with its arguments, such as the step of Lightning's wrapper,
                which counts the steps; None is `optimizer.step`.

        Raises:
            DivergenceError: training still diverges after `MAX_STEP_CUTS` cuts of the step size.
        """
        self.changed = True
        block = kernel_matrix(self.kernel, x, self.centers)
        values = self._values(x, block)
        if self.guard.loss_exploded(values - y, y):
            self._recover()
            values = self._values(x, block)
        self.optimizer.param_groups[0]["lr"] = self.step_size * share
        (apply or self.optimizer.step)(x=x, residual=values - y, block=block)
        self.last_batch = values, y
        return values

    def _values(
        self,
        x: Rows,  # m rows
        block: Tensor,  # K(X_B, Z_r), shape: (m, p_r)
    ) -> Tensor:
        """f(X_B), temporary centres included, shape (m, c)."""
        return self.ranks.all_reduce_sum(thin_matmul(block, self.alpha.detach()) + self.optimizer.temporary_values(x))

    def end_epoch(self) -> None:
        """Project the temporary centres, and go back to the start of the epoch if it diverged.

        Raises:
            DivergenceError: training still diverges after `MAX_STEP_CUTS` cuts of the step size.
        """
        self.changed = True
        self.optimizer.project()
        if self.guard.epoch_diverged():
            self._recover()

    def _recover(self) -> None:
        self.step_size = self.guard.recover(self.step_size, self.epoch, self.plan.optimal_step_size)
        self.optimizer.clear()
