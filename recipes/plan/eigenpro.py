"""The plan of `kl fit --solver eigenpro`, with the plan of its exact limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.output.remedies import as_options
from recipes.plan.prepared import PreparedRun, RunForecast, Table, parameter_rows, time_table, traffic_row

if TYPE_CHECKING:
    from kl import KernelMachine


def plan_eigenpro(machine: KernelMachine, run: PreparedRun) -> RunForecast:
    """Rows kept, flops and seconds of a run of EigenPro 2."""
    from kl.estimate import estimate_training

    limit = None if run.memory is None else plan_limit(machine, run, run.memory)
    evaluated, memory = run.datamodule.val_set, machine.memory
    found = estimate_training(machine, run.datamodule.train_set, None if evaluated is None else evaluated.x)
    setup = run.seconds_spent + found["seconds_filling"]
    each = found["seconds_per_epoch"] + found["seconds_training_error"] + found["seconds_evaluation"]
    exact_seconds = limit["seconds"] if limit else 0.0
    results = {
        "kept_rows": memory.kept_rows,
        "keeps_columns": memory.keep_columns,
        "seconds_reading_data": run.seconds_reading_data,
        "seconds_planning": run.seconds_planning,
        **found,
        "seconds_setup": setup,
        "seconds_total": setup + run.epochs * each + exact_seconds,
        "exact": limit,
    }
    return RunForecast(results, tables)


def plan_limit(machine: KernelMachine, run: PreparedRun, memory: str) -> dict[str, Any]:
    """Solver, bytes and predicted seconds of the exact limit, as the callback of `kl fit` will treat it.

    Solver and bytes are None if nothing is solved for, because a kept solution is read ("cached") or the limit is left
    out for the reason in "left_out". A solve that is to be stopped has a reason, too.
    """
    import torch

    from callbacks import ExactInterpolation

    exact = ExactInterpolation(memory=memory)
    found = exact.forecast(machine, run.datamodule.train_set, torch.device(run.device))
    return {
        "solver": found.solver,
        "memory": found.memory,
        "seconds": found.seconds,
        "cached": found.read_from is not None,
        "left_out": None if found.left_out is None else as_options(found.left_out),
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Two tables for people."""
    r, n = results, results["n"]
    kept = {0: "none", n: "all rows"}.get(r["kept_rows"], f"the first {r['kept_rows']} of {n} rows")
    columns = "part of K" if r["kept_rows"] == n else "kept" if r["keeps_columns"] else "computed in every step"
    rows: list[tuple[str, ...]] = [
        *parameter_rows(r),
        ("K(X, X) kept", kept),
        ("K(X, X_S)", columns),
        ("steps an epoch", f"{r['steps_per_epoch']}"),
        ("flops an epoch" + (" of each rank" if r["ranks"] > 1 else ""), f"{r['flops_per_epoch']:.3g}"),
        *traffic_row(r),
    ]
    times = [
        ("reading the data", r["seconds_reading_data"]),
        ("choosing parameters", r["seconds_planning"]),
        ("computing the kept rows of K", r["seconds_filling"]),
        ("an epoch's steps", r["seconds_per_epoch"]),
        ("an epoch's errors", r["seconds_training_error"] + r["seconds_evaluation"]),
    ]
    if r["exact"]:
        times.append((f"exact limit ({_limit_text(r['exact'])})", r["exact"]["seconds"]))
    return [("training", ("", ""), rows), time_table(r, times)]


def _limit_text(exact: dict[str, Any]) -> str:
    """What becomes of the exact limit, in words."""
    from kl.system.memory import format_memory

    if exact["solver"] is None:
        return "kept" if exact["cached"] else "left out"
    stopped = ", then left out" if exact["left_out"] else ""
    return f"{exact['solver']}, {format_memory(exact['memory'])}{stopped}"
