"""The exact limit of training: the minimum-norm interpolant, by a Cholesky factor or by conjugate gradients."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.checks import check_not_negative, check_positive
from kl.errors import InputError, MemoryBudgetError, SingularKernelError
from kl.exact.checkpoint import Checkpoint, solution_key
from kl.exact.cholesky import RESIDUAL_ACCEPTED, solve_direct
from kl.exact.conjugate_gradients import solve_pcg
from kl.exact.cost import PROBES, choose_solver, direct_memory, least_pcg_memory, rows_that_fit
from kl.exact.diagonals import diagonals_of_factor
from kl.exact.equations import Progress, Reporter, Solved, dot_columns
from kl.exact.leave_one_out import LeaveOneOut, leave_one_out as leave_one_out_of
from kl.exact.merged import MergedRows, check_weights, rows_from, system_of
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul
from kl.rkhs import evaluate
from kl.rows.rows import Rows, check_finite_matrix
from kl.system.memory import format_memory, parse_memory
from kl.system.wording import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interpolant:
    """f = sum_i alpha_i K(., x_i) with (K + ridge diag(1/w)) alpha = Y, and how well that was solved.

    `kl.interpolate` and `kl.least_squares` return one; the weights of a least-squares solution are on its centres.

    Rows that are equal to the bit share one equation, whose target is the mean of their targets. If the targets differ,
    no function fits them all. The mean is then the least-squares limit: gradient descent on all rows converges to it,
    and small batches move about it.

    Attributes:
        kernel: the kernel, its bandwidth resolved.
        centers: x_1..x_n as given (not a copy), shape (n, d); of a least-squares solution the centres, shape (p, d).
        alpha: weights in the order of `centers`, shape (n, c) or (p, c), float64.
        fitted: f(X), shape (n, c), float64.
        relative_residual: |K alpha + ridge alpha / w - Y|_F / |Y|_F, recomputed from the kernel in float64; equal rows
            count once, with their summed weight, and Y is the weighted mean of their targets.
        tolerance: the relative residual that the caller asked for.
        jitter: the number added to the diagonal besides the ridge; 0 unless the factorisation failed without it.
        ridge: lambda; lambda / w_i was added to the diagonal (not multiplied by n).
        rkhs_norm: |f|_H = sqrt(trace(alpha^T K alpha)).
        rkhs_norm_per_class: |f_k|_H, shape (c,), float64.
        seconds: of this call, without the seconds before an interruption.
        solver: "direct" (Cholesky); "pcg"; "low-rank" when conjugate gradients met a kernel matrix of low rank and a
            factor of its range solved the equations; "eigen" when a direct solve met a singular matrix and took the
            minimum-norm least-squares solution; or "least squares".
        iterations: iterations of conjugate gradients, or steps of iterative refinement.
        leave_one_out: leave-one-out predictions; None if they were not asked for, or if the equations are too near to
            singular for them, as a log line then says.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 2 (the minimum-norm interpolant).

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> solution = kl.interpolate(kl.Laplacian(1.0), x, y)
        >>> solution.converged, solution.solver, solution.predict(x[:1]).round(decimals=6).item()
        (True, 'direct', 1.0)
    """

    kernel: Kernel
    centers: Tensor
    alpha: Tensor
    fitted: Tensor
    relative_residual: float
    tolerance: float
    jitter: float
    ridge: float
    rkhs_norm: float
    rkhs_norm_per_class: Tensor
    seconds: float
    solver: str
    iterations: int
    leave_one_out: LeaveOneOut | None = None

    def predict(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x) = sum_i alpha_i K(x, x_i), shape (m, c), float64.

        Raises:
            InputError: x is no finite float matrix of d columns.

        Example:
            >>> import torch, kl
            >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
            >>> kl.interpolate(kl.Laplacian(1.0), x, y).predict(x).round(decimals=6).flatten().tolist()
            [1.0, 2.0]
        """
        check_finite_matrix("x", x)
        if x.shape[1] != self.centers.shape[1]:
            raise InputError(f"x must have shape (rows, {self.centers.shape[1]}); got {tuple(x.shape)}")
        origin, centers, x = self.kernel.origin_of(self.centers), self.centers, x.to(self.centers)
        if origin.any():
            centers, x = centers - origin, x - origin
        return evaluate(self.kernel, centers, self.alpha.to(centers.device), x)

    def to(self, device: torch.device | str) -> Interpolant:
        """The same solution with its tensors on the device."""
        names = ("centers", "alpha", "fitted", "rkhs_norm_per_class")
        left = None if self.leave_one_out is None else self.leave_one_out.to(device)
        return replace(self, **{name: getattr(self, name).to(device) for name in names}, leave_one_out=left)

    def require_better_than_zero(self) -> None:
        """Raise if the solve found no better function than f = 0.

        Raises:
            SingularKernelError: the residual is not smaller than that of f = 0.
        """
        if self.relative_residual >= 1:
            raise SingularKernelError(
                f"the {self.solver} solve of n={len(self.alpha)} rows found nothing better than f = 0: in float32 the "
                "kernel does not tell them apart; use solver='direct', give a ridge (ridge=1e-6), or rescale the "
                "features"
            )

    @property
    def converged(self) -> bool:
        """Whether the tolerance was reached."""
        return self.relative_residual <= self.tolerance


