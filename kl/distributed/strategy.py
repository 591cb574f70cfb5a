"""Several devices, one kernel machine: the Lightning strategy under which its centres are shared among ranks."""

from __future__ import annotations

import atexit
import contextlib
import logging
import signal
import warnings
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.trainer.states import TrainerFn

from kl.distributed.launcher import RankLauncher
from kl.distributed.ranks import Ranks
from kl.distributed.watch import Watch, tell
from kl.system.signals import LastingInterrupt, in_main_thread, signals_end

log = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=10)  # of a collective


class KernelParallelStrategy(DDPStrategy):
    """One process per device, each with its rows of the centres and weights; the machine calls the collectives.

    Unlike DDP the strategy does not wrap the module, because the parameters differ from rank to rank and the steps have
    no gradients to average. Every rank sees all batches, and the machine takes its rows of them. NCCL connects GPUs,
    gloo connects CPUs; Lightning starts the processes as for DDP, or finds them under torchrun and SLURM. If one
    process is lost, the others end too; see `kl.distributed.watch`.

    Args:
        timeout: the longest that a rank waits for another in a collective; None is ten minutes. What rank 0 does for
            all, such as an exact solve, may take longer.
        **options: options of Lightning's DDPStrategy, such as `process_group_backend`.

    Example:
        >>> import kl
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(accelerator="cpu", devices=2, strategy="kernel_parallel", logger=False)
        >>> trainer.world_size, isinstance(trainer.strategy, kl.KernelParallelStrategy)
        (2, True)
    """

    strategy_name = "kernel_parallel"

    def __init__(self, *, timeout: timedelta | None = None, **options: Any) -> None:
        super().__init__(timeout=timeout or TIMEOUT, **options)
        self.watch = Watch()
        self._failed = False

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)
        self.watch = self._launcher.watch

    def setup_environment(self) -> None:
        """Connect the ranks, which from now on watch one another."""
        assert self.cluster_environment is not None
        if isinstance(self._launcher, RankLauncher):
            self._launcher.watch_children()
        if self.num_nodes > 1:
            where = f"{self.cluster_environment.main_address}:{self.cluster_environment.main_port}"
            log.info(
                "waiting for %d processes on %d machines at %s",
                self.num_nodes * self.num_processes,
                self.num_nodes,
                where,
            )
        with signals_end(self._leave) if self.local_rank == 0 else contextlib.nullcontext():
            super().setup_environment()
        self._failed = False
        if self.world_size > 1:
            atexit.register(disconnect)  # gloo's threads must end before Python does; once is enough
            self.watch.enter(Ranks(self.global_rank, self.world_size), self.cluster_environment.main_address)

    def _leave(self) -> None:
        """End what this process has begun."""
        tell("interrupted")
        self.watch.clean_up()

    def load_checkpoint(self, checkpoint_path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Read the checkpoint that rank 0 goes on from; another rank may have found a newer one."""
        return super().load_checkpoint(self.broadcast(checkpoint_path), *args, **options)

    def setup(self, trainer: pl.Trainer) -> None:
        """Put the module on its device; nothing of it is made equal on all ranks."""
        assert self.accelerator is not None
        assert self.model is not None
        # Metrics are of all rows, and the same on all ranks.
        warnings.filterwarnings("ignore", message=".*sync_dist=True")
        # Lightning would give every rank another part of each batch and fill up the last ones with repeated rows.
        trainer._accelerator_connector.use_distributed_sampler = False
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
            self._sigterm = LastingInterrupt()
            # In every step Lightning would ask rank 0, and make the device wait for the answer.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = self._sigterm.check  # type: ignore[method-assign]
        self.setup_precision_plugin()

    def on_train_start(self) -> None:
        """Take SIGTERM as Ctrl-C is taken, and leave this and SIGHUP to the first rank of a machine; all stop with one.

        Lightning's answer to SIGTERM is a collective in the middle of whatever the ranks do. It puts back in the end
        what it found.
        """
        if self.world_size > 1 and in_main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)
            if self.local_rank > 0:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def configure_ddp(self) -> None:
        """Leave the module as it is."""

    def on_exception(self, exception: BaseException) -> None:
        """Stop all ranks."""
        self._failed = True
        self.watch.fail(exception)
        super().on_exception(exception)

    def teardown(self) -> None:
        """Leave training, together where nothing has gone wrong."""
        if self.world_size > 1 and not self._failed:
            self.barrier("trained")
            if self.global_rank > 0:
                self.watch.leave()
            self.barrier("watched")  # rank 0 looks until no other gives signs of life any more
        self.watch.leave()
        if not self._failed:
            self.watch.close()
        super().teardown()

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Make the name known to `Trainer(strategy=...)`."""
        strategy_registry.register(cls.strategy_name, cls, description="kernel machines whose centres ranks share")


def disconnect() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


KernelParallelStrategy.register_strategies(StrategyRegistry)
