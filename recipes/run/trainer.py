"""From options to a training run: the Trainer with its logger, callbacks and checkpoints."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kl.errors import InputError
from kl.system.files import hold
from recipes.options.config import dump_config
from recipes.options.groups import DataOptions, ExactOptions, RunOptions, SolverOptions, TrainerOptions
from recipes.options.solvers import check_solver_options
from recipes.output.hardware import machine, origin
from recipes.output.report import dump_record
from recipes.run.folders import check_name, find_checkpoint, folder_name, run_folder
from recipes.run.processes import STRATEGY, Processes
from recipes.run.quiet import quiet_lightning, silence
from recipes.run.run import Run

if TYPE_CHECKING:
    import pytorch_lightning as pl


def check_training(data: DataOptions, solver: SolverOptions, exact: ExactOptions, trainer: TrainerOptions) -> None:
    """Check the options of a training run before any data is read.

    Raises:
        InputError: an option is out of its range, or does not go with the others.
    """
    check_solver_options(solver.solver, solver, exact)
    if solver.epochs < 1:
        raise InputError(f"epochs must be at least 1; got {solver.epochs}")
    if solver.patience is not None and solver.patience < 1:
        raise InputError(f"patience must be a whole number of epochs of at least 1; got {solver.patience}")
    if solver.patience is not None and not data.validation:
        raise InputError(
            f"patience={solver.patience} stops by a validation part, and with validation 0 the test set would choose: "
            "give --validation 0.1 as well"
        )
    if trainer.resume is not None and trainer.fast_dev_run:
        raise InputError("resume and fast_dev_run exclude each other: --fast-dev-run writes no checkpoint; drop one")
    check_name(trainer.name)
    if solver.stop_mse is not None and not 0 < solver.stop_mse < math.inf:
        raise InputError(f"stop_mse must be a finite number above 0; got {solver.stop_mse}")


def _origin(device: str) -> dict[str, Any]:
    return {**origin(), "machine": machine(device)}


def new_run(
    data: DataOptions,
    solver: SolverOptions,
    run: RunOptions,
    options: TrainerOptions,
    processes: Processes,
    name: str,
    kept: dict[str, Any],
) -> Run:
    """The run with its Trainer and all callbacks; `kept` are the options for the run folder's config.yaml.

    Ranks other than the first write and log nothing.

    Raises:
        InputError: the log directory cannot be written, or the checkpoint to resume from is not there.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger

    import callbacks

    quiet_lightning()
    if not processes.is_first:
        silence()
    name = folder_name(name)
    resume = find_checkpoint(options, name)
    in_terminal = sys.stderr.isatty()
    observers: list[pl.Callback] = [
        callbacks.Interrupts(),
        callbacks.Timing(),
        callbacks.RKHSNorm(per_step=options.norm_every_step),
    ]
    if not options.no_exact:
        observers.append(callbacks.ExactInterpolation(memory=run.memory))
    if solver.stop_when_interpolated or solver.stop_mse is not None:
        observers.append(callbacks.StopWhenInterpolated(mse=solver.stop_mse))
    chooser = callbacks.BestEpoch(solver.patience) if data.validation else None
    if chooser is not None:
        observers.append(chooser)
    observers += [
        callbacks.Spectrum(),
        callbacks.ConvergenceFigure(),
        callbacks.ConfusionMatrix(),
        callbacks.WorstErrors(),
        callbacks.FinalScores(),
        callbacks.LearntFeatures(),
        callbacks.TensorBoardLayout(),
    ]
    observers.append(callbacks.ProgressBar() if in_terminal else callbacks.EpochLines())
    logger: TensorBoardLogger | bool = False
    folder: Path | None = None
    before: set[Path] = set()
    held: int | None = None
    if not options.fast_dev_run:
        if processes.is_first:
            folder, before = run_folder(options, name, resume)
            held = hold(folder)
        # Lightning needs these on every rank, and uses the folder of the first rank.
        path = folder or Path(options.log_dir, name, "of the first rank")
        logger = TensorBoardLogger(options.log_dir, name=name, version=path.name, default_hp_metric=False)
        observers += [callbacks.last_checkpoint(path / "checkpoints"), callbacks.KeepOptions(kept, dump_config)]
        observers.append(callbacks.KeepRecord(_origin, dump_record))
        if chooser is not None:
            observers.append(callbacks.BestCheckpoint(path / "checkpoints", chooser))
    plugins: list[Any] = [callbacks.AtomicCheckpointIO()]
    if processes.environment is not None:
        plugins.append(processes.environment)
    trainer = pl.Trainer(
        accelerator={"cuda": "gpu"}.get(run.accelerator, run.accelerator),
        devices=processes.devices,
        num_nodes=processes.num_nodes,
        strategy="auto" if processes.environment is None else STRATEGY,
        max_epochs=solver.epochs,
        logger=logger,
        callbacks=observers,
        plugins=plugins,
        enable_checkpointing=not options.fast_dev_run,
        enable_progress_bar=in_terminal,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        fast_dev_run=options.fast_dev_run,
        use_distributed_sampler=False,
    )
    return Run(trainer, resume, folder, before, held)
