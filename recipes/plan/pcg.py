"""The plan of `kl fit --solver pcg`; the exact limit is not planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, time_table

if TYPE_CHECKING:
    from kl import ConjugateGradientMachine


def plan_pcg(machine: ConjugateGradientMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a run of conjugate gradients."""
    from kl.exact.cost import pcg_seconds

    memory, data, spent = machine.memory, run.datamodule, run.seconds_spent
    solve = memory.budget - memory.items["training data, centres and state"]
    x = data.train_set.x.to(run.device)
    parts = pcg_seconds(machine.kernel, x, solve, data.num_outputs, machine.ranks.size)
    results = {
        "seconds_planning": spent,
        "seconds_filling": parts.setup,
        "seconds_per_epoch": parts.iteration,
        "seconds_total": spent + parts.setup + run.epochs * parts.iteration,
    }
    return RunForecast(results, tables)


def tables(results: dict[str, Any]) -> list[Table]:
    """One table for people."""
    r = results
    times = [
        ("data and plan", r["seconds_planning"]),
        (f"K and a preconditioner of rank {r['preconditioner_rank']}", r["seconds_filling"]),
        ("an epoch, one iteration", r["seconds_per_epoch"]),
    ]
    return [time_table(r, times)]
