"""A training run: how it resumes from a checkpoint, how it ends, and how failures are reported."""

from __future__ import annotations

import errno
import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kl.errors import CheckpointError, InputError, KLError, NoAnswerError
from kl.system.signals import INTERRUPTED
from kl.system.wording import counted
from recipes.output.last_words import REMEDY, is_rank, say_last
from recipes.run.folders import remove_new
from recipes.run.quiet import quiet_writer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from datamodules import KernelDataModule
    from kl.machines.machine import TrainedExpansion

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a disk that takes no more data


@dataclass(frozen=True)
class Run:
    """A Trainer with its callbacks, and the checkpoint from which it resumes."""

    trainer: pl.Trainer
    resume: Path | None
    folder: Path | None
    """The folder to which this process writes; None under fast_dev_run and on all ranks but the first."""
    before: set[Path]
    """The folder's contents and the folders above it that existed before the run."""
    held: int | None = None
    """File descriptor of the lock that says that a living process owns the folder."""

    def fit(self, machine: TrainedExpansion, datamodule: KernelDataModule) -> float:
        """Train, and return the seconds that took, reading the data included.

        Raises:
            InputError: the data or the checkpoint cannot be used, or the checkpoint has had all epochs already.
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
        except (KeyboardInterrupt, SystemExit) as stop:  # Lightning raises SystemExit on a signal
            saved = self._saved_epochs(done)
            said = "no epoch was finished"
            if saved:
                are = counted(saved, "finished epoch") + (" is" if saved == 1 else " are")
                said = f"{are} kept; go on with the same command and --resume last"
                if trained:  # with the same --epochs, resuming would be refused
                    said = f"{are} kept, and the test set is not evaluated: go on with --resume last and more --epochs"
            self._say_interrupted(f"interrupted: {said}")
            raise SystemExit(INTERRUPTED) from stop
        finally:
            self._remove_unstarted()
            if self.held is not None:
                os.close(self.held)
        return time.perf_counter() - start

    def _test(self, machine: TrainedExpansion, datamodule: KernelDataModule) -> None:
        """Evaluate a run with a validation part once on the test set, with the weights of its best epoch."""
        from callbacks import BestCheckpoint
        from callbacks.common import find_callback
        from kl.machines.checkpoints import read_checkpoint

        kept = find_callback(self.trainer, BestCheckpoint)
        if kept is not None and kept.chooser.best != kept.chooser.last:
            # Not loaded by the Trainer, because it would also give the callbacks their states of that epoch.
            checkpoint = machine.ranks.broadcast_result(lambda: read_checkpoint(kept.path))
            machine.on_load_checkpoint(checkpoint)
            machine.load_state_dict(checkpoint["state_dict"])
        self.trainer.test(machine, datamodule=datamodule, verbose=False)

    def keep(self, results: dict[str, Any]) -> None:
        """Write the results into the run's folder, if it has one.

        Raises:
            KLError: the disk takes no more.
        """
        from callbacks import KeepRecord
        from callbacks.common import find_callback

        if (keeper := find_callback(self.trainer, KeepRecord)) is not None:
            try:
                keeper.finish(self.trainer, results)
            except OSError as error:
                blamed = self._blamed(error)
                if blamed is error:
                    raise
                raise blamed from error

    def _remove_unstarted(self) -> None:
        if self.folder and not self._started():
            remove_new(self.folder, self.before)

    def _end_unconnected(self) -> None:
        """Report and clean up if a signal ends this process while it waits for other ranks."""
        self._say_interrupted("error: interrupted")
        self._remove_unstarted()

    def _say_interrupted(self, text: str) -> None:
        """Report an interruption; under torchrun and SLURM all ranks are interrupted, and only the first reports."""
        if is_rank() or self.trainer.is_global_zero:
            say_last(text, INTERRUPTED)

    def _blamed(self, error: Exception) -> Exception:
        """The error to report: its cause in plain words, with the rank that it came from."""
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
        """The error as a `CheckpointError`, if Lightning met it while it restored its own part of the checkpoint."""
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
        """The number of finished epochs that the last checkpoint holds, with the `before` epochs of earlier runs."""
        saver = self.trainer.checkpoint_callback
        written = saver is not None and Path(saver.dirpath or "", "last.ckpt").exists()  # type: ignore[attr-defined]
        # The interrupt may come before the Trainer counts an epoch, and only the first rank writes checkpoints.
        last = getattr(self.trainer.strategy.checkpoint_io, "epochs", 0)
        return max(1, before, last, self.trainer.current_epoch) if written else 0

    def _require_epochs_left(self, resume: Path) -> int:
        checkpoint = self.trainer.strategy.checkpoint_io.load_checkpoint(resume)
        done, asked = checkpoint["epoch"] + 1, self.trainer.max_epochs or 0
        if done >= asked:
            raise InputError(f"epochs must be more than the {done} that {resume} has had already; got {asked}")
        return done
