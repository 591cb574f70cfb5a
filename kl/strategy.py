"""Several devices, one kernel machine: the Lightning strategy under which its centres are shared among ranks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.trainer.states import TrainerFn


class KernelParallelStrategy(DDPStrategy):
    """One process per device, each with its rows of the centres and weights; the machine calls the collectives.

    Unlike DDP it does not wrap the module, whose parameters differ from rank to rank and whose steps have no gradients
    to average, and lets every rank see all batches: the machine takes its share of them. NCCL connects GPUs, gloo CPUs;
    processes are started, or found under torchrun and SLURM, as Lightning does it for DDP.

    Args:
        **options: as of Lightning's DDPStrategy, `timeout` and `process_group_backend` among them.
    """

    strategy_name = "kernel_parallel"

    def setup(self, trainer: pl.Trainer) -> None:
        """Put the module on its device; nothing of it is made equal on all ranks."""
        assert self.accelerator is not None
        assert self.model is not None
        # Lightning would give every rank another part of each batch and fill up the last ones with repeated rows.
        trainer._accelerator_connector.use_distributed_sampler = False
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def configure_ddp(self) -> None:
        """Leave the module as it is."""

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Make the name known to `Trainer(strategy=...)`."""
        strategy_registry.register(cls.strategy_name, cls, description="kernel machines whose centres ranks share")


KernelParallelStrategy.register_strategies(StrategyRegistry)
