"""A training run: the Trainer with its logger, callbacks and checkpoints, and how it is resumed."""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kl.errors import CheckpointError, InputError, KLError, NoAnswerError
from kl.system.files import hold
from kl.system.signals import INTERRUPTED
from kl.system.wording import counted
from recipes.options.config import dump_config
from recipes.options.groups import DataOptions, ExactOptions, RunOptions, SolverOptions, TrainerOptions
from recipes.options.solvers import check_solver_options
from recipes.output.last_words import REMEDY, is_rank, say_last
from recipes.run.leftovers import remove_dead_runs
from recipes.run.processes import STRATEGY, Processes

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from datamodules import KernelDataModule
    from kl.machines.machine import TrainedExpansion


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a disk that takes no more


def check_training(data: DataOptions, solver: SolverOptions, exact: ExactOptions, trainer: TrainerOptions) -> None:
    """Check the options of a training run before any data is read.

    Raises:
        InputError: one is out of its range, or asks for what there is not yet.
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
    name = trainer.name
    if name is not None and any("\udc80" <= each <= "\udcff" for each in name):  # bytes that are no characters
        raise InputError(
            f"name must be characters of the locale, whose encoding here is {sys.getfilesystemencoding()}; got "
            f"{name!r}: set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or give an ASCII name"
        )
    if name is not None and (name.strip() in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 200):
        raise InputError(f"name must be the name of a folder in --log-dir, of at most 200 bytes; got {name!r}")
    if solver.stop_mse is not None and not 0 < solver.stop_mse < math.inf:
        raise InputError(f"stop_mse must be a finite number above 0; got {solver.stop_mse}")


@dataclass(frozen=True)
class Run:
    """A Trainer with its callbacks, and the checkpoint that it goes on from."""

    trainer: pl.Trainer
    resume: Path | None
    folder: Path | None
    """Where this process writes the run; None under fast_dev_run and on all ranks but the first."""
    before: set[Path]
    """That folder's contents and the folders above it, as far as they were there before the run."""
    held: int | None = None
    """File descriptor of the lock that says that a living process owns the folder."""

    def fit(self, machine: TrainedExpansion, datamodule: KernelDataModule) -> float:
        """Train, and return the seconds that took, reading the data included.

        Raises:
            InputError: the data or the checkpoint cannot be used, or the checkpoint has had all its epochs.
        """
        from kl import KernelParallelStrategy

        start, done, trained = time.perf_counter(), 0, False
        if isinstance(self.trainer.strategy, KernelParallelStrategy):
            self.trainer.strategy.before_end = self._end_unconnected
        try:
            if self.resume is not None:
                done = self._require_epochs_left(self.resume)
            with quiet_writer():
                self.trainer.fit(machine, datamodule=datamodule, ckpt_path=self.resume)
                trained = True
                if datamodule.validation and datamodule.test_set is not None:
                    self._test(machine, datamodule)
        except Exception as error:
            blamed = self._blamed(error)
            if blamed is error:
                raise
            raise blamed from error
        except (KeyboardInterrupt, SystemExit) as stop:  # Lightning answers a signal by SystemExit
            saved = self._saved_epochs(done)
            said = "no epoch was finished"
            if saved:
                are = counted(saved, "finished epoch") + (" is" if saved == 1 else " are")
                said = f"{are} kept; go on with the same command and --resume last"
                if trained:  # such a run would be told that it has had all its epochs
                    said = f"{are} kept, and the test set is not evaluated: go on with --resume last and more --epochs"
            self._say_interrupted(f"interrupted: {said}")
            raise SystemExit(INTERRUPTED) from stop
        finally:
            self._remove_unstarted()
            if self.held is not None:
                os.close(self.held)
        return time.perf_counter() - start

    def _test(self, machine: TrainedExpansion, datamodule: KernelDataModule) -> None:
        """The one pass over the test set of a run with a validation part, by the weights of its best epoch."""
        from callbacks import BestCheckpoint
        from callbacks.common import find_callback
        from kl.machines.checkpoints import read_checkpoint

        kept = find_callback(self.trainer, BestCheckpoint)
        if kept is not None and kept.chooser.best != kept.chooser.last:
            # Not by the Trainer, which would give the callbacks their states of that epoch, too.
            checkpoint = machine.ranks.broadcast_result(lambda: read_checkpoint(kept.path))
            machine.on_load_checkpoint(checkpoint)
            machine.load_state_dict(checkpoint["state_dict"])
        self.trainer.test(machine, datamodule=datamodule, verbose=False)

    def _remove_unstarted(self) -> None:
        if self.folder and not self._started():
            remove_new(self.folder, self.before)

    def _end_unconnected(self) -> None:
        """What is left to do where a signal ends this process while it waits for others."""
        self._say_interrupted("error: interrupted")
        self._remove_unstarted()

    def _say_interrupted(self, text: str) -> None:
        """All ranks of torchrun and SLURM are interrupted together, and the first speaks."""
        if is_rank() or self.trainer.is_global_zero:
            say_last(text, INTERRUPTED)

    def _blamed(self, error: Exception) -> Exception:
        """The error, with the rank that it came from."""
        import kl.distributed.ranks

        error = self._of_checkpoint(error)
        if isinstance(error, OSError) and error.filename is None and error.errno in FULL:
            error = KLError(  # an event file, or a figure
                f"files of the run in {self.folder} could not be written ({error.strerror}): free some space or give "
                "another --log-dir; the checkpoints that are there are whole"
            )
        ranks = self.trainer.world_size
        if ranks == 1:
            return error
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        in_collective = f"torch{os.sep}distributed" in where or where == kl.distributed.ranks.__file__
        if isinstance(error, RuntimeError) and in_collective:
            return NoAnswerError(
                f"rank {self.trainer.global_rank} of {ranks} got no answer from another, which hangs or was lost: "
                f"{REMEDY}; torch says: {str(error).splitlines()[0]}"
            )
        if isinstance(error, KLError) and self.trainer.global_rank > 0:
            return type(error)(f"{error} (on rank {self.trainer.global_rank} of {ranks})")
        return error

    def _of_checkpoint(self, error: Exception) -> Exception:
        """The error as one of the checkpoint's, where Lightning meets it on taking its own part out of that."""
        steps = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        if not steps & {"_restore_modules_and_callbacks", "restore_training_state"}:
            return error
        if isinstance(error, CheckpointError) and not str(error).startswith(str(self.resume)):
            return CheckpointError(f"{self.resume}: {error}")
        if isinstance(error, KLError):
            return error
        return CheckpointError(
            f"{self.resume}: Lightning cannot go on from it ({type(error).__name__}: {error}): another version wrote "
            "it, or it was changed; train again"
        )

    def _started(self) -> bool:
        from callbacks import KeepOptions

        return any(isinstance(each, KeepOptions) and each.written for each in self.trainer.callbacks)  # type: ignore[attr-defined]

    def _saved_epochs(self, before: int) -> int:
        """How many the last checkpoint has had, of which `before` when this run began."""
        saver = self.trainer.checkpoint_callback
        written = saver is not None and Path(saver.dirpath or "", "last.ckpt").exists()  # type: ignore[attr-defined]
        # The interrupt may come before the Trainer counts an epoch, and the first rank alone writes checkpoints.
        last = getattr(self.trainer.strategy.checkpoint_io, "epochs", 0)
        return max(1, before, last, self.trainer.current_epoch) if written else 0

    def _require_epochs_left(self, resume: Path) -> int:
        checkpoint = self.trainer.strategy.checkpoint_io.load_checkpoint(resume)
        done, asked = checkpoint["epoch"] + 1, self.trainer.max_epochs or 0
        if done >= asked:
            raise InputError(f"epochs must be more than the {done} that {resume} has had already; got {asked}")
        return done


