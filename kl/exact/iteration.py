"""One iteration of preconditioned conjugate gradients."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kl.exact.equations import System, dot_columns
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.system.wording import counted

log = logging.getLogger(__name__)

DROP = 1e-3  # the recursion's residual is replaced by the true one when it has fallen by this
MARGIN = 0.7  # or when it has fallen below this share of the tolerance
CHECK_ITERATIONS = 100  # the true residual is computed every so many iterations at the latest
GROWN = 100  # so far above the least residual the recursion is looked after, too
STALLED, STALLS = 0.7, 2  # a check that finds more than 0.7 of the least residual so far; two in a row end the solve


@dataclass(frozen=True)
class State:
    """The recursion after an iteration."""

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


@dataclass(frozen=True)
class Search:
    """Where conjugate gradients stand between two iterations: all that going on as if never interrupted needs."""

    state: State
    best: Best
    checked: float
    """Relative size of the recursion's residual after the last check."""

    def values(self) -> dict[str, Any]:
        """The same as dicts of tensors and plain values."""
        return {"state": dict(vars(self.state)), "best": dict(vars(self.best)), "checked": self.checked}

    @classmethod
    def of(
        cls,
        values: dict[str, Any],
        y: Tensor,  # of the system, shape: (n, c)
    ) -> Search:
        """The search that has these `values`.

        Raises:
            KeyError, TypeError, ValueError: there is none for such targets.
        """
        found = cls(State(**values["state"]), Best(**values["best"]), float(values["checked"]))
        state, best = found.state, found.best
        matrices = (state.alpha, state.residual, state.direction, best.alpha, best.residual)
        if any(each.shape != y.shape for each in matrices) or state.energy.shape != y.shape[1:]:
            raise ValueError(f"tensors of other shapes than {tuple(y.shape)}")
        return found


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
        return State(alpha, residual, z, dot_columns(residual, z), iterations, self.preconditioner.rank)

    def step(self, state: State) -> State:
        """One iteration; an output whose direction is no longer one of descent, as by rounding, stands still."""
        p = state.direction
        product = self.matrix.matmul(p).addcmul_(self.system.ridge[:, None], p)
        curvature = dot_columns(p, product)
        # <p, r> and not the energy, which it equals until a residual is replaced: the best step for the true residual.
        length = torch.where(curvature > 0, dot_columns(p, state.residual) / curvature, 0.0)
        residual = torch.addcmul(state.residual, length, product, value=-1)
        del product
        z = self.preconditioner.solve(residual)
        energy = dot_columns(residual, z)
        direction = z.addcmul_(torch.where(state.energy > 0, energy / state.energy, 0.0), p)
        alpha = torch.addcmul(state.alpha, length, p)
        return State(alpha, residual, direction, energy, state.iterations + 1, state.rank)

    def zero(self) -> Search:
        """f = 0: where to start from with nothing known."""
        alpha, y = torch.zeros_like(self.system.y), self.system.y
        return Search(self.start(alpha, y), Best(alpha, y, 1.0, 0), 1.0)

    def advance(self, search: Search, tolerance: float = 0.0) -> Search:
        """One iteration, and a check where one is due: by what the recursion claims, and every 100 iterations.

        Args:
            search: where the last iteration ended.
            tolerance: the relative residual to reach.
        """
        state, best = self.step(search.state), search.best
        claimed = self.system.relative(state.residual)
        reached = claimed <= max(MARGIN * tolerance, DROP * search.checked)
        if not (reached or claimed > GROWN * best.relative or state.iterations % CHECK_ITERATIONS == 0):
            return replace(search, state=state)
        state, best = self._check(state, claimed, best)
        done = counted(state.iterations, "iteration")
        log.info("pcg: after %s the least true relative residual is %.1e", done, best.relative)
        return Search(state, best, self.system.relative(state.residual))

    def refine(self, search: Search, solve: Callable[[Tensor], Tensor]) -> Search:
        """One step of iterative refinement instead: the best weights, corrected by what solves K alpha = r nearly.

        Args:
            search: where the last iteration ended.
            solve: from the true residual, shape (n, c), to the correction, shape (n, c).
        """
        best = search.best
        state = self.start(best.alpha + solve(best.residual), best.residual, search.state.iterations + 1)
        state, best = self._check(state, math.inf, best)
        return Search(state, best, self.system.relative(state.residual))

    def resume(self, search: Search) -> Search:
        """Go on from a search that this preconditioner may not have begun; its best residual is computed again."""
        state, best = search.state, search.best
        _, residual, relative = self.system.check(best.alpha)
        best = replace(best, residual=residual, relative=relative)
        if state.rank != (rank := self.preconditioner.rank):  # the direction is of no use to another preconditioner
            log.info("pcg: the preconditioner's rank was %d and is %d: the search starts anew", state.rank, rank)
            state = self.start(state.alpha, self.system.check(state.alpha)[1], state.iterations)
        return replace(search, state=state, best=best)

    def _check(self, state: State, claimed: float, best: Best) -> tuple[State, Best]:
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
