"""`kl plan`: what a training run would take, before it runs: memory, parameters and seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recipes.options.groups import (
    DataOptions,
    ExactOptions,
    KernelOptions,
    OutputOptions,
    RunOptions,
    SolverOptions,
    TrainerOptions,
    takes,
)

if TYPE_CHECKING:
    import torch

    from datamodules import KernelDataModule
    from kl import Kernel, KernelMachine
    from kl.machines.machine import TrainedExpansion
    from recipes.run.processes import Processes


@takes(DataOptions, KernelOptions, SolverOptions, ExactOptions, RunOptions, TrainerOptions, OutputOptions)
def plan(
    data: DataOptions,
    kernel: KernelOptions,
    solver: SolverOptions,
    exact: ExactOptions,
    run: RunOptions,
    trainer: TrainerOptions,
    output: OutputOptions,
) -> None:
    """Print what `kl fit` with the same options would take: memory by item, batch, q, s, step size and seconds.

    The data are read, the parameters chosen and two real steps timed; nothing is trained or written. For example:

    kl plan --data mnist --kernel laplacian --memory 8GB
    """
    from recipes.commands.plan_general import plan_general, print_general
    from recipes.output.report import print_json
    from recipes.run.build import build_run, check_run
    from recipes.run.processes import device_of, find_processes
    from recipes.run.trainer import check_training

    check_run(run)
    check_training(data, solver, exact, trainer)
    processes = find_processes(trainer, run)
    from kl import GeneralKernelMachine, KernelMachine

    datamodule, machine = build_run(data, kernel, solver, exact, run)
    start, device = time.perf_counter(), device_of(run)
    if processes.size > 1:
        become_first_of(machine, processes, device)
    datamodule.prepare_data()
    datamodule.setup("fit")
    read = time.perf_counter()
    machine.take(datamodule, device)
    prepared = time.perf_counter()
    show: Callable[[dict[str, Any], TrainedExpansion], None]
    if isinstance(machine, GeneralKernelMachine):
        results, show = plan_general(machine, datamodule, solver.epochs, prepared - start, device), print_general
    elif isinstance(machine, KernelMachine):
        limit = None if trainer.no_exact else exact_plan(machine.kernel, datamodule.train_set.x, machine, run, device)
        seconds = {"seconds_reading_data": read - start, "seconds_planning": prepared - read}
        results, show = plan_interpolating(machine, datamodule, solver.epochs, seconds, limit, device), print_plan
    else:
        results, show = plan_pcg(machine, datamodule, solver.epochs, prepared - start, device), print_pcg
    if output.json:
        print_json(results)
    else:
        show(results, machine)


def become_first_of(machine: TrainedExpansion, processes: Processes, device: str) -> None:
    """Give the machine rank 0's share; on a CPU as many threads as Lightning will give each rank of its machine."""
    import torch

    from kl.distributed.ranks import FirstOfMany

    sharing = processes.size // processes.num_nodes if device == "cpu" else 1
    machine.ranks = FirstOfMany(processes.size, sharing)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // sharing))


def plan_interpolating(
    machine: KernelMachine,
    datamodule: KernelDataModule,
    epochs: int,
    spent: dict[str, float],
    limit: dict[str, Any] | None,
    device: str,
) -> dict[str, Any]:
    """The plan of EigenPro 2; `spent` are the seconds that reading and planning have taken."""
    from kl.estimate import estimate_training
    from recipes.commands.plan_common import described

    evaluated = datamodule.val_set
    found = estimate_training(machine, datamodule.train_set, None if evaluated is None else evaluated.x)
    setup, memory = sum(spent.values()) + found["seconds_filling"], machine.memory
    each = found["seconds_per_epoch"] + found["seconds_training_error"] + found["seconds_evaluation"]
    exact_seconds = limit["seconds"] or 0.0 if limit else 0.0
    return {
        **described(machine, datamodule, machine.num_centers, epochs, device),
        **machine.parameters_chosen,
        "kept_rows": memory.kept_rows,
        "keeps_columns": memory.keep_columns,
        **spent,
        **found,
        "seconds_setup": setup,
        "seconds_total": setup + epochs * each + exact_seconds,
        "exact": limit,
    }


