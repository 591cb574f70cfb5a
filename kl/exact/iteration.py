"""One iteration of preconditioned conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.exact.preconditioner import LowRankPreconditioner
from kl.exact.system import System
from kl.exact.triangle import LowerTriangle

DROP = 1e-3  # the recursion's residual is replaced by the true one when it has fallen by this
CHECK_ITERATIONS = 100  # the true residual is computed at least this often
GROWN = 100  # so far above the least residual the recursion is looked after, too
STALLED, STALLS = 0.7, 2  # a check that finds more than 0.7 of the least residual so far; two in a row end the solve


@dataclass(frozen=True)
class State:
    """Where conjugate gradients stand after an iteration; all that going on needs."""

    alpha: Tensor  # shape: (n, c)
    residual: Tensor  # r, as the recursion has it, shape: (n, c)
    direction: Tensor  # p, shape: (n, c)
    energy: Tensor  # <r, M^{-1} r> of every output, shape: (c,)
    iterations: int
    rank: int  # of the preconditioner that the direction belongs to


@dataclass(frozen=True)
class Best:
    """The weights of the least true residual that checks have found."""

    alpha: Tensor  # shape: (n, c)
    residual: Tensor  # the true one, shape: (n, c)
    relative: float
    """|residual|_F / |Y|_F"""
    stalls: int
    """Checks in a row that found nothing much smaller; `STALLS` of them mean that the residual falls no more."""


class ConjugateGradients:
    """Iterations for all outputs of a system at once, each with a recursion of its own; they share the products with K.

    Args:
        system: the equations.
        matrix: K in float32, kept as far as memory allows.
        preconditioner: M.

    Source: Hestenes and Stiefel 1952; Golub and Van Loan, Matrix Computations, section 11.5.
    """

    def __init__(self, system: System, matrix: LowerTriangle, preconditioner: LowRankPreconditioner) -> None:
        self.system, self.matrix, self.preconditioner = system, matrix, preconditioner

    def start(
        self,
        alpha: Tensor,  # shape: (n, c)
        residual: Tensor,  # Y - K alpha - ridge alpha, shape: (n, c)
        iterations: int = 0,
    ) -> State:
        """The state before the first iteration from these weights."""
        z = self.preconditioner.solve(residual)
        return State(alpha, residual, z, (residual * z).sum(dim=0), iterations, self.preconditioner.rank)

    def step(self, state: State) -> State:
        """One iteration; an output whose direction is no longer one of descent, as by rounding, stands still."""
        p = state.direction
        product = self.matrix.matmul(p) + self.system.ridge[:, None] * p
        curvature = (p * product).sum(dim=0)
        # <p, r> and not the energy, which it equals until a residual is replaced: the best step for the true residual.
        length = torch.where(curvature > 0, (p * state.residual).sum(dim=0) / curvature, 0.0)
        residual = state.residual - length * product
        z = self.preconditioner.solve(residual)
        energy = (residual * z).sum(dim=0)
        p = z + torch.where(state.energy > 0, energy / state.energy, 0.0) * p
        return State(state.alpha + length * state.direction, residual, p, energy, state.iterations + 1, state.rank)

    def zero(self) -> tuple[State, Best]:
        """f = 0: where to start from with nothing known."""
        alpha, y = torch.zeros_like(self.system.y), self.system.y
        return self.start(alpha, y), Best(alpha, y, 1.0, 0)

    def check(self, state: State, claimed: float, best: Best) -> tuple[State, Best]:
        """Replace the recursion's residual, of relative size `claimed`, by the true one, in float64.

        The search goes on in the same direction. Where the two were far apart it starts anew from the best weights.
        """
        _, residual, relative = self.system.check(state.alpha)
        stalls = 0 if relative <= STALLED * best.relative else best.stalls + 1
        worse = not relative < best.relative  # true for NaN, too
        best = replace(best, stalls=stalls) if worse else Best(state.alpha, residual, relative, stalls)
        if worse or relative > 2 * claimed:
            return self.start(best.alpha, best.residual, state.iterations), best
        return replace(state, residual=residual), best
