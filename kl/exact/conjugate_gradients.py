"""Preconditioned conjugate gradients on a float32 kernel matrix, with true residuals in float64."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from kl.exact.checkpoint import Checkpoint
from kl.exact.cost import pcg_plan
from kl.exact.equations import Progress, Reporter, Solved, System
from kl.exact.iteration import MARGIN, STALLS, ConjugateGradients, Search
from kl.exact.low_rank import solve_low_rank
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.system.wording import counted

log = logging.getLogger(__name__)


def solve_pcg(
    system: System, tolerance: float, budget: int, report: Reporter, checkpoint: Checkpoint | None = None
) -> Solved:
    """Solve by conjugate gradients: one recursion per output, and all outputs share the products with K.

    K is evaluated in float32, and kept as far as the budget allows. Float32 makes the recursion drift away from the
    equations. Therefore the true residual, in float64, replaces the recursion's residual whenever that has fallen by
    1e-3; the search keeps its direction unless the two were far apart. The true residual also decides when to stop: at
    the tolerance, or when it falls no more. The best weights that a check has found are returned.

    Args:
        system: the equations.
        tolerance: the relative residual to reach.
        budget: bytes, at least `least_pcg_memory`.
        report: is told of every iteration.
        checkpoint: where the state is saved, loaded again and, in the end, deleted.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to other equations.

    Source: Hestenes and Stiefel 1952; replaced residuals as in van der Vorst and Ye 2000, Residual replacement
    strategies for Krylov subspace iterative methods; the same in mixed precision, Clark et al. 2010, Solving lattice
    QCD systems of equations using mixed precision solvers on GPUs, arXiv:0911.3191, section 3.3.
    """
    (n, d), c = system.rows.data.shape, system.y.shape[1]
    matrix = LowerTriangle(system.kernel, system.single())
    rank, panels = pcg_plan(n, d, c, budget, matrix.side)
    saved = None  # a wrong one shows before the work
    if checkpoint:
        saved = checkpoint.load(system.y.device, lambda values: Search.of(values, system.y))
    mean_ridge = float(system.ridge.mean())
    preconditioner = LowRankPreconditioner(system.kernel, matrix.rows, rank, mean_ridge)
    singular = preconditioner.exhausted and mean_ridge == 0
    if singular and (solved := solve_low_rank(system, tolerance, budget)):
        return solved
    log.info(
        "pcg: keeping %.0f%% of the kernel matrix, preconditioner of rank %d", _share(n, panels, matrix.side), rank
    )
    matrix.keep(panels)
    gradients = ConjugateGradients(system, matrix, preconditioner)
    if saved is None:
        search = gradients.zero()
    else:
        search = gradients.resume(saved)
        done = counted(search.state.iterations, "iteration")
        log.info("pcg: going on after %s, from %s", done, checkpoint and checkpoint.path)
    iteration = _Iteration(gradients, tolerance, report, checkpoint)
    try:
        iteration.run(search)
    except KeyboardInterrupt:
        if checkpoint and iteration.search.state.iterations:
            checkpoint.save(iteration.search.values(), now=True)
            done = counted(iteration.search.state.iterations, "iteration")
            log.warning("interrupted after %s, kept on disk: the same call goes on", done)
        raise
    if checkpoint:
        checkpoint.delete()
    best, iterations = iteration.search.best, iteration.search.state.iterations
    worth = preconditioner.nearly_exhausted and not singular
    del iteration, gradients, preconditioner, matrix, search  # their memory is the factor's now
    if best.relative > tolerance and worth:
        log.info(
            "pcg: the residual falls no more after %s; looking for a kernel matrix of low rank",
            counted(iterations, "iteration"),
        )
        solved = solve_low_rank(system, tolerance, budget)
        if solved is not None and solved.relative_residual < best.relative:
            return replace(solved, iterations=iterations + solved.iterations)
    fitted = (system.y - best.residual).addcmul_(system.ridge[:, None], best.alpha, value=-1)
    return Solved(best.alpha, fitted, best.relative, "pcg", iterations)


class _Iteration:
    """The loop; `search` is always that after the last whole iteration. Arguments as of `solve_pcg`."""

    def __init__(
        self, gradients: ConjugateGradients, tolerance: float, report: Reporter, checkpoint: Checkpoint | None
    ) -> None:
        self._gradients, self._tolerance = gradients, tolerance
        self._report, self._checkpoint = report, checkpoint

    def run(self, search: Search) -> None:
        """Iterate until the true residual is below the tolerance or falls no more."""
        self.search, relative = search, self._gradients.system.relative
        start, first = time.perf_counter(), (search.state.iterations, relative(search.state.residual))
        while self.search.best.relative > self._tolerance and self.search.best.stalls < STALLS:
            self.search = self._gradients.advance(self.search, self._tolerance)
            if self._checkpoint:
                self._checkpoint.save(self.search.values())
            now = relative(self.search.state.residual)
            left = self._seconds_left(now, first, time.perf_counter() - start)
            self._report(Progress("pcg", self.search.state.iterations, now, left))

    def _seconds_left(self, relative: float, first: tuple[int, float], seconds: float) -> float:
        """At the mean rate of convergence so far."""
        fallen = math.log(first[1] / relative) if 0 < relative < first[1] < math.inf else 0.0
        if fallen <= 0 or self.search.state.iterations - first[0] < 3:
            return math.inf
        return max(0.0, math.log(relative / (MARGIN * self._tolerance))) * seconds / fallen


def _share(n: int, panels: int, side: int) -> float:
    return 100 * (1 - max(0.0, 1 - panels * side / n) ** 2)
