"""Several devices, one kernel machine: the Lightning strategy under which its centres are shared among ranks."""

from __future__ import annotations

import atexit
import logging
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.trainer.states import TrainerFn

from kl.system.signals import LastingInterrupt, signals_end

log = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=10)  # of a collective


class KernelParallelStrategy(DDPStrategy):
    """One process per device, each with its rows of the centres and weights; the machine calls the collectives.

    Unlike DDP the strategy does not wrap the module, because the parameters differ from rank to rank and the steps have
    no gradients to average. Every rank sees all batches, and the machine takes its rows of them. NCCL connects GPUs,
    gloo connects CPUs; Lightning starts the processes as for DDP, or finds them under torchrun and SLURM. A Trainer
    also knows it as "kernel_parallel", if kl was imported after Lightning, or this class or a machine was used.

    Args:
        timeout: the longest that a rank waits for another in a collective; None is ten minutes. What rank 0 does for
            all, such as an exact solve, may take longer.
        **options: options of Lightning's DDPStrategy, such as `process_group_backend`.

    Attributes:
        before_end: what is to be done before Ctrl-C or SIGTERM ends this process while it waits for others to connect.

    Example:
        >>> import kl
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(accelerator="cpu", devices=2, strategy=kl.KernelParallelStrategy(), logger=False)
        >>> trainer.world_size, trainer.strategy.strategy_name
        (2, 'kernel_parallel')
    """

    strategy_name = "kernel_parallel"

    def __init__(self, *, timeout: timedelta | None = None, **options: Any) -> None:
        super().__init__(timeout=timeout or TIMEOUT, **options)
        self.before_end: Callable[[], None] = lambda: None

    def setup_environment(self) -> None:
        """Connect the ranks."""
        assert self.cluster_environment is not None
        if self.num_nodes > 1:
            where = f"{self.cluster_environment.main_address}:{self.cluster_environment.main_port}"
            log.info(
                "waiting for %d processes on %d machines at %s",
                self.num_nodes * self.num_processes,
                self.num_nodes,
                where,
            )
        with signals_end(lambda: self.before_end()):
            super().setup_environment()
        if self.world_size > 1:
            atexit.register(disconnect)  # gloo's threads must end before Python does; once is enough

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
            if self.world_size > 1:
                _take_sigterm_as_interrupt(trainer)
        self.setup_precision_plugin()

    def configure_ddp(self) -> None:
        """Leave the module as it is."""

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Make the name known to `Trainer(strategy=...)`."""
        strategy_registry.register(cls.strategy_name, cls, description="kernel machines whose centres ranks share")


def _take_sigterm_as_interrupt(trainer: pl.Trainer) -> None:
    """Let SIGTERM stop a rank as Ctrl-C does.

    Lightning's answer to it is a collective in the middle of whatever the ranks do, and in every step it would ask
    rank 0 whether it came, and make the device wait for the answer.
    """
    interrupt = LastingInterrupt()
    trainer._signal_connector._sigterm_notifier_fn = interrupt  # type: ignore[assignment, method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = interrupt.check  # type: ignore[method-assign]


def disconnect() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


KernelParallelStrategy.register_strategies(StrategyRegistry)
