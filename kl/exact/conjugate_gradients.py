"""Preconditioned conjugate gradients on a float32 kernel matrix, with true residuals in float64."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from kl.exact.checkpoint import Checkpoint
from kl.exact.cost import pcg_plan
from kl.exact.equations import Progress, Reporter, Solved, System
from kl.exact.iteration import HARDLY_BEGUN, MARGIN, STALLS, ConjugateGradients, Search
from kl.exact.low_rank import solve_low_rank
from kl.exact.probes import Probes
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.system.wording import counted

log = logging.getLogger(__name__)


def solve_pcg(
    system: System,
    tolerance: float,
    budget: int,
    report: Reporter,
    checkpoint: Checkpoint | None = None,
    leave_one_out: bool = False,
    initial: Tensor | None = None,  # shape: (n, c)
) -> Solved:
    """Solve by conjugate gradients: one recursion per output, and all outputs share the products with K.

    K is evaluated in float32, and kept as far as the budget allows. Float32 makes the recursion drift away from the
    equations. Therefore the true residual, in float64, replaces the recursion's residual whenever the latter has fallen
    by 1e-3; the search keeps its direction unless the two were far apart. The true residual also decides when to stop:
    at the tolerance, or when it falls no more. The best weights that a check has found are returned.

    Args:
        system: the equations.
        tolerance: the relative residual to reach.
        budget: bytes, at least `least_pcg_memory`.
        report: is told of every iteration.
        checkpoint: where the state is saved, loaded again and, in the end, deleted.
        leave_one_out: also estimate the diagonal of the inverse, by probes as further outputs; a factor of low rank
            has it without.
        initial: weights of similar equations to start from, scaled so that the residual is least; None is f = 0.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to other equations.

    Source: Hestenes and Stiefel 1952; replaced residuals as in van der Vorst and Ye 2000, Residual replacement
    strategies for Krylov subspace iterative methods; the same in mixed precision, Clark et al. 2010, Solving lattice
    QCD systems of equations using mixed precision solvers on GPUs, arXiv:0911.3191, section 3.3.
    """
    probes = Probes(system) if leave_one_out else None
    probed = probes.beside(system) if probes else system
    (n, d), c = system.rows.data.shape, probed.y.shape[1]
    matrix = LowerTriangle(system.kernel, system.single())
    rank, panels = pcg_plan(n, d, c, budget, matrix.side)
    saved = None  # loaded before the work, so that a wrong checkpoint is refused at once
    if checkpoint:
        saved = checkpoint.load(system.y.device, lambda values: Search.of(values, probed.y))
    mean_ridge = float(system.ridge.mean())
    preconditioner = LowRankPreconditioner(system.kernel, matrix.rows, rank, mean_ridge)
    singular = preconditioner.exhausted and mean_ridge == 0
    if singular and (solved := solve_low_rank(system, tolerance, budget, leave_one_out)):
        return solved
    log.info(
        "pcg: keeping %.0f%% of the kernel matrix, preconditioner of rank %d", _share(n, panels, matrix.side), rank
    )
    matrix.keep(panels)
    gradients = ConjugateGradients(probed, matrix, preconditioner)
    wanted = probes.tolerance(tolerance) if probes else tolerance
    if initial is not None and probes:
        initial = torch.cat([initial, initial.new_zeros(n, c - initial.shape[1])], dim=1)
    search = gradients.search(initial) if saved is None else gradients.resume(saved)
    search = _iterate(gradients, search, wanted, report, checkpoint)
    if checkpoint:
        checkpoint.delete()
    alpha, iterations = search.best.alpha, search.state.iterations
    diagonals = probes.diagonals(system, alpha, preconditioner) if probes else None
    alpha, residual = alpha[:, : system.y.shape[1]], search.best.residual[:, : system.y.shape[1]]
    relative = system.relative(residual) if probes else search.best.relative
    worth = (preconditioner.nearly_exhausted or relative > HARDLY_BEGUN) and not singular
    del gradients, preconditioner, matrix, search  # their memory is the factor's now
    if relative > tolerance and worth:
        log.info(
            "pcg: the residual falls no more after %s; looking for a kernel matrix of low rank",
            counted(iterations, "iteration"),
        )
        solved = solve_low_rank(system, tolerance, budget, leave_one_out)
        if solved is not None and solved.relative_residual < relative:
            return replace(solved, iterations=iterations + solved.iterations)
    fitted = (system.y - residual).addcmul_(system.ridge[:, None], alpha, value=-1)
    return Solved(alpha, fitted, relative, "pcg", iterations, diagonals=diagonals)


def _iterate(
    gradients: ConjugateGradients,
    search: Search,
    tolerance: float,
    report: Reporter,
    checkpoint: Checkpoint | None,
) -> Search:
    """Iterate until the true residual is below the tolerance or falls no more."""
    if search.state.iterations:
        done = counted(search.state.iterations, "iteration")
        log.info("pcg: going on after %s, from %s", done, checkpoint and checkpoint.path)
    relative, start = gradients.system.relative, time.perf_counter()
    before, first = search.state.iterations, relative(search.state.residual)
    try:
        while search.best.relative > tolerance and search.best.stalls < STALLS:
            search = gradients.advance(search, tolerance)
            if checkpoint:
                checkpoint.save(search.values())
            iterations, now = search.state.iterations, relative(search.state.residual)
            left = _seconds_left(first, now, tolerance, iterations - before, time.perf_counter() - start)
            report(Progress("pcg", iterations, now, left))
    except KeyboardInterrupt:
        if checkpoint and search.state.iterations:
            checkpoint.save(search.values(), now=True)
            done = counted(search.state.iterations, "iteration")
            log.warning("interrupted after %s, kept on disk: the same call goes on", done)
        raise
    return search


def _seconds_left(first: float, now: float, tolerance: float, iterations: int, seconds: float) -> float:
    """Seconds left at the mean rate of these iterations, in which the relative residual fell from `first` to `now`."""
    fallen = math.log(first / now) if 0 < now < first < math.inf else 0.0
    if fallen <= 0 or iterations < 3:
        return math.inf
    return max(0.0, math.log(now / (MARGIN * tolerance))) * seconds / fallen


def _share(n: int, panels: int, side: int) -> float:
    return 100 * (1 - max(0.0, 1 - panels * side / n) ** 2)
