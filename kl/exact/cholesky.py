"""The direct solve: a Cholesky factor, in float32 if that is accurate enough, and iterative refinement in float64."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kl.errors import InputError, MemoryBudgetError, SingularKernelError
from kl.exact.cost import SINGLE_ROWS, direct_memory, eigen_memory
from kl.exact.equations import Diagonals, Progress, Reporter, Solved, System, warn_inconsistent
from kl.exact.refinement import RESIDUAL_WANTED, refine
from kl.products.triangle import LowerTriangle
from kl.system.memory import format_memory

log = logging.getLogger(__name__)

RESIDUAL_ACCEPTED = 1e-6  # relative residual above which the factorisation counts as failed
EIGEN_LIMIT = 5000  # rows up to which a singular matrix is solved by its eigen-decomposition, far slower than a factor

Use = Callable[[System, LowerTriangle, Callable[[float], None]], Diagonals | None]


def solve_direct(
    system: System, scale: float, tolerance: float, budget: int, report: Reporter, use: Use | None = None
) -> Solved:
    """Factorise with the least jitter that works, then refine with true residuals.

    Args:
        system: the equations.
        scale: the mean of K's diagonal.
        tolerance: the relative residual to reach; refinement tries to reach 1e-9 in any case.
        budget: bytes.
        report: is told of the progress.
        use: takes the factor of the solution that will be returned, for more than the solution; None is nothing more.

    Raises:
        MemoryBudgetError: a factor in float32 was not accurate enough, and the factor in float64, or the
            eigen-decomposition that a singular matrix needs, does not fit the budget.
        SingularKernelError: no factor gave a solution, and there are too many rows for an eigen-decomposition.
        InputError: the kernel is not finite.

    Source: Cholesky with iterative refinement; the factor in a lower precision than the residuals as in Carson and
    Higham 2018, Accelerating the solution of linear systems by iterative refinement in three precisions.
    """
    wanted = min(RESIDUAL_WANTED, tolerance)
    if len(system) > SINGLE_ROWS:
        found = _attempt(system, wanted, 0.0, torch.float32, report, wanted, use)
        solves = found is not None and found.relative_residual <= wanted
        if found is not None and solves and (use is None or found.diagonals is not None):
            return found
        (n, d), c = system.rows.data.shape, system.y.shape[1]
        need = direct_memory(n, d, c, 8, use is not None)
        if found is not None and solves and need > budget:
            log.warning(
                "a factor in float32 is not accurate enough for leave-one-out, and float64 needs %s, more than the "
                "budget of %s: raise memory=, or give a ridge",
                format_memory(need),
                format_memory(budget),
            )
            return found
        log.info("a factor in float32 does not serve here; factorising in float64")
        if need > budget:
            raise MemoryBudgetError(
                f"the kernel matrix of n={n} rows is too near to singular for float32, and float64 needs "
                f"{format_memory(need)}, more than the budget of {format_memory(budget)}: raise memory=, give a ridge "
                "(ridge=1e-6), or use solver='pcg'"
            )
    floor = scale * max(len(system) * torch.finfo(torch.float64).eps, 1e-14)
    best = None
    for jitter in (0.0, floor, 1e2 * floor, 1e4 * floor):
        found = _attempt(system, wanted, jitter, torch.float64, report, RESIDUAL_ACCEPTED, use)
        if found is not None:
            if best is None or found.relative_residual < best.relative_residual:
                best = found
            if best.relative_residual <= RESIDUAL_ACCEPTED:
                break
    if best is None or best.relative_residual > RESIDUAL_ACCEPTED:
        return _least_squares(system, budget, use is not None)
    if best.jitter > 0:
        log.warning(
            "the kernel matrix is not positive definite in float64; added jitter %.1e to its diagonal (relative "
            "residual %.1e)",
            best.jitter,
            best.relative_residual,
        )
    if use is not None and best.diagonals is None:
        log.warning(
            "the kernel matrix is too near to singular for leave-one-out predictions: its inverse has not three digits "
            "that are right; give a ridge (ridge=1e-6)"
        )
    return best


def _attempt(
    system: System,
    wanted: float,
    jitter: float,
    dtype: torch.dtype,
    report: Reporter,
    accepted: float,
    use: Use | None,
) -> Solved | None:
    """A solution by a factor of K + diag(ridge + jitter) in this dtype; None if the factorisation fails.

    `use` takes the factor if the solution's residual is at most `accepted`.
    """
    triangle = LowerTriangle(system.kernel, system.single() if dtype == torch.float32 else system.rows)
    triangle.keep(len(triangle.columns))
    start = time.perf_counter()

    work = 1.0 if use is None else 0.5  # using the factor takes about as long as making it

    def progress(done: float) -> None:
        seconds, done = time.perf_counter() - start, work * done
        report(Progress("direct", done, None, seconds * (1 - done) / done))

    if not triangle.factorise((system.ridge + jitter).to(dtype), progress):
        return None
    solved = refine(system, triangle.solve, wanted, jitter)
    if use is None or not solved.relative_residual <= accepted:
        return solved
    return replace(solved, diagonals=use(system, triangle, lambda done: progress(1 + done)))


def _least_squares(system: System, budget: int, diagonals: bool) -> Solved:
    """The least-squares solution of minimum norm, by an eigen-decomposition."""
    if len(system) > EIGEN_LIMIT:
        raise SingularKernelError(
            f"the kernel matrix of n={len(system)} rows is singular to working precision and its system could not be "
            "solved: give a small ridge (ridge=1e-6), a smaller bandwidth, or fewer rows"
        )
    (n, d), c = system.rows.data.shape, system.y.shape[1]
    if (need := eigen_memory(n, d, c)) > budget:
        raise MemoryBudgetError(
            f"the kernel matrix of n={n} rows is singular to working precision, and its eigen-decomposition needs "
            f"{format_memory(need)}, more than the budget of {format_memory(budget)}: raise memory=, give a ridge "
            "(ridge=1e-6), or use solver='pcg'"
        )
    pseudo = _PseudoInverse(system)
    alpha = pseudo.solve(system.y)
    fitted, _, relative = system.check(alpha)
    if not math.isfinite(relative):
        raise InputError(f"kernel {system.kernel} is not finite on some pairs of training rows: rescale the features")
    warn_inconsistent(relative, "the kernel matrix is singular")
    return Solved(alpha, fitted, relative, "eigen", 0, diagonals=pseudo.diagonals() if diagonals else None)


class _PseudoInverse:
    """The pseudo-inverse of K + diag(ridge), without the directions below the rounding error of the largest.

    With weights W it is S (S (K + diag(ridge)) S)^+ S, S = diag(W)^(1/2), whose solution has the least weighted sum of
    squared errors.
    """

    def __init__(self, system: System) -> None:
        triangle = LowerTriangle(system.kernel, system.rows, len(system))
        triangle.keep(1)
        matrix = triangle.panels[0]
        matrix.diagonal().add_(system.ridge)
        self._system, self._root = system, None
        if system.weights is not None and not bool((system.weights == system.weights[0]).all()):
            self._root = (system.weights / system.weights.mean()).sqrt()[:, None]
            matrix.mul_(self._root).mul_(self._root.T)
        values, vectors = torch.linalg.eigh(matrix, UPLO="L")
        keep = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
        self._values, self._vectors = values[keep][:, None], vectors[:, keep]

    def solve(
        self,
        rhs: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """The least-squares solution of least norm, shape (n, c)."""
        if self._root is None:
            return self._vectors @ ((self._vectors.T @ rhs) / self._values)
        return self._root * (self._vectors @ ((self._vectors.T @ (self._root * rhs)) / self._values))

    def diagonals(self) -> Diagonals | None:
        """For leave-one-out predictions; None with a ridge, which this solution loses in rounding."""
        if bool(self._system.ridge.any()):
            log.warning("the ridge is lost in the rounding of a singular kernel matrix: no leave-one-out predictions")
            return None
        inverse = (self._vectors.square() / self._values.T).sum(dim=1)
        if self._root is not None:
            inverse = inverse * self._root.flatten().square()
        return Diagonals(inverse, (1 - self._vectors.square().sum(dim=1)).clamp_(min=0))
