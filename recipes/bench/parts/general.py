"""General kernel models: an epoch of EigenPro 4 compared with the limit, and with an epoch of EigenPro 3."""

from __future__ import annotations

from dataclasses import dataclass

import kl
from recipes.bench import record
from recipes.bench.parts.limit import MM
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench

KERNEL, EPOCHS = "laplacian", 2
BUDGET = "6GB"  # a factor of K(Z, Z) at p = 10000 takes 0.2 GB


@dataclass(frozen=True)
class GeneralRun:
    """The measurements of one machine."""

    seconds: float
    """Seconds of the fastest epoch."""
    test_error: float | None
    """The error after the last epoch."""
    batch_size: int
    period: int


def general_tasks(bench: Bench) -> list[Task]:
    """EigenPro 4 and EigenPro 3 on the same rows and centres, each with both projections."""
    n, p, d = min(bench.sizes.train, len(bench.data.x)), bench.sizes.centers, bench.data.x.shape[1]
    passes = EPOCHS * (6 * p / n + p * p / n / 400)
    return [Task("general", f"p = {p}", bench.guess(n, d, passes, 10.0), lambda: measure(bench, n, p))]


def measure(bench: Bench, n: int, p: int) -> list[Measurement]:
    """The ratios of an epoch of EigenPro 4 to the plain product of its flops, and to an epoch of EigenPro 3.

    The flops are 2 d for each pair of a row with a centre and, on average, with half of the temporary centres. The
    projection is by a factor of K(Z, Z) or, as in the papers, by an epoch of EigenPro 2 on the centres. EigenPro 3
    projects after every batch.
    """
    kernel = bench.kernels[KERNEL]
    four = train(bench, n, kernel, p, "auto", "factor")
    limit = bench.limits.of(bench.data.first(n).x, four.batch_size)
    columns = p + (four.period - 1) * four.batch_size / 2
    found = [
        Measurement(
            "general",
            f"EigenPro 4, p = {p}",
            n,
            bench.data.x.shape[1],
            four.seconds,
            four.seconds / (limit.seconds * columns / n),
            MM,
            record.GENERAL,
            detail={**vars(four), "p": p, "columns": columns, "kernel": str(kernel)},
        )
    ]
    papers = train(bench, n, kernel, p, "auto", "eigenpro")
    for name, run, projection, target in (
        ("a factor", four, "factor", None),
        ("EigenPro 2", papers, "eigenpro", record.DELAYED if p >= record.DELAYED_FROM else None),
    ):
        three = train(bench, n, kernel, p, 1, projection)
        found.append(
            Measurement(
                "general",
                f"EigenPro 4, p = {p}, projected by {name}",
                n,
                bench.data.x.shape[1],
                run.seconds,
                run.seconds / three.seconds,
                "EigenPro 3, projected likewise",
                target,
                detail={**vars(run), "p": p, "eigenpro3": vars(three)},
            )
        )
    return found


def train(bench: Bench, n: int, kernel: kl.Kernel, p: int, period: int | str, projection: str) -> GeneralRun:
    """Train, and evaluate on the test set."""
    from recipes.bench.parts.fit import fit

    machine = kl.GeneralKernelMachine(
        kernel,
        p,
        projection_period=period,
        projection=projection,
        subsample=min(bench.sizes.subsample or 2000, p),
        memory=BUDGET,
        seed=bench.seed,
    )
    datamodule = bench.data.first(n).datamodule(bench.seed)
    timing = fit(machine, datamodule, EPOCHS, bench.accelerator, check_val_every_n_epoch=EPOCHS)
    error = machine.eval_metrics.get("val/error")
    return GeneralRun(min(timing.seconds_per_epoch), error, machine.batch_rows, machine.period)
