"""`kl fit`: train a kernel machine, next to its exact limit."""

from __future__ import annotations

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
from recipes.options.solvers import check_ranks, with_rounds
from recipes.run.imports import quick_imports


@takes(DataOptions, KernelOptions, SolverOptions, ExactOptions, RunOptions, TrainerOptions, OutputOptions)
def fit(
    data: DataOptions,
    kernel: KernelOptions,
    solver: SolverOptions,
    exact: ExactOptions,
    run: RunOptions,
    trainer: TrainerOptions,
    output: OutputOptions,
) -> None:
    """Train a kernel machine by EigenPro, or by conjugate gradients, next to its exact minimum-norm interpolant.

    Curves, figures and checkpoints go to a folder for TensorBoard. For example:

    kl fit --data mnist --train-size 10000 --kernel gaussian --bandwidth 5
    """
    with quick_imports():
        import torch  # noqa: F401 - what follows needs it

        from recipes.run.processes import find_processes

    processes = find_processes(trainer, run)
    check_ranks(solver, processes.size)
    if processes.to_start:
        from recipes.run.launch import launch_ranks

        launch_ranks(processes)
    with quick_imports():
        from recipes.output.report import fit_results, print_fit, with_whole_paths
        from recipes.run.build import build_run, check_run
        from recipes.run.trainer import check_training, new_run

    check_run(run)
    given, solver = solver, with_rounds(solver, SolverOptions.epochs)
    check_training(data, solver, exact, trainer)
    with quick_imports(last=True):
        import pytorch_lightning  # noqa: F401 - what follows needs both

        import callbacks.figures  # noqa: F401
    datamodule, machine = build_run(data, kernel, solver, exact, run)
    groups = (data, kernel, given, exact, run, trainer)
    kept = {name: value for group in groups for name, value in vars(group).items() if name != "resume"}
    name = trainer.name or f"{data.data}-{kernel.kernel}"
    lightning = new_run(data, solver, run, trainer, processes, name, kept)
    seconds = lightning.fit(machine, datamodule)
    results = fit_results(lightning.trainer, machine, datamodule, seconds)
    try:
        lightning.keep(with_whole_paths(results))
    finally:
        if processes.is_first:
            print_fit(results, machine, as_json=output.json)
