"""Iterative refinement: approximate solutions of the equations, corrected by true residuals in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from kl.exact.equations import Solved, System

RESIDUAL_WANTED = 1e-9  # relative residual at which refinement stops
REFINEMENTS = 5  # steps at most, because each computes a true residual, n^2 / 2 float64 kernel values


def refine(
    system: System, solve: Callable[[Tensor], Tensor], wanted: float, jitter: float = 0.0, solver: str = "direct"
) -> Solved:
    """Correct alpha by solving for its true residual, as long as the residual falls.

    Args:
        system: the equations.
        solve: solves the equations approximately; maps shape (n, c) to shape (n, c).
        wanted: the relative residual to stop at.
        jitter: the number that `solve` adds to the diagonal.
        solver: the name of the solver, for the result.

    Source: Carson and Higham 2018, Accelerating the solution of linear systems by iterative refinement in three
    precisions.
    """
    alpha, best, iterations = solve(system.y), None, 0
    while True:
        fitted, residual, relative = system.check(alpha)
        if best is not None and not relative < best.relative_residual:
            return best
        best = Solved(alpha, fitted, relative, solver, iterations, jitter)
        if relative <= wanted or iterations == REFINEMENTS or not math.isfinite(relative):
            return best
        alpha, iterations = alpha + solve(residual), iterations + 1