def interpolate(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    ridge: float = 0.0,
    memory: str | int = "auto",
    solver: str = "auto",
    tolerance: float = RESIDUAL_ACCEPTED,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], object] | None = None,
    *,
    weights: Tensor | None = None,  # shape: (n,)
    leave_one_out: bool = False,
    initial: Tensor | None = None,  # shape: (n, c)
) -> Interpolant:
    """Solve (K(X, X) + ridge I) alpha = Y for all outputs at once; with ridge = 0 the minimum-norm interpolant.

    With sample weights the equations are (K(X, X) + ridge diag(1/w)) alpha = Y, whose solution minimises

        sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2

    Args:
        kernel: the kernel; `bandwidth="auto"` is resolved on x.
        x: training features, shape (n, d).
        y: targets, shape (n, c).
        ridge: lambda >= 0 (not multiplied by n).
        memory: budget in bytes, "8GB", or "auto" (half of what is free). A direct solve needs about 2 n^2 bytes, and 4
            n^2 bytes when the matrix is nearly singular; conjugate gradients are fastest with as much and need far
            less.
        solver: "direct" (n^3 / 3 flops), "pcg" (n^2 kernel values per iteration), or "auto": direct if 4 n^2 bytes fit
            the budget and, on a CPU, n is at most 30,000; else pcg.
        tolerance: the relative residual at which conjugate gradients stop. A direct solve goes on to 1e-9 or as far as
            it gets. A solve that ends above the tolerance warns.
        checkpoint: file in which conjugate gradients keep their state every half a minute and when interrupted; the
            same call goes on from it. The file is deleted when the solve ends.
        progress: called with a `Progress` now and then; an exception that it raises ends the solve.
        weights: w_i >= 0, shape (n,), not all 0; None is 1 for every row. A row of weight 2 counts as a row that is
            there twice, and a row of weight 0 is left out: its alpha is 0, and its fitted value is f(x_i) all the same.
            With ridge = 0 the other weights matter among equal rows alone, because f fits the rest exactly, unless the
            kernel is of low rank.
        leave_one_out: also compute what f would say of each row without that row. A direct solve then takes 1.7 times
            as long (MNIST, n = 10000). Conjugate gradients estimate it by 20 random probes, which are further outputs.
        initial: weights from which conjugate gradients start, such as those of a similar kernel, shape (n, c); None is
            0. Each output is scaled so that its residual is least. A direct solve has no use for them.

    Returns:
        The weights with residual, jitter, norm and time, as an `Interpolant`.

    Raises:
        InputError: x or y is no finite float matrix, their lengths differ, or an argument is out of its range.
        CheckpointError: the checkpoint is damaged, or belongs to other data, weights, another kernel or ridge.
        MemoryBudgetError: the solve does not fit the budget.
        SingularKernelError: no factorisation gave a solution; the message says what to do.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 2; each solver names its own source.

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> solution = kl.interpolate(kl.Laplacian(1.0), x, y)
        >>> solution.fitted.round(decimals=6).flatten().tolist(), round(solution.rkhs_norm, 4)
        ([1.0, 2.0], 2.0201)
    """
    start = time.perf_counter()
    check_finite_matrix("x", x)
    check_finite_matrix("y", y)
    if len(x) != len(y):
        raise InputError(f"x and y must have one row per sample; got {len(x)} and {len(y)}")
    ridge, tolerance = check_not_negative("ridge", ridge), check_tolerance(tolerance)
    (n, d), c, budget = x.shape, y.shape[1], parse_memory(memory, x.device)
    w = None if weights is None else check_weights(weights, n, ridge)
    if initial is not None and check_finite_matrix("initial", initial).shape != (n, c):
        raise InputError(f"initial must have a weight for each target, shape {(n, c)}; got {tuple(initial.shape)}")
    origin = kernel.origin_of(x)
    merged = MergedRows.of(x, w, origin)
    u = len(merged)
    chosen = choose_solver(solver, u, d, c, budget, x.device, leave_one_out)
    check_budget(chosen, u, d, c, budget, leave_one_out)
    kernel = kernel.resolve(x)
    means = merged.targets(y)
    _warn_of_equal_rows(merged, means, y)
    system = system_of(kernel, x, means, merged, ridge, origin)
    scale, report = mean_diagonal(kernel, system.rows), Reporter(progress)
    if chosen == "direct":
        solved = solve_direct(system, scale, tolerance, budget, report, diagonals_of_factor if leave_one_out else None)
    else:
        state = None
        if checkpoint is not None:
            key = solution_key(kernel, x, y, ridge, weights=w)
            state = Checkpoint(checkpoint, f"{key} with probes" if leave_one_out else key)
        known = None if initial is None else merged.sums(initial)
        solved = solve_pcg(system, tolerance, budget, report, state, leave_one_out, known)
    _warn(solved, tolerance, direct_memory(u, d, c, 8))
    alpha, fitted = solved.alpha, solved.fitted
    if not merged.all_alone:
        alpha, fitted = alpha[merged.group] * merged.share[:, None], fitted[merged.group]
    if len(merged.left_out):
        others = rows_from(x[merged.left_out], origin, like=system.rows)
        fitted[merged.left_out] = kernel_matmul(kernel, others, system.rows, solved.alpha)
    left = None
    if solved.diagonals is not None:
        left = leave_one_out_of(solved.diagonals, merged, y, solved.alpha, fitted, ridge)
    per_class = dot_columns(alpha, fitted).clamp_(min=0)
    return Interpolant(
        kernel=kernel,
        centers=x,
        alpha=alpha,
        fitted=fitted,
        relative_residual=solved.relative_residual,
        tolerance=tolerance,
        jitter=solved.jitter,
        ridge=ridge,
        rkhs_norm=float(per_class.sum().sqrt()),
        rkhs_norm_per_class=per_class.sqrt(),
        seconds=time.perf_counter() - start,
        solver=solved.solver,
        iterations=solved.iterations,
        leave_one_out=left,
    )


