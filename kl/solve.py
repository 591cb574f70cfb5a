"""From rows, targets and weights to a fitted function, by whichever solver: without a Trainer, without files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.distributed.ranks import Ranks
from kl.eigenpro.memory import training_memory
from kl.eigenpro.options import default_subsample
from kl.eigenpro.run import EigenProRun
from kl.exact.cost import choose_solver, direct_memory, pcg_memory, pcg_plan
from kl.exact.interpolate import Interpolant, check_budget, interpolate
from kl.exact.merged import MergedRows
from kl.kernels.kernel import Kernel
from kl.system.memory import parse_memory

SOLVERS = ("auto", "direct", "pcg", "eigenpro")
PCG_ROWS = 50_000  # distinct rows up to which "auto" solves exactly; EigenPro's few epochs take less time beyond
LOG_SECONDS = 1.0  # seconds between two lines of progress

Say = Callable[[str], object]


@dataclass(frozen=True)
class Problem:
    """Weighted least squares on distinct rows.

    Equal rows are one row here, with the sum of their weights and the weighted mean of their targets, so that a row of
    weight 2 is the same problem as the row given twice.
    """

    x: Tensor  # shape: (u, d)
    y: Tensor  # float64, shape: (u, c)
    weights: Tensor  # float64, shape: (u,)
    group: Tensor  # the distinct row of each row given, shape: (n,)
    first: Tensor  # the first of the rows given that equal each distinct row, shape: (u,)

    @classmethod
    def of(
        cls,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        weights: Tensor | None = None,  # above 0, float64, shape: (n,)
    ) -> Problem:
        """The problem of rows some of which may be equal; without weights each row counts 1."""
        merged = MergedRows.of(x, weights)
        return cls(
            x if merged.all_alone else x[merged.first], merged.targets(y), merged.totals, merged.group, merged.first
        )

    def rows(self, which: Tensor) -> Problem:
        """The problem of some of the distinct rows, chosen by a mask of shape (u,)."""
        which = which.to(self.x.device)
        count = int(which.sum())
        group = torch.arange(count, device=self.x.device)
        return Problem(self.x[which], self.y[which], self.weights[which], group, self.first[which])


@dataclass(frozen=True)
class Solution:
    """A fitted function and how it was found."""

    kernel: Kernel
    centers: Tensor  # the rows, not placed by the root, shape: (u, d)
    alpha: Tensor  # float64, shape: (u, c)
    rkhs_norm: float
    relative_residual: float
    iterations: int
    solver: str
    left_out: Tensor | None
    """f at each distinct row, fitted without that row, shape (u, c); None where the solver does not give it."""
    root: Tensor | None = None
    """M^(1/2) of a learnt metric (`kl.rows.root`), by which centres and rows are placed; None where there is none."""

    def to(self, device: torch.device | str) -> Solution:
        """The same solution with its tensors on the device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **moved)


def solve(
    problem: Problem,
    kernel: Kernel,
    ridge: float,
    solver: str,
    epochs: int,
    memory: int | str,
    seed: int,
    leave_one_out: bool,
    say: Say | None = None,
    initial: Tensor | None = None,  # shape: (u, c)
    ranks: Ranks | None = None,
) -> Solution:
    """Minimise sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2, to the end or, by EigenPro, for some epochs.

    Args:
        problem: rows, targets and weights.
        kernel: the kernel; its bandwidth must be resolved.
        ridge: lambda, not multiplied by n; 0 interpolates.
        solver: "auto" is "direct" while a factor fits the memory, then "pcg", and "eigenpro" beyond 50,000 rows.
        epochs: of EigenPro.
        memory: bytes, "8GB" or "auto".
        seed: of EigenPro's subsample and batches.
        leave_one_out: whether f without each row is wanted, where the solver gives it.
        say: is told of the progress; None is silent.
        initial: weights of a similar problem, from which iterations start; each output is scaled to suit this one.
        ranks: the processes that get the solution, each of which is given the same arguments, with the same bytes of
            memory. They share EigenPro's epochs; rank 0 does any other solve. None is one process.

    Raises:
        InputError: an argument is out of its range.
        MemoryBudgetError: the solver does not fit the memory.
        DivergenceError: EigenPro diverges.
    """
    solver, ranks = chosen_solver(problem, solver, memory, leave_one_out), ranks or Ranks()
    if solver == "eigenpro":
        return _by_eigenpro(problem, kernel, ridge, epochs, memory, seed, say, initial, ranks)
    last = time.monotonic()

    def progress(report: object) -> None:
        nonlocal last
        if say is not None and time.monotonic() - last >= LOG_SECONDS:
            say(str(report))
            last = time.monotonic()

    def work() -> Solution:
        found = interpolate(
            kernel,
            problem.x,
            problem.y,
            ridge=ridge,
            memory=memory,
            solver=solver,
            weights=problem.weights,
            leave_one_out=leave_one_out,
            progress=progress,
            initial=initial,
        )
        return _of_interpolant(found)

    if ranks.size == 1:
        return work()
    found = ranks.broadcast_result(lambda: replace(work(), centers=problem.x[:0]).to("cpu"))  # all have the centres
    return replace(found.to(problem.x.device), centers=problem.x)


