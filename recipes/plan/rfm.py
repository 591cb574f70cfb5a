"""The plan of `kl fit --learn-features`: seconds of a round and of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, time_table
from recipes.plan.rounds import forecast_rounds

if TYPE_CHECKING:
    from kl import RecursiveFeatureMachine


def plan_rfm(machine: RecursiveFeatureMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a round, if all are made: a solve on the rows of each chain, and the gradients of its function.

    The rounds may stop earlier.
    """
    found = forecast_rounds(machine.learning, machine.kernel, machine.origin)
    results: dict[str, Any] = {"seconds_planning": run.seconds_spent, "round_solver": found.solver}
    results["chains"] = found.chains
    learnt = run.epochs - 2  # the first and the last epoch learn no metric
    total = run.seconds_spent + found.first + learnt * found.each + found.last
    return RunForecast({**results, "seconds_per_epoch": found.each, "seconds_total": total}, tables)


def tables(results: dict[str, Any]) -> list[Table]:
    """One table for people."""
    r = results
    times = [
        ("data and plan", r["seconds_planning"]),
        (f"an epoch, one round of {r['chains']} fit(s) by {r['round_solver']}", r["seconds_per_epoch"]),
    ]
    return [time_table(r, times)]
