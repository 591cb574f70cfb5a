"""One training run on some ranks, measured from inside; rank 0 prints one line of JSON."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

import kl
from kl.distributed.ranks import Ranks
from kl.machines.machine import TrainedExpansion
from kl.rows.workspace import spans
from kl.system.clock import now, seconds_of
from recipes.bench.parts.fit import fit

MESSAGE = 2**20  # bytes that the bandwidth of the link is measured with
REPEATS = 20


class Clock:
    """Counts the seconds that this rank spends in collectives: starting them, and waiting for their results."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, 0.0
        for name in ("begin_all_reduce_sum", "begin_all_gather"):
            setattr(Ranks, name, self._timed(getattr(Ranks, name)))

    def _timed(self, begin: Callable[..., Callable[[], Any]]) -> Callable[..., Callable[[], Any]]:
        def timed(*args: Any) -> Callable[[], Any]:
            wait = self._counted(begin, *args)
            return lambda: self._counted(wait)

        return timed

    def _counted(self, work: Callable[..., Any], *args: Any) -> Any:
        start = self.now()
        result = work(*args)
        self.seconds += self.now() - start
        return result

    def now(self) -> float:
        """The time in seconds, after a GPU has finished all its work."""
        return now(self.device)


class Epochs(pl.Callback):
    """Seconds, seconds in collectives and bytes received of each epoch's steps."""

    counts_batches = True  # so that one rank has a training batch for each step, as several ranks have

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.found: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: TrainedExpansion) -> None:  # type: ignore[override]
        """Read the clocks."""
        self._before = self.clock.now(), self.clock.seconds, pl_module.ranks.received

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: TrainedExpansion, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clocks again, after the last step."""
        if batch_idx + 1 == trainer.num_training_batches:
            after = self.clock.now(), self.clock.seconds, pl_module.ranks.received
            values = (b - a for a, b in zip(self._before, after, strict=True))
            self.found.append(dict(zip(("seconds", "in_collectives", "received"), values, strict=True)))


class NothingKept(kl.KernelMachine):
    """Computes every kernel value in every step, however much memory there is."""

    def on_train_start(self) -> None:
        """Keep no kernel values."""


def usual(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median seconds of `repeats` runs."""
    return statistics.median(seconds_of(work, repeats, device))


def plain_products(
    x: torch.Tensor,  # shape: (n, d)
    m: int,
    ranks: Ranks,
) -> float:
    """Seconds of X_B X_r^T over all batches, in float32: an epoch's inner products on this rank, as plain products."""
    own = x[ranks.local_rows(len(x))].T.contiguous()
    out = x.new_empty(m, own.shape[1])

    def work() -> None:
        for part in spans(len(x), m):
            torch.mm(x[part], own, out=out[: part.stop - part.start])

    work()
    ranks.all_gather_object(None)  # all at the same time, as in training
    return usual(work, 3, x.device)


def link(ranks: Ranks, device: torch.device) -> dict[str, float]:
    """Bytes a second of a large gather, seconds of a small sum."""
    if ranks.size == 1:
        return {}
    large = torch.zeros(MESSAGE // ranks.size, dtype=torch.uint8, device=device)
    small = torch.zeros(1, device=device)
    counts = [len(large)] * ranks.size
    ranks.all_gather(large, counts)
    gather = usual(lambda: ranks.all_gather(large, counts), REPEATS, device)
    latency = usual(lambda: ranks.all_reduce_sum(small), 5 * REPEATS, device)
    # A gather receives the parts of the other ranks only.
    return {"bandwidth": MESSAGE * (ranks.size - 1) / ranks.size / gather, "latency": latency}


def run(options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Train; returns the measurements, and whether this is rank 0."""
    from recipes.options.groups import DataOptions
    from recipes.run.build import build_data

    data = build_data(DataOptions(options["data"], options["data_dir"], train_size=options["n"]), options["seed"])
    common = {"batch_size": options["batch_size"], "subsample": options["subsample"], "seed": options["seed"]}
    common["memory"] = options["memory"]
    machine: TrainedExpansion
    if options["centers"]:
        machine = kl.GeneralKernelMachine(options["kernel"], options["centers"], **common)
    else:
        machine = (kl.KernelMachine if options["keep"] else NothingKept)(options["kernel"], **common)
    epochs = Epochs(Clock("cuda" if options["accelerator"] == "gpu" else "cpu"))
    strategy = "kernel_parallel" if options["ranks"] > 1 else "auto"
    fit(
        machine,
        data,
        options["epochs"],
        options["accelerator"],
        (epochs,),
        devices=options["ranks"],
        strategy=strategy,
        limit_val_batches=0,
    )
    trainer = machine.trainer
    ranks, device = machine.ranks, trainer.strategy.root_device
    x = data.train_set.x.float().to(device)
    steps = -(-len(x) // machine.batch_rows)
    fastest = min(epochs.found[1:] or epochs.found, key=lambda each: each["seconds"])
    codes = machine._center_rows.codes is not None
    return {
        **fastest,
        "received": fastest["received"] / steps,
        "steps": steps,
        "batch_size": machine.batch_rows,
        "q": len(machine.weights),
        "s": len(machine.vectors),
        "d": x.shape[1],
        "c": machine.alpha.shape[1],
        "coded": codes,
        "period": getattr(machine, "period", None),
        "plain": plain_products(x, machine.batch_rows, ranks) if not options["centers"] else None,
        "link": link(ranks, device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "train_mse": machine.train_metrics["train/mse"],
    }, trainer.is_global_zero


if __name__ == "__main__":
    values, first = run(json.loads(sys.argv[1]))
    if first:
        print(json.dumps(values))
