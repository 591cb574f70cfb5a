"""The plan of `kl fit --solver eigenpro`, with the plan of its exact limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, parameter_rows, time_table, traffic_row

if TYPE_CHECKING:
    from kl import KernelMachine


def plan_eigenpro(machine: KernelMachine, run: PreparedRun) -> RunForecast:
    """Rows kept, flops and seconds of a run of EigenPro 2."""
    from kl.estimate import estimate_training

    limit = None if run.memory is None else plan_limit(machine, run, run.memory)
    evaluated, memory = run.datamodule.val_set, machine.memory
    found = estimate_training(machine, run.datamodule.train_set, None if evaluated is None else evaluated.x)
    setup = run.seconds_reading_data + run.seconds_planning + found["seconds_filling"]
    each = found["seconds_per_epoch"] + found["seconds_training_error"] + found["seconds_evaluation"]
    exact_seconds = limit["seconds"] or 0.0 if limit else 0.0
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
    """Solver, bytes and predicted seconds of the exact limit.

    Solver and seconds are None if the budget is too small for every solver.
    """
    import torch

    from kl.exact.cost import choose_solver, direct_memory, estimate_seconds, pcg_memory, pcg_plan
    from kl.system.memory import parse_memory

    x = run.datamodule.train_set.x
    (n, d), c = x.shape, machine.alpha.shape[1]
    budget = max(1, parse_memory(memory, run.device) - machine.memory.before_training)  # as in the callback
    solver = choose_solver("auto", n, d, c, budget, torch.device(run.device))
    rank, panels = (0, 0) if solver == "direct" else pcg_plan(n, d, c, budget)
    needed = direct_memory(n, d, c) if solver == "direct" else pcg_memory(n, d, c, rank, panels)
    if needed > budget or (solver == "pcg" and rank == 0):
        return {"solver": None, "memory": needed, "seconds": None}
    seconds = estimate_seconds(machine.kernel, x.to(run.device), solver, budget, c)
    return {"solver": solver, "memory": needed, "seconds": seconds}


def tables(results: dict[str, Any]) -> list[Table]:
    """Two tables for people."""
    from kl.system.memory import format_memory

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
        solver, memory = r["exact"]["solver"] or "left out", format_memory(r["exact"]["memory"])
        times.append((f"exact limit ({solver}, {memory})", r["exact"]["seconds"]))
    return [("training", ("", ""), rows), time_table(r, times)]
