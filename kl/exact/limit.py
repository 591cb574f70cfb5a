"""The exact limit of training, read from a file, else solved for and kept; or the reason why there is none."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from kl.errors import KLError, MemoryBudgetError
from kl.exact.cache import FAMILY, WITHOUT, load_solution, save_solution, say_unused, solutions_folder, unmet
from kl.exact.checkpoint import solution_key
from kl.exact.cholesky import RESIDUAL_ACCEPTED
from kl.exact.cost import check_solver, choose_solver, direct_memory, estimate_seconds, pcg_memory, pcg_plan
from kl.exact.equations import duration
from kl.exact.interpolate import Interpolant, check_budget, check_tolerance, interpolate
from kl.exact.least_squares import least_squares
from kl.exact.patience import Patience
from kl.kernels.kernel import Kernel
from kl.metrics import evaluate_scores
from kl.rows.rows import RowDataset
from kl.system.memory import parse_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExactLimit:
    """The limit f* of training."""

    solution: Interpolant
    """On the device of the training rows."""
    read_from: Path | None
    """The file that the solution was read from; None if it was solved for now."""


@dataclass(frozen=True)
class NoLimit:
    """There is no limit."""

    reason: KLError
    """The error: the solve does not fit its budget or exceeds the patience, or the kernel matrix is singular."""


@dataclass(frozen=True)
class LimitForecast:
    """What `exact_limit` would do."""

    solver: str | None = None
    """The solver of a new solve; None if there would be none."""
    memory: int | None = None
    """Bytes of a new solve."""
    seconds: float = 0.0
    """Seconds of a new solve, after which it may be stopped."""
    read_from: Path | None = None
    """The file that the solution would be read from."""
    left_out: str | None = None
    """Why there would be no limit; None if there would be one."""


def exact_limit(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    *,
    centers: Tensor | None = None,  # shape: (p, d)
    ridge: float = 0.0,
    memory: str | int = "auto",
    solver: str = "auto",
    tolerance: float = RESIDUAL_ACCEPTED,
    folder: str | os.PathLike[str] | None = None,
    patience: Patience | None = None,
    leave_one_out: bool | None = False,
) -> ExactLimit | NoLimit:
    """The limit f* that training on (x, y) tends to, read from its file if the solution there is good enough.

    f* is the minimum-norm interpolant of `kl.interpolate`, with a ridge the ridge solution; with centres it is the
    function in their span that `kl.least_squares` finds. A solution from a file is used if it is sound, solves these
    equations by the requested solver, and has a residual within the tolerance (see `unmet`). A new solution is kept,
    unless the file holds one with a residual at least as small.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: training features, on the device that computes the solution.
        y: targets, on the same device.
        centers: z_1..z_p, on the same device; None means the training rows.
        ridge: lambda >= 0 (not multiplied by n).
        memory: budget of the solve: bytes, "8GB", or "auto" (half of what is free on the device).
        solver: "auto", "direct" or "pcg", as in `kl.interpolate`; not used with centres.
        tolerance: the requested relative residual.
        folder: the folder of kept and unfinished solutions; None means `kl.exact.cache.solutions_folder()`.
        patience: the most rows and seconds for the limit; None sets no bounds.
        leave_one_out: whether leave-one-out predictions are asked for, not with centres; None asks for them if the
            solve is direct, because they cost little there. A solution that was kept without them is solved for again.

    Returns:
        The limit and where it was read from, or the reason why there is none.

    Raises:
        InputError: solver, tolerance or memory is out of its range.
    """
    budget = parse_memory(memory, x.device)
    found = _look_up(kernel, x, y, centers, ridge, budget, solver, tolerance, folder, leave_one_out)
    path, key, kept, reason, left = found.path, found.key, found.solution, found.unmet, found.leave_one_out
    if kept is not None:
        if not reason:
            log.info("exact interpolation: read from %s", path)
            return ExactLimit(kept.to(x.device), read_from=path)
        say_unused(path, reason)
    try:
        if patience is not None:
            _announce(kernel, x, y, centers, budget, solver, patience, left)
        listener = patience.listener() if patience is not None else None
        if centers is not None:
            solution = least_squares(kernel, centers, x, y, ridge, budget, listener)
        else:
            partial = path.with_suffix(".probes.partial" if left else ".partial")
            solution = interpolate(
                kernel, x, y, ridge, budget, solver, tolerance, partial, listener, leave_one_out=left
            )
            solution.require_better_than_zero()
    except KLError as error:
        return NoLimit(error)
    if patience is not None:
        _say_solved(solution, centers)
    if reason == WITHOUT and kept is not None and solution.leave_one_out is not None:
        if kept.relative_residual <= solution.relative_residual:
            solution = replace(kept.to(x.device), leave_one_out=solution.leave_one_out)
        save_solution(path, key, solution)
    elif kept is None or solution.relative_residual < kept.relative_residual:
        save_solution(path, key, solution)
    return ExactLimit(solution, read_from=None)


def forecast_limit(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    *,
    ridge: float = 0.0,
    memory: str | int = "auto",
    solver: str = "auto",
    tolerance: float = RESIDUAL_ACCEPTED,
    folder: str | os.PathLike[str] | None = None,
    patience: Patience | None = None,
    leave_one_out: bool | None = False,
) -> LimitForecast:
    """What `exact_limit` would do with the same arguments, by the same rules; nothing is solved for.

    The seconds are those of `estimate_seconds`, which measures its rates now. Rows that equal others are counted, so a
    solve that only fits without them is forecast as left out.

    Raises:
        InputError: solver, tolerance or memory is out of its range.
    """
    budget = parse_memory(memory, x.device)
    found = _look_up(kernel, x, y, None, ridge, budget, solver, tolerance, folder, leave_one_out)
    if found.solution is not None and not found.unmet:
        return LimitForecast(read_from=found.path)
    try:
        if patience is not None:
            patience.require_rows(len(x))
        solve = _forecast_solve(kernel, x, y, budget, solver, found.leave_one_out)
    except KLError as error:
        return LimitForecast(left_out=str(error))
    if patience is None or solve.solver is None or not patience.ends(solve.solver, solve.seconds):
        return solve
    reason = (
        f"{solve.solver} would take about {duration(solve.seconds)}, more than max_seconds={patience.max_seconds:g}"
    )
    return replace(solve, seconds=patience.max_seconds, left_out=reason)


@dataclass(frozen=True)
class _LookUp:
    """What is kept of a limit, and what is asked for."""

    path: Path
    key: str
    solution: Interpolant | None
    unmet: str
    """Why the solution does not meet the request; empty if it does."""
    leave_one_out: bool


def _look_up(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    centers: Tensor | None,  # shape: (p, d)
    ridge: float,
    budget: int,
    solver: str,
    tolerance: float,
    folder: str | os.PathLike[str] | None,
    leave_one_out: bool | None,
) -> _LookUp:
    """The kept solution, and whether it meets the request; the arguments are those of `exact_limit`.

    Raises:
        InputError: solver or tolerance is out of its range.
    """
    check_solver(solver)
    check_tolerance(tolerance)
    key = solution_key(kernel, x, y, ridge, centers)
    path = Path(solutions_folder() if folder is None else folder) / f"{key}.pt"
    kept, reason = load_solution(path, key, kernel, x, y, centers), ""
    left = centers is None and (_costs_little(x, y, solver, budget) if leave_one_out is None else leave_one_out)
    if kept is not None:
        by_auto = leave_one_out is None and solver == "auto" and FAMILY.get(kept.solver, kept.solver) != "direct"
        reason = unmet(kept, tolerance, solver if centers is None else "auto", left and not by_auto)
    return _LookUp(path, key, kept, reason, left)


def _forecast_solve(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    budget: int,
    solver: str,
    leave_one_out: bool,
) -> LimitForecast:
    """The solver, bytes and seconds of a new solve.

    Raises:
        MemoryBudgetError: the solve does not fit the budget, if equal rows are not merged.
    """
    (n, d), c = x.shape, y.shape[1]
    solver = choose_solver(solver, n, d, c, budget, x.device, leave_one_out)
    check_budget(solver, n, d, c, budget, leave_one_out)
    if solver == "direct":
        needed = direct_memory(n, d, c, None, leave_one_out)
    else:
        needed = pcg_memory(n, d, c, *pcg_plan(n, d, c, budget))
    return LimitForecast(solver, needed, estimate_seconds(kernel, x, solver, budget, c))


def _costs_little(x: Tensor, y: Tensor, solver: str, budget: int) -> bool:
    """Whether the solve is direct, and leave-one-out predictions fit the budget beside it."""
    (n, d), c = x.shape, y.shape[1]
    direct = choose_solver(solver, n, d, c, budget, x.device, leave_one_out=True) == "direct"
    return direct and direct_memory(n, d, c, leave_one_out=True) <= budget


def evaluate_on(
    rows: RowDataset | None,
    solution: Interpolant,
    classifier: bool,
    scale: Tensor | None = None,  # shape: (c,)
) -> dict[str, float | None]:
    """mse, error and error_noisy of f* on a validation or test set; None if they do not apply, or without rows.

    The scores are computed in float64, because large weights of both signs cancel.
    """
    if rows is None:
        return dict.fromkeys(("mse", "error", "error_noisy"))
    return evaluate_scores(solution.predict(rows.x).cpu(), rows.y, rows.y_noisy, classifier, scale)


def _announce(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    centers: Tensor | None,  # shape: (p, d)
    budget: int,
    solver: str,
    patience: Patience,
    leave_one_out: bool,
) -> None:
    """Log the coming solve and, if it fits the budget, its estimated time; if it does not, the solver raises an error.

    Raises:
        KLError: there are more rows than the patience allows.
    """
    if centers is not None:
        log.info("exact limit: least squares of n=%d rows over the span of p=%d centres", len(x), len(centers))
        return
    patience.require_rows(len(x))
    try:
        found = _forecast_solve(kernel, x, y, budget, solver, leave_one_out)
    except MemoryBudgetError:  # the solver raises it, too, unless it fits once equal rows are merged
        return
    about = duration(found.seconds)
    log.info("exact interpolation: solving n=%d rows on %s (%s), about %s", len(x), x.device, found.solver, about)


def _say_solved(solution: Interpolant, centers: Tensor | None) -> None:
    took, norm = duration(solution.seconds), solution.rkhs_norm
    if centers is not None:
        log.info("exact limit: took %s, |f*| = %.6g", took, norm)
    else:
        residual = solution.relative_residual
        log.info("exact interpolation: took %s, relative residual %.1e, |f*| = %.6g", took, residual, norm)