def chosen_solver(problem: Problem, solver: str, memory: int | str, leave_one_out: bool) -> str:
    """What solves: "direct", "pcg" or "eigenpro"; "auto" goes by the rows, the memory and what is wanted.

    Raises:
        InputError: there is no such solver, or memory is no budget.
    """
    check_one_of("solver", solver, SOLVERS)
    if solver != "auto":
        return solver
    (u, d), c, device = problem.x.shape, problem.y.shape[1], problem.x.device
    found = choose_solver("auto", u, d, c, parse_memory(memory, device), device, leave_one_out)
    return "eigenpro" if found == "pcg" and u > PCG_ROWS else found


def solve_memory(solver: str, n: int, d: int, c: int, budget: int, ranks: int = 1) -> int:
    """The bytes that `solve` takes of a budget, on each of the ranks.

    Args:
        solver: "direct", "pcg" or "eigenpro".
        n: rows that differ.
        d: features.
        c: outputs.
        budget: bytes.
        ranks: processes that share EigenPro's epochs.

    Raises:
        MemoryBudgetError: the solver does not fit the budget.
    """
    if solver == "eigenpro":
        return training_memory(n, d, c, default_subsample(n), budget, ranks=ranks).total
    check_budget(solver, n, d, c, budget, leave_one_out=False)
    if solver == "pcg":
        return pcg_memory(n, d, c, *pcg_plan(n, d, c, budget))
    return min(direct_memory(n, d, c), budget)


def _of_interpolant(found: Interpolant) -> Solution:
    left_out = None if found.leave_one_out is None else found.leave_one_out.predictions
    return Solution(
        found.kernel,
        found.centers,
        found.alpha,
        found.rkhs_norm,
        found.relative_residual,
        max(1, found.iterations),
        found.solver,
        left_out,
    )


def _by_eigenpro(
    problem: Problem,
    kernel: Kernel,
    ridge: float,
    epochs: int,
    memory: int | str,
    seed: int,
    say: Say | None,
    initial: Tensor | None,
    ranks: Ranks,
) -> Solution:
    run = EigenProRun(
        kernel,
        problem.x,
        problem.y,
        ridge=ridge,
        weights=problem.weights,
        memory=memory,
        seed=seed,
        device=problem.x.device,
        ranks=ranks,
    )
    if initial is not None:
        run.start_from(initial)
    start = time.monotonic()
    for epoch in range(1, epochs + 1):
        for rows in run.batches():
            run.step(rows)
        run.end_epoch()
        if say is not None:
            left = (time.monotonic() - start) * (epochs - epoch) / epoch
            say(f"epoch {epoch}/{epochs}: RKHS norm {run.rkhs_norm:.4g}, about {left:.0f} s left")
    alpha, fitted = run.in_data_order(run.alpha), run.fitted_values()
    residual = problem.y - fitted - (ridge / problem.weights)[:, None] * alpha
    relative = float(residual.norm()) / max(float(problem.y.norm()), torch.finfo(torch.float64).tiny)
    return Solution(run.kernel, problem.x, alpha, run.rkhs_norm, relative, epochs, "eigenpro", None)