def exact_plan(
    kernel: Kernel,
    x: torch.Tensor,  # shape: (n, d)
    machine: KernelMachine,
    run: RunOptions,
    device: str,
) -> dict[str, Any]:
    """Solver, bytes and predicted seconds of the exact limit: the one place that asks the solvers.

    Solver and seconds are None where the budget does not hold what any solver needs.
    """
    import torch

    from kl.exact.cost import choose_solver, direct_memory, estimate_seconds, pcg_memory, pcg_plan
    from kl.system.memory import parse_memory

    (n, d), c = x.shape, machine.alpha.shape[1]
    held = machine.memory
    budget = max(1, parse_memory(run.memory, device) - held.before_training)  # as the callback has it
    solver = choose_solver("auto", n, d, c, budget, torch.device(device))
    rank, panels = (0, 0) if solver == "direct" else pcg_plan(n, d, c, budget)
    memory = direct_memory(n, d, c) if solver == "direct" else pcg_memory(n, d, c, rank, panels)
    if memory > budget or (solver == "pcg" and rank == 0):
        return {"solver": None, "memory": memory, "seconds": None}
    return {
        "solver": solver,
        "memory": memory,
        "seconds": estimate_seconds(kernel, x.to(device), solver, budget, c),
    }


def plan_pcg(
    machine: TrainedExpansion, datamodule: KernelDataModule, epochs: int, prepared: float, device: str
) -> dict[str, Any]:
    """The plan of `kl fit --solver pcg`; its exact limit is what it converges to, and is not planned."""
    from kl.exact.cost import pcg_seconds
    from recipes.commands.plan_common import described

    memory, x = machine.memory, datamodule.train_set.x
    solve = memory.budget - memory.items["training data, centres and state"]
    parts = pcg_seconds(machine.kernel, x.to(device), solve, datamodule.num_outputs, machine.ranks.size)
    return {
        **described(machine, datamodule, len(x), epochs, device),
        **machine.parameters_chosen,
        "seconds_planning": prepared,
        "seconds_filling": parts.setup,
        "seconds_per_epoch": parts.iteration,
        "seconds_total": prepared + parts.setup + epochs * parts.iteration,
    }


def print_pcg(results: dict[str, Any], machine: TrainedExpansion) -> None:
    """Two tables for people."""
    from kl.system.wording import counted
    from recipes.commands.plan_common import print_memory
    from recipes.output.report import print_table, readable_seconds

    r = results
    print_memory(r, machine)
    rows = [
        ("data and plan", readable_seconds(r["seconds_planning"])),
        (f"K and a preconditioner of rank {r['preconditioner_rank']}", readable_seconds(r["seconds_filling"])),
        ("an epoch, one iteration", readable_seconds(r["seconds_per_epoch"])),
        (f"all of it, {counted(r['epochs'], 'epoch')}", readable_seconds(r["seconds_total"])),
    ]
    print_table("predicted time", ("", ""), rows)


def print_plan(results: dict[str, Any], machine: TrainedExpansion) -> None:
    """Three tables for people."""
    from kl.system.memory import format_memory
    from kl.system.wording import counted
    from recipes.commands.plan_common import parameter_rows, print_memory, traffic_row
    from recipes.output.report import print_table, readable_seconds

    r, n = results, results["n"]
    print_memory(r, machine)
    kept = {0: "none", n: "all rows"}.get(r["kept_rows"], f"the first {r['kept_rows']} of {n} rows")
    columns = "part of K" if r["kept_rows"] == n else "kept" if r["keeps_columns"] else "computed in every step"
    print_table(
        "training",
        ("", ""),
        [
            *parameter_rows(r),
            ("K(X, X) kept", kept),
            ("K(X, X_S)", columns),
            ("steps an epoch", f"{r['steps_per_epoch']}"),
            ("flops an epoch" + (" of each rank" if r["ranks"] > 1 else ""), f"{r['flops_per_epoch']:.3g}"),
            *traffic_row(r),
        ],
    )
    rows = [
        ("reading the data", readable_seconds(r["seconds_reading_data"])),
        ("choosing parameters", readable_seconds(r["seconds_planning"])),
        ("computing the kept rows of K", readable_seconds(r["seconds_filling"])),
        ("an epoch's steps", readable_seconds(r["seconds_per_epoch"])),
        ("an epoch's errors", readable_seconds(r["seconds_training_error"] + r["seconds_evaluation"])),
    ]
    if r["exact"]:
        solver, memory = r["exact"]["solver"], format_memory(r["exact"]["memory"])
        seconds = r["exact"]["seconds"]
        rows.append(
            (f"exact limit ({solver or 'left out'}, {memory})", "" if seconds is None else readable_seconds(seconds))
        )
    rows.append((f"all of it, {counted(r['epochs'], 'epoch')}", readable_seconds(r["seconds_total"])))
    print_table("predicted time", ("", ""), rows)
