"""One iteration of preconditioned conjugate gradients."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kl.exact.equations import System, dot_columns, least_residual_scale
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.system.wording import counted

log = logging.getLogger(__name__)

# The true residual is computed, and replaces the recursion's residual,
DROP = 1e-3  # when it has fallen by this factor since the last check, because float32 makes the recursion drift;
MARGIN = 0.7  # when it has fallen below this share of the tolerance, because the true residual may be a little larger;
CHECK_ITERATIONS = 100  # every so many iterations at the latest;
GROWN = 100  # when it is more than this many times the smallest true residual, because the recursion may diverge.
# A check stalls if it finds more than 0.7 of the smallest residual so far. Two stalls in a row end the solve, because
# the residual falls no more.
STALLED, STALLS = 0.7, 2
# A solve that ends with a larger relative residual has hardly begun: the targets need eigenvalues that float32 does not
# resolve, or K is of lower rank than n, and they lie partly outside its range. A factor of the range then helps.
HARDLY_BEGUN = 1e-2


@dataclass(frozen=True)
class State:
    """The recursion after an iteration."""

    alpha: Tensor  # shape: (n, c)
    residual: Tensor  # r, the residual of the recursion, shape: (n, c)
    direction: Tensor  # p, shape: (n, c)
    energy: Tensor  # <r, M^{-1} r> of every output, shape: (c,)
    iterations: int
    rank: int  # of the preconditioner that the direction belongs to


@dataclass(frozen=True)
class Best:
    """The weights with the smallest true residual that a check has found."""

    alpha: Tensor  # shape: (n, c)
    residual: Tensor  # the true one, shape: (n, c)
    relative: float
    """|residual|_F / |Y|_F."""
    stalls: int
    """Checks in a row that stalled; after `STALLS` of them the residual falls no more."""


@dataclass(frozen=True)
class Search:
    """The state of conjugate gradients between two iterations, from which they go on as if never interrupted."""

    state: State
    best: Best
    checked: float
    """|r|_F / |Y|_F of the recursion's residual after the last check."""

    def values(self) -> dict[str, Any]:
        """The search as dicts of tensors and plain values."""
        return {"state": dict(vars(self.state)), "best": dict(vars(self.best)), "checked": self.checked}

    @classmethod
    def of(
        cls,
        values: dict[str, Any],
        y: Tensor,  # of the system, shape: (n, c)
    ) -> Search:
        """The search that has these `values`.

        Args:
            values: what `values()` returned.
            y: targets of the system, shape (n, c).

        Raises:
            KeyError, TypeError, ValueError: the values are no search on such targets.
        """
        found = cls(State(**values["state"]), Best(**values["best"]), float(values["checked"]))
        state, best = found.state, found.best
        matrices = (state.alpha, state.residual, state.direction, best.alpha, best.residual)
        if any(each.shape != y.shape for each in matrices) or state.energy.shape != y.shape[1:]:
            raise ValueError(f"tensors of other shapes than {tuple(y.shape)}")
        return found


class ConjugateGradients:
    """Iterations for all outputs of a system at once. Each output has its own recursion; all share the products with K.

    Args:
        system: the equations.
        matrix: K in float32; as many panels are kept as memory allows.
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
        """The state before the first iteration from the given weights."""
        z = self.preconditioner.solve(residual)
        return State(alpha, residual, z, dot_columns(residual, z), iterations, self.preconditioner.rank)

    def step(self, state: State) -> State:
        """One iteration. An output keeps its weights if rounding has left it no direction of descent."""
        p = state.direction
        product = self.matrix.matmul(p).addcmul_(self.system.ridge[:, None], p)
        curvature = dot_columns(p, product)
        # <p, r> equals the energy until a residual is replaced; after that <p, r> gives the better step.
        length = torch.where(curvature > 0, dot_columns(p, state.residual) / curvature, 0.0)
        residual = torch.addcmul(state.residual, length, product, value=-1)
        del product
        z = self.preconditioner.solve(residual)
        energy = dot_columns(residual, z)
        direction = z.addcmul_(torch.where(state.energy > 0, energy / state.energy, 0.0), p)
        alpha = torch.addcmul(state.alpha, length, p)
        return State(alpha, residual, direction, energy, state.iterations + 1, state.rank)

    def search(
        self,
        alpha: Tensor | None = None,  # shape: (n, c)
    ) -> Search:
        """The search that starts from f = 0, or from weights of similar equations, times the scale that suits these."""
        zero, y = torch.zeros_like(self.system.y), self.system.y
        best = Best(zero, y, 1.0, 0)
        if alpha is None:
            return Search(self.start(zero, y), best, 1.0)
        product = self.matrix.matmul(alpha).addcmul_(self.system.ridge[:, None], alpha)
        scale = least_residual_scale(product, y)
        return Search(self.start(alpha * scale, y - product * scale), best, 1.0)

    def advance(self, search: Search, tolerance: float = 0.0) -> Search:
        """One iteration, and a check of the true residual if one is due.

        A check is due if the recursion claims to have reached the tolerance, or to have fallen by `DROP` since the last
        check, or to have grown by `GROWN`, and every `CHECK_ITERATIONS` iterations.

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
        """One step of iterative refinement instead of an iteration: the best weights, corrected by solving K alpha = r.

        Args:
            search: where the last iteration ended.
            solve: maps the true residual r, shape (n, c), to an approximate solution, shape (n, c).
        """
        best = search.best
        state = self.start(best.alpha + solve(best.residual), best.residual, search.state.iterations + 1)
        state, best = self._check(state, math.inf, best)
        return Search(state, best, self.system.relative(state.residual))

    def resume(self, search: Search) -> Search:
        """Go on from a search that another preconditioner may have begun; the true residual is computed again."""
        state, best = search.state, search.best
        _, residual, relative = self.system.check(best.alpha)
        best = replace(best, residual=residual, relative=relative)
        if state.rank != (rank := self.preconditioner.rank):  # another preconditioner cannot use the direction
            log.info("pcg: the preconditioner's rank was %d and is %d: the search starts anew", state.rank, rank)
            state = self.start(state.alpha, self.system.check(state.alpha)[1], state.iterations)
        return replace(search, state=state, best=best)

    def _check(self, state: State, claimed: float, best: Best) -> tuple[State, Best]:
        """Replace the recursion's residual, of relative size `claimed`, by the true residual, in float64.

        The search keeps its direction. If the two residuals were far apart, the search starts again from the best
        weights.
        """
        _, residual, relative = self.system.check(state.alpha)
        stalls = 0 if relative <= STALLED * best.relative else best.stalls + 1
        worse = not relative < best.relative  # true for NaN, too
        best = replace(best, stalls=stalls) if worse else Best(state.alpha, residual, relative, stalls)
        if worse or relative > 2 * claimed:
            return self.start(best.alpha, best.residual, state.iterations), best
        return replace(state, residual=residual), best
