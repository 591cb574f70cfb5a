"""Epochs of training compared with the roofline, and the time in them of Lightning, the norm and the training error."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from recipes.bench import record
from recipes.bench.parts.roofline import ROOFLINE, Shape
from recipes.bench.parts.training import TrainingRun, budget_for, train
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData

EPOCH_ITSELF = "the epoch"


@dataclass(frozen=True)
class Case:
    """One way to train."""

    kernel: str
    keep: bool = False
    floats: bool = False
    """Whether the features are not 8-bit."""
    precision: str = "high"

    @property
    def name(self) -> str:
        """The name of the case in the table."""
        words = [self.kernel, "K kept" if self.keep else "K not kept"]
        words += ["general floats"] * self.floats + [f"precision {self.precision}"] * (self.precision != "high")
        return ", ".join(words)

    def target(self, n: int) -> float | None:
        """The ratio to the roofline that an epoch on n rows should reach."""
        if self.precision != "high":
            return None
        if n >= record.LARGE_FROM:
            return record.EPOCH_LARGE
        return record.EPOCH_FLOATS if self.floats else record.EPOCH

    def unit(self, run: dict[str, Any]) -> str:
        """What multiplies the rows of a run, see `UNITS`."""
        if run["coded"]:
            return "int8"
        if run["digits"]:
            return "digits"
        return "float32" if self.precision == "high" else "bfloat16"


def cases(kernels: list[str]) -> list[Case]:
    """Every kernel with K kept and not kept on the data itself, and with K not kept on general floats."""
    found = [Case(kernel, keep) for kernel in kernels for keep in (False, True)]
    found += [Case(kernel, floats=True) for kernel in kernels]
    return found + [Case(kernel, floats=True, precision="medium") for kernel in kernels]


def epoch_tasks(bench: Bench) -> list[Task]:
    """One task for every case."""
    n, d = min(bench.sizes.train, len(bench.data.x)), bench.data.x.shape[1]
    data = bench.data.first(n)
    noisy = data.noisy(bench.seed)
    tasks = []
    for case in cases(list(bench.kernels)):
        rows = noisy if case.floats else data
        passes = (1 if case.keep else 0.8 * bench.sizes.epochs) + 0.2
        seconds = bench.guess(n, d, passes, 3.0)
        tasks.append(Task("epochs", case.name, seconds, lambda case=case, rows=rows: measure_case(bench, rows, case)))  # type: ignore[misc]
    return tasks


def measure_case(bench: Bench, data: BenchData, case: Case) -> list[Measurement]:
    """The epoch's time, then its parts; on a GPU the parts come from a second run, whose clocks wait for the GPU."""
    kernel, on_cpu = bench.kernels[case.kernel], bench.accelerator == "cpu"
    options = {
        "epochs": bench.sizes.epochs,
        "subsample": bench.sizes.subsample,
        "memory": budget_for(data, case.keep, bench.sizes.subsample),
        "accelerator": bench.accelerator,
        "seed": bench.seed,
        "precision": case.precision,
    }
    run = train(data, kernel, clocks=on_cpu, **options)  # type: ignore[arg-type]
    (n, d), c, detail = data.x.shape, data.y.shape[1], run.detail
    limit = bench.limits.of(data.x, detail["batch_size"])
    shape = Shape(n, d, c, detail["subsample"], detail["top_q"], detail["batch_size"], detail["steps_per_batch"])
    allowed = bench.roofline.epoch(shape, kernel, case.unit(detail), case.keep, detail["kept_columns"])
    seconds = {"setup_seconds": run.setup, "roofline_seconds": allowed, "limit_seconds": limit.seconds}
    found = [
        Measurement(
            "epochs",
            case.name,
            n,
            d,
            run.seconds,
            run.seconds / allowed,
            ROOFLINE,
            case.target(n),
            mm_ratio=run.seconds / limit.seconds,
            detail={**detail, **seconds, "kernel": str(kernel)},
        )
    ]
    if case.floats:
        return found
    inside = run if on_cpu else train(data, kernel, clocks=True, **options)  # type: ignore[arg-type]
    return found + parts_of(inside, case.name, data)


def parts_of(run: TrainingRun, name: str, data: BenchData) -> list[Measurement]:
    """The time in an epoch of Lightning, and of the streaming norm and the training error.

    Lightning: the epoch less its training steps; this includes the loading of batches. Norm and error: all that follows
    the kernel product in `FittedValues.advance`, and the training error over all rows and the norm after the last step.
    The times are medians over the epochs.
    """
    n, d = data.x.shape
    steps = -(-n // run.detail["batch_size"])
    lightning, following, finishing = [], [], []
    for epoch, part in zip(run.epochs, run.inside, strict=True):
        lightning.append(epoch - part["step"])
        following.append(part["advance"] - part["sweep"])
        finishing.append(part["finish"])
    epoch = statistics.median(run.epochs)
    norm, last, outside = (statistics.median(each) for each in (following, finishing, lightning))
    detail = {"norm_seconds": norm, "training_error_seconds": last, "epoch_seconds": epoch, "steps": steps}
    return [
        Measurement("epochs", f"{name}: Lightning", n, d, outside, outside / epoch, EPOCH_ITSELF, record.LIGHTNING),
        Measurement(
            "epochs",
            f"{name}: norm and training error",
            n,
            d,
            norm + last,
            (norm + last) / epoch,
            EPOCH_ITSELF,
            record.NORM_AND_ERROR,
            detail=detail,
        ),
    ]