def new_run(
    data: DataOptions,
    solver: SolverOptions,
    run: RunOptions,
    options: TrainerOptions,
    processes: Processes,
    name: str,
    kept: dict[str, Any],
) -> Run:
    """Put every callback in its place; `kept` are the options that the run folder's config.yaml repeats.

    On all ranks but the first nothing is written or said.

    Raises:
        InputError: the log directory cannot be written, or the checkpoint to resume from is not there.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger

    import callbacks

    quiet_lightning()
    if not processes.is_first:
        silence()
    name = name.replace(":", "-").replace(os.sep, "-")
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
        # Lightning asks every rank for these, and takes the folder of the first.
        path = folder or Path(options.log_dir, name, "of the first rank")
        logger = TensorBoardLogger(options.log_dir, name=name, version=path.name, default_hp_metric=False)
        observers += [callbacks.last_checkpoint(path / "checkpoints"), callbacks.KeepOptions(kept, dump_config)]
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


def find_checkpoint(options: TrainerOptions, name: str) -> Path | None:
    """The file that --resume means.

    Raises:
        InputError: there is none.
    """
    if options.resume is None:
        return None
    if options.resume != "last":
        path = Path(options.resume)
        with suppress(OSError):  # the name is too long
            if path.is_file():
                return path
        raise InputError(f"resume must be last or the path of a checkpoint; there is no file {path}")
    folder = Path(options.log_dir, name)
    found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"resume last found no checkpoint in {folder}: give the --log-dir and --name of the first run, or a path"
        )
    return found[-1]


def run_folder(options: TrainerOptions, name: str, resume: Path | None) -> tuple[Path, set[Path]]:
    """Where a run writes, a new folder or that of the run it goes on with, and what was there before.

    Raises:
        InputError: no file can be written there.
    """
    parent = Path(options.log_dir, name)
    require_writable(str(parent))
    remove_dead_runs(parent)
    if resume and is_run_of(resume, options.log_dir, name):
        folder = parent / resume.parent.parent.name
        return folder, {*folder.rglob("*"), folder, *folder.parents}
    before = {path for path in (parent, *parent.parents) if path.exists()}
    return new_version(parent), before


def is_run_of(checkpoint: Path, log_dir: str, name: str) -> bool:
    """Whether a checkpoint lies in a run folder of this name, so that the run can go on there."""
    return checkpoint.resolve().parent.parent.parent == Path(log_dir, name).resolve()


def new_version(folder: Path) -> Path:
    """Make the next version_N in a folder; no two runs get the same one."""
    number = 1 + max((int(path.name[8:]) for path in folder.glob("version_*") if path.name[8:].isdigit()), default=-1)
    while True:
        try:
            (folder / f"version_{number}").mkdir(parents=True)
        except FileExistsError:  # another run was quicker
            number += 1
        else:
            return folder / f"version_{number}"


def remove_new(folder: Path, before: set[Path]) -> None:
    """Take away what a run that never started has written: `before` are the paths that were there."""
    for path in sorted({*folder.rglob("*"), folder, *folder.parents} - before, reverse=True):
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def require_writable(folder: str) -> None:
    """Check that a folder is one or can be made, and that files can be written there; what this makes, it removes.

    Raises:
        InputError: no file can be written there.
    """
    made: list[Path] = []
    try:
        for path in reversed([Path(folder), *Path(folder).parents]):
            if not path.exists():
                path.mkdir()
                made.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"log_dir must be a folder that can be written; {folder!r}: {error.strerror}: give another --log-dir"
        ) from error
    finally:
        for path in reversed(made):
            path.rmdir()


def quiet_lightning() -> None:
    """Keep Lightning's advice off the screen: it does not concern whole-tensor batches."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")


@contextmanager
def quiet_writer() -> Iterator[None]:
    """Do not show errors of the thread that writes event files, which the main thread raises again."""
    usual = threading.excepthook

    def show(found: threading.ExceptHookArgs) -> None:
        if not (isinstance(found.exc_value, OSError) and type(found.thread).__module__.startswith("tensorboard.")):
            usual(found)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = usual


def silence() -> None:
    """Leave messages to the first rank, which has the same; errors are still reported."""
    for name in ("kl", "datamodules", "callbacks", "recipes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