def check_tolerance(value: float) -> float:
    """The value as a float, if it is above 0 and below 1, the relative residual of f = 0.

    Raises:
        InputError: the value is anything else.
    """
    if not check_positive("tolerance", value) < 1:
        raise InputError(f"tolerance must be a relative residual above 0 and below 1; got {value!r}: try 1e-6")
    return float(value)


def check_budget(solver: str, n: int, d: int, c: int, budget: int, leave_one_out: bool) -> None:
    """Refuse a solve that does not fit the budget, before the work; n counts equal rows once."""

    def memory(n: int, d: int, c: int) -> int:
        if solver == "direct":
            return direct_memory(n, d, c, None, leave_one_out)
        return least_pcg_memory(n, d, c + PROBES if leave_one_out else c)

    if (need := memory(n, d, c)) > budget:
        name = "the direct solve of" if solver == "direct" else "the solve by conjugate gradients of"
        fits = rows_that_fit(n, budget, lambda rows: memory(rows, d, c))
        remedy = ", use solver='pcg'" if least_pcg_memory(n, d, c) <= budget else ""
        raise MemoryBudgetError(
            f"{name} n={n} rows needs {format_memory(need)}, more than the budget of {format_memory(budget)}: raise "
            f"memory={remedy}, or use {fits} rows or less"
        )


def _warn_of_equal_rows(
    merged: MergedRows,
    means: Tensor,  # shape: (u, c)
    y: Tensor,  # shape: (n, c)
) -> None:
    """Warn if equal rows have different targets; rows of weight 0 do not count."""
    repeated = int(merged.used.sum()) - len(merged)
    if not repeated:
        return
    if not torch.allclose(means[merged.group[merged.used]], y[merged.used].double()):
        log.warning(
            "%s equal to others, and some carry different targets; no function fits them all, so the exact limit fits "
            "their mean",
            counted(repeated, "training row") + (" is" if repeated == 1 else " are"),
        )


def mean_diagonal(kernel: Kernel, rows: Rows) -> float:
    """The mean of K's diagonal, if it is finite and above 0.

    Raises:
        InputError: it is not finite.
        SingularKernelError: it is 0.
    """
    scale = float(kernel.diag(rows.data).mean())
    if not math.isfinite(scale):
        raise InputError(
            f"kernel {kernel} is not finite on the training rows, whose values are too large or too small for their "
            "float type: rescale the features"
        )
    if scale <= 0:
        raise SingularKernelError(
            f"kernel {kernel} is zero on every training row: choose another kernel, or give it a bias"
        )
    return scale


def _warn(solved: Solved, tolerance: float, need: int) -> None:
    """Warn if the tolerance was not reached; least-squares solutions have warned already."""
    if solved.relative_residual <= tolerance or solved.solver in ("eigen", "low-rank"):
        return
    remedy = "give a ridge (ridge=1e-6)"
    if solved.solver == "pcg":
        remedy += f", or use solver='direct', which needs up to {format_memory(need)}"
    log.warning(
        "the exact solve stopped at relative residual %.1e, above the tolerance of %.1e, since it fell no further "
        "after %s: the kernel matrix is near to singular; %s",
        solved.relative_residual,
        tolerance,
        counted(solved.iterations, "iteration"),
        remedy,
    )
