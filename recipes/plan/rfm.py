"""The plan of `kl fit --learn-features`: seconds of a round and of all."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, time_table

if TYPE_CHECKING:
    from kl import RecursiveFeatureMachine
    from kl.solve import Problem

TIMED_ROWS = 64  # whose gradients are timed, and scaled to the sample


def plan_rfm(machine: RecursiveFeatureMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a round, if all are made: a solve on the rows of each chain, and the gradients of its function.

    The rounds may stop earlier.
    """
    from kl.features.chain import WARM_EPOCHS
    from kl.solve import chosen_solver

    learning = machine.learning
    solver = chosen_solver(learning.whole, machine.hparams["round_solver"], learning.memory, leave_one_out=False)
    results: dict[str, Any] = {"seconds_planning": run.seconds_spent, "round_solver": solver, "chains": 0}
    chains = [chain.problem for chain in learning.chains]
    results["chains"] = len(chains)
    gradients = sum(seconds_of_gradients(machine, rows) for rows in chains)
    first, others = (
        sum(seconds_of_solve(machine, rows, solver, share) for rows in chains) for share in (1.0, WARM_EPOCHS)
    )
    last = seconds_of_solve(machine, learning.whole, solver, 1.0)
    rounds = run.epochs - 2  # the first and the last epoch learn no metric
    total = run.seconds_spent + first + rounds * (others + gradients) + last
    return RunForecast({**results, "seconds_per_epoch": others + gradients, "seconds_total": total}, tables)


def seconds_of_solve(machine: RecursiveFeatureMachine, rows: Problem, solver: str, share: float) -> float:
    """Seconds of a fit, by EigenPro with a share of its epochs.

    An epoch of EigenPro computes the kernel values that are not kept twice, once for each order of a pair of rows, and
    an iteration of conjugate gradients once.
    """
    from kl.exact.cost import estimate_seconds, pcg_seconds

    options, memory, c = machine.hparams, machine.learning.memory, rows.y.shape[1]
    if solver != "eigenpro":
        return estimate_seconds(machine.kernel, rows.x, solver, memory, c)
    parts = pcg_seconds(machine.kernel, rows.x, memory, c, machine.ranks.size)
    return parts.setup + 2 * math.ceil(share * options["round_epochs"]) * parts.iteration


def seconds_of_gradients(machine: RecursiveFeatureMachine, rows: Problem) -> float:
    """Seconds of the metric that a fit gives, scaled from a few rows to the sample."""
    import torch

    from kl.features.agop import agop
    from kl.rows.rows import Rows

    n, c = rows.y.shape
    options = machine.learning.options
    sample = min(n, options.sample or n)
    placed, weights = Rows.of(rows.x - machine.origin.to(rows.x)), torch.ones_like(rows.y)
    timed = placed[: min(TIMED_ROWS, sample)]
    start = time.perf_counter()
    agop(machine.kernel, timed, placed, weights, metric=options.metric, sketch=options.signs(n, c))
    return (time.perf_counter() - start) * sample / len(timed) / machine.ranks.size


def tables(results: dict[str, Any]) -> list[Table]:
    """One table for people."""
    r = results
    times = [
        ("data and plan", r["seconds_planning"]),
        (f"an epoch, one round of {r['chains']} fit(s) by {r['round_solver']}", r["seconds_per_epoch"]),
    ]
    return [time_table(r, times)]
