"""`kl plan`: memory, parameters and seconds of a training run, before it runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

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
from recipes.options.solvers import SOLVERS, check_ranks, with_rounds

if TYPE_CHECKING:
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
    from kl import GeneralKernelMachine
    from recipes.output.report import print_json, print_table
    from recipes.plan.general import assume_kernel
    from recipes.plan.prepared import PreparedRun, described, memory_table
    from recipes.run.build import build_run, check_run
    from recipes.run.processes import device_of, find_processes
    from recipes.run.trainer import check_training

    check_run(run)
    solver = with_rounds(solver, SolverOptions.epochs)
    check_training(data, solver, exact, trainer)
    processes = find_processes(trainer, run)
    check_ranks(solver, processes.size)
    datamodule, machine = build_run(data, kernel, solver, exact, run)
    start, device = time.perf_counter(), device_of(run)
    if processes.size > 1:
        become_first_of(machine, processes, device)
    datamodule.prepare_data()
    datamodule.setup("fit")
    read = time.perf_counter()
    if isinstance(machine, GeneralKernelMachine) and machine.learns_kernel:
        assume_kernel(machine, datamodule)
    machine.take(datamodule, device)
    prepared = PreparedRun(
        datamodule,
        solver.epochs,
        device,
        memory=None if trainer.no_exact else run.memory,
        seconds_reading_data=read - start,
        seconds_planning=time.perf_counter() - read,
    )
    found = SOLVERS[solver.solver].plan_function(machine, prepared)
    results = {**described(machine, prepared), **machine.parameters_chosen, **found.results}
    if output.json:
        print_json(results)
        return
    for title, header, rows in (memory_table(results, machine), *found.tables(results)):
        print_table(title, header, rows)


def become_first_of(machine: TrainedExpansion, processes: Processes, device: str) -> None:
    """Give the machine rank 0's share and, on a CPU, as many threads as Lightning will give each rank."""
    import torch

    from kl.distributed.ranks import FirstOfMany

    sharing = processes.size // processes.num_nodes if device == "cpu" else 1
    machine.ranks = FirstOfMany(processes.size, sharing)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // sharing))
