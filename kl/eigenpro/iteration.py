"""The EigenPro iteration: the one place where the steps of EigenPro 2 are taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.compiled.eigenpro_step import residual_at
from kl.compiled.thin_products import IndexedRows
from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.divergence import DivergenceGuard
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.graph import StepGraph
from kl.eigenpro.optimizer import EigenPro, Update
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.preconditioner import Preconditioner
from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.rows.workspace import take_rows
from kl.system.clock import Clock


class EigenProIteration:
    """Steps of EigenPro 2 on n centres, with the fitted values, the RKHS norm and the guard against divergence.

    A step on a batch B of m rows, with the subsample S, E and D of the preconditioner and the step size eta, is

        g = f(X_B) + ridge alpha_B - Y_B
        alpha_B -= (eta / m) g
        alpha_S += (eta / m) E diag(D) E^T K(X_S, X_B) g

    alpha and the fitted values are changed in place, so they may belong to a module; they need not start from f = 0.
    `kl.EigenProRun` makes all these parts from plain tensors.

    Args:
        plan: s, q, m, eta and the ridge.
        preconditioner: E and D.
        fitted: the fitted values of the weights alpha, with the kernel matrix attached.
        alpha: weights of this rank, shape (n_r, c), float64, the subsample first.
        targets: Y in the order of alpha, shape (n_r, c); None for an iteration without a guard, whose attribute
            `targets` must be set before its steps.
        position: the index of each training row among the centres, shape (n,); None if both have the same order.
        ridges: what is added to the diagonal of K for each row, shape (n_r, 1), at most the plan's ridge; None adds the
            plan's ridge for all rows.

    Attributes:
        guard: the `DivergenceGuard`, or None.
        epoch: epochs that have ended.
        graph: replays steps on a GPU, see `StepGraph`.
        last_step: f(X_B) before the last step, the rows of B among the centres, and Y_B if the step was given targets.

    Source: Ma, Belkin 2019, arXiv:1806.06144, the EigenPro iteration in terms of the weights; the guard is ours.
    """

    targets: Tensor

    def __init__(
        self,
        plan: EigenProPlan,
        preconditioner: Preconditioner,
        fitted: FittedValues,
        alpha: Tensor,  # shape: (n_r, c)
        targets: Tensor | None = None,  # shape: (n_r, c)
        position: Tensor | None = None,  # shape: (n,)
        ridges: Tensor | None = None,  # shape: (n_r, 1)
    ) -> None:
        self.alpha, self.fitted, self.epoch = alpha, fitted, 0
        self.guard, self._ridges = None, ridges
        if targets is not None:
            ridge = plan.ridge if ridges is None else ridges
            self.guard, self.targets = DivergenceGuard(alpha, fitted, targets, ridge), targets
        self.last_step: tuple[Tensor, Tensor, Tensor | None] | None = None
        self._position = position
        self.go_on_with(plan, preconditioner)

    def go_on_with(self, plan: EigenProPlan, preconditioner: Preconditioner) -> None:
        """Continue with the plan and the preconditioner of an earlier run on the same subsample."""
        self.plan, self.preconditioner, self._in_epoch = plan, preconditioner, False
        self.optimizer = EigenPro(self.alpha, preconditioner, plan.step_size, plan.batch_size)
        self.graph = StepGraph()

    @property
    def n(self) -> int:
        """Training rows of all ranks."""
        return self.fitted.n

    @property
    def ranks(self) -> Ranks:
        """The processes that share the training rows."""
        return self.fitted.ranks

    @property
    def kernel(self) -> Kernel:
        """The kernel, with its bandwidth resolved."""
        return self.fitted.matrix.kernel

    @property
    def clock(self) -> Clock:
        """Measures "step"; within it "advance", the update of f(X); within that "sweep", its product with K."""
        return self.fitted.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self.fitted.clock = clock  # type: ignore[method-assign]

    @property
    def step_size(self) -> float:
        """The current eta, after any cuts."""
        return self.optimizer.step_size

    @step_size.setter
    def step_size(self, value: float) -> None:
        self.optimizer.step_size = value

    @property
    def cuts(self) -> int:
        """How often the step size was cut."""
        return 0 if self.guard is None else self.guard.cuts

    def start_epoch(self, epoch: int | None = None) -> None:
        """Remember the state that a diverging epoch goes back to; `step` calls this if nobody called it before.

        Args:
            epoch: its number, for messages; None is the number of epochs that have ended.
        """
        self.epoch, self._in_epoch = self.epoch if epoch is None else epoch, True
        if self.guard is not None:
            self.guard.remember()

    @torch.no_grad()
    def step(
        self,
        rows: Tensor,  # shape: (m,)
        y: Tensor | None = None,  # shape: (m, c)
        apply: Callable[..., Update | None] | None = None,
    ) -> None:
        """One step on a batch.

        Args:
            rows: row numbers of the training set, each at most once; the same on all ranks.
            y: targets of these rows; None takes the targets of the run.
            apply: a function that calls `optimizer.step` with its arguments, such as the step of Lightning's wrapper,
                which counts the steps; None is `optimizer.step`.

        Raises:
            InputError: y does not have shape (m, c).
            DivergenceError: training still diverges after `MAX_STEP_CUTS` cuts of the step size.
        """
        if not self._in_epoch:
            self.start_epoch()
        with self.clock("step"):
            apply = apply or self.optimizer.step
            if self.graph.serves(self, rows, y):
                apply(replay=lambda: self.graph.take(self, rows))
            else:
                self.take_step(rows, y, apply)

    def take_step(
        self,
        rows: Tensor,  # shape: (m,)
        y: Tensor | None = None,  # shape: (m, c)
        apply: Callable[..., Update | None] | None = None,
    ) -> None:
        """`step` operation by operation, within an epoch that has started and without gradients.

        Args:
            rows: see `step`.
            y: see `step`.
            apply: see `step`; None is the optimizer's `update`, without hooks.
        """
        fitted, places = self.fitted, rows if self._position is None else take_rows(self._position, rows)
        batch = Batch(places, self.ranks)
        target = None if y is None else self._own_rows(y, places)
        features = fitted.matrix.begin_features(batch)
        block = fitted.block(batch.local)
        before = fitted.at(batch.local, block)
        residual, errors = self._residual(batch.local, block, before, target)
        if self.guard is not None and self.guard.loss_exploded(residual, errors):
            self._recover(self.guard)
            before = fitted.at(batch.local, block)
            residual, _ = self._residual(batch.local, block, before, target)
        update = (apply or self.optimizer.update)(batch=batch, residual=residual, block=block)
        assert update is not None  # there is a batch
        with self.clock("advance"):
            fitted.advance(batch, update, features)
        self.mark_step(before, batch.local, target)

    def mark_step(self, values: Tensor, local: Tensor, y: Tensor | None) -> None:
        """Remember the batch of the step that was taken, and that the norm is no longer that of the weights."""
        self.fitted.weights_changed(self.alpha.detach())
        self.last_step = values, local, y

    @property
    def last_batch(self) -> tuple[Tensor, Tensor] | None:
        """f(X_B) before the last step and Y_B, each of shape (m_r, c); None before the first step."""
        if self.last_step is None:
            return None
        values, local, target = self.last_step
        return values.clone(), take_rows(self.targets, local) if target is None else target

    def _own_rows(
        self,
        y: Tensor,  # shape: (m, c)
        places: Tensor,  # shape: (m,)
    ) -> Tensor:
        """The targets of this rank's rows of a batch, shape (m_r, c)."""
        wanted = (len(places), self.alpha.shape[1])
        if y.shape != wanted:
            raise InputError(
                f"y must have a row of targets for each row of the batch, shape {wanted}; got {tuple(y.shape)}"
            )
        return y.to(self.alpha.device)[places % self.ranks.size == self.ranks.rank]

    def _residual(
        self,
        local: Tensor,  # rows of this rank, shape: (m_r,)
        block: Tensor | IndexedRows,  # K(X_B, X_S), shape: (m_r, s)
        values: Tensor,  # f(X_B), shape: (m_r, c)
        y: Tensor | None,  # shape: (m_r, c); None is the run's targets
    ) -> tuple[Tensor, float | None]:
        """f(X_B) + ridge alpha_B - Y_B, shape (m_r, c), and the sum of its squares if compiled code computed both."""
        alpha = self.alpha.detach()
        if isinstance(block, IndexedRows) and y is None and self._ridges is None and self.ranks.size == 1:
            found = residual_at(block, values, self.targets, alpha, self.plan.ridge)
            if found is not None:
                return found
        residual = values - (take_rows(self.targets, local) if y is None else y)
        if self._ridges is not None:
            return residual.addcmul_(self._ridges[local], alpha[local]), None
        return (residual.add_(alpha[local], alpha=self.plan.ridge) if self.plan.ridge else residual), None

    def end_epoch(self) -> None:
        """Compare the errors over all rows with those at the start of the epoch, and go back if it diverged.

        Raises:
            DivergenceError: training still diverges after `MAX_STEP_CUTS` cuts of the step size.
        """
        if self.guard is not None and self._in_epoch and self.guard.epoch_diverged():
            self._recover(self.guard)
        self.epoch, self._in_epoch = self.epoch + 1, False

    def _recover(self, guard: DivergenceGuard) -> None:
        self.step_size = guard.recover(self.step_size, self.epoch, self.plan.optimal_step_size)

    @property
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2, shape (c,), float64, exact after every step; called on all ranks."""
        self.fitted.settle()
        return self.fitted.sq_norm

    @property
    def rkhs_norm(self) -> float:
        """|f|_H, with |f|_H^2 = sum_k |f_k|_H^2; called on all ranks."""
        return max(float(self.sq_norm_per_class.sum()), 0.0) ** 0.5
