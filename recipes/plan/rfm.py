"""The plan of `kl fit --learn-features`: seconds of a round and of all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, time_table

if TYPE_CHECKING:
    from kl import RecursiveFeatureMachine
    from kl.solve import Problem

TIMED_ROWS = 64  # whose gradients are timed, and scaled to the sample


def plan_rfm(machine: RecursiveFeatureMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a round, if all are made: a solve on the rows of each chain, and the gradients of its function.

    The rounds may stop earlier. A round by EigenPro is not predicted.
    """
    from kl.solve import chosen_solver

    learning, memory = machine.learning, machine.memory.budget
    solver = chosen_solver(learning.whole, machine.hparams["round_solver"], memory, leave_one_out=False)
    results: dict[str, Any] = {"seconds_planning": run.seconds_spent, "round_solver": solver, "chains": 0}
    chains = [chain.problem for chain in learning.chains]
    results["chains"] = len(chains)
    if solver == "eigenpro":
        return RunForecast({**results, "seconds_per_epoch": None, "seconds_total": None}, tables)
    per_round = sum(seconds_of(machine, rows, solver, memory) for rows in chains)
    last = seconds_of(machine, learning.whole, solver, memory)
    total = run.seconds_spent + (run.epochs - 1) * per_round + last
    return RunForecast({**results, "seconds_per_epoch": per_round, "seconds_total": total}, tables)


def seconds_of(machine: RecursiveFeatureMachine, rows: Problem, solver: str, memory: int) -> float:
    """Seconds of a fit and of the metric that it gives."""
    import torch

    from kl.exact.cost import estimate_seconds
    from kl.products.gradients import gradient_matmul
    from kl.rows.rows import Rows

    n, c = rows.y.shape
    sample = min(n, machine.hparams["sample"] or n)
    timed = min(TIMED_ROWS, sample)
    placed, weights = Rows.of(rows.x - machine.origin.to(rows.x)), torch.ones(n, c, dtype=torch.float64)
    start = time.perf_counter()
    gradient_matmul(machine.kernel, placed[:timed], placed, weights.to(rows.x.device))
    gradients = (time.perf_counter() - start) * sample / timed
    return estimate_seconds(machine.kernel, rows.x, solver, memory, c) + gradients


def tables(results: dict[str, Any]) -> list[Table]:
    """One table for people."""
    r = results
    times = [
        ("data and plan", r["seconds_planning"]),
        (f"an epoch, one round of {r['chains']} fit(s) by {r['round_solver']}", r["seconds_per_epoch"]),
    ]
    return [time_table(r, times)]
