"""Training runs through the real Trainer, with clocks for the parts of an epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

import kl
from kl.eigenpro.memory import training_memory
from kl.eigenpro.options import default_subsample
from kl.errors import MemoryBudgetError
from kl.products.fused import choose
from kl.rows.int8 import encode
from kl.system.clock import now
from kl.system.memory import format_memory, free_memory
from recipes.bench.parts.fit import fit

if TYPE_CHECKING:
    from recipes.bench.settings import BenchData

PARTS = ("step", "advance", "sweep", "finish")


class Clocks(pl.Callback):
    """Adds up the seconds of a KernelMachine's steps by part, epoch by epoch.

    Attributes:
        spent: for each finished epoch, seconds by part: "step", "advance" (updating f(X)), "sweep" (the
            kernel product within "advance"), "finish" (the training error over all rows).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: list[dict[str, float]] = []
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the run a clock for its parts."""
        assert isinstance(pl_module, kl.KernelMachine)  # train() made it
        pl_module.run.clock = self._measure

    @contextlib.contextmanager
    def _measure(self, part: str) -> Iterator[None]:
        start = now(self.device)
        yield
        self._seconds[part] += now(self.device) - start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the next epoch's sums."""
        self.spent.append(self._seconds)
        self._seconds = dict.fromkeys(PARTS, 0.0)


class StopAtMse(pl.Callback):
    """Stops at the end of the first epoch whose training mse is at most `mse`, whatever the classification error."""

    def __init__(self, mse: float) -> None:
        self.mse = mse

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the mse over all rows."""
        assert isinstance(pl_module, kl.KernelMachine)  # train() made it
        trainer.should_stop = pl_module.train_metrics["train/mse"] <= self.mse


@dataclass(frozen=True)
class TrainingRun:
    """The epochs of one run; the first is left out if there are several."""

    epochs: list[float]
    """Seconds of each epoch, as callbacks.Timing counts them."""
    setup: float
    """Seconds until the first step: reading, preconditioner and, if K is kept, computing K."""
    inside: list[dict[str, float]] = field(default_factory=list)
    """Seconds by part of each epoch (see Clocks)."""
    detail: dict[str, Any] = field(default_factory=dict)
    machine: kl.KernelMachine | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the fastest epoch, because the limit is the fastest pass, too."""
        return min(self.epochs)


def budget_for(data: BenchData, keep: bool, subsample: int | None = None) -> int:
    """The budget in bytes that keeps all of K, or none of its rows; K(X, X_S) is kept, unless it is all of K."""
    (n, d), c = data.x.shape, data.y.shape[1]
    s = subsample or default_subsample(n)
    itemsize, integers = data.x.element_size(), kl.Rows.of(data.x).integers
    everything = training_memory(n, d, c, s, budget=2**62, itemsize=itemsize, integers=integers)
    least = sum(size for name, size in everything.items.items() if not name.startswith("K(X"))
    columns = n * s * itemsize
    if keep:
        return everything.total
    for budget in (max(least + columns, 4 * columns), least + columns, least):
        if training_memory(n, d, c, s, budget=budget, itemsize=itemsize, integers=integers).kept_rows == 0:
            break
    return budget


def require_memory(size: int, device: torch.device | str) -> None:
    """Check that the device has `size` free bytes.

    Raises:
        MemoryBudgetError: fewer are free.
    """
    if (free := free_memory(device)) < size:
        raise MemoryBudgetError(f"needs {format_memory(size)}, and {format_memory(free)} are free")


def train(
    data: BenchData,
    kernel: kl.Kernel,
    *,
    epochs: int = 3,
    subsample: int | None = None,
    memory: int | str = "auto",
    accelerator: str = "cpu",
    seed: int = 0,
    clocks: bool = False,
    precision: str = "high",
    callbacks: tuple[pl.Callback, ...] = (),
) -> TrainingRun:
    """Train for `epochs` epochs through the Trainer; clocks=True times the parts, for which a GPU run must wait."""
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    if isinstance(memory, int):
        require_memory(memory, device)
    machine = kl.KernelMachine(kernel, subsample=subsample or "auto", memory=memory, seed=seed, precision=precision)
    parts = Clocks(device)
    observers = (*callbacks, parts) if clocks else callbacks
    start = now(device)
    timing = fit(machine, data.datamodule(seed), epochs, accelerator, observers, limit_val_batches=0)
    total = now(device) - start
    plan, kept, inside, rows = machine.plan, machine.memory, parts.spent, machine.run.fitted.matrix.rows
    first = min(1, len(timing.seconds_per_epoch) - 1)
    detail = {
        "batch_size": plan.batch_size,
        "top_q": plan.top_q,
        "subsample": plan.subsample,
        "kept_rows": kept.kept_rows,
        "kept_columns": kept.keep_columns,
        "coded": encode(data.x) is not None,
        "digits": rows.digits is not None,
        "products": choose(machine.run.kernel, rows, rows, data.y.shape[1]).why,
        "steps_per_batch": machine.steps_per_batch,
        "recorded_steps": machine.run.graph.recorded > 0,
        "precision": precision,
        "budget_bytes": kept.budget,
        "seconds_per_epoch": list(timing.seconds_per_epoch),
        "train_mse": machine.train_metrics.get("train/mse"),
    }
    rest = total - sum(timing.seconds_per_epoch) - sum(part["finish"] for part in inside)
    return TrainingRun(timing.seconds_per_epoch[first:], rest, inside[first:], detail, machine)
