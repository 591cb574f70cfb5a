"""The plan of `kl fit --solver eigenpro3` and `eigenpro4`; the exact limit is not planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, parameter_rows, time_table, traffic_row

if TYPE_CHECKING:
    from kl import GeneralKernelMachine


def plan_general(machine: GeneralKernelMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a run with centres of its own."""
    from kl.estimate import estimate_general

    found = estimate_general(machine, run.datamodule.train_set.x, run.datamodule.num_rows)
    each = found["seconds_per_epoch"] + found["seconds_norm"] + found["seconds_training_error"]
    total = run.seconds_spent + run.epochs * each
    return RunForecast({"seconds_planning": run.seconds_spent, **found, "seconds_total": total}, tables)


def tables(results: dict[str, Any]) -> list[Table]:
    """Two tables for people."""
    r = results
    rows: list[tuple[str, ...]] = [
        ("centres p", f"{r['centers']}"),
        *parameter_rows(r),
        ("steps between projections T", f"{r['projection_period']}"),
        ("projection by", f"{r['projection']}"),
        ("steps an epoch", f"{r['steps_per_epoch']}"),
        *traffic_row(r),
    ]
    times = [
        ("data and plan", r["seconds_planning"]),
        ("a projection", r["seconds_projection"]),
        ("an epoch's steps and projections", r["seconds_per_epoch"]),
        ("an epoch's norm", r["seconds_norm"]),
        ("an epoch's training error", r["seconds_training_error"]),
    ]
    return [("training", ("", ""), rows), time_table(r, times)]
