"""How the time of an epoch grows with the rows and with the features, compared with the limit."""

from __future__ import annotations

import torch

from recipes.bench.parts.limit import MM
from recipes.bench.parts.training import budget_for, train
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData

KERNEL = "gaussian"
LEVELS = 256  # of 8-bit features
CLASSES = 10


def growth_tasks(bench: Bench) -> list[Task]:
    """One task for every n and, on random features, for every d; the Gaussian, K not kept."""
    d, passes = bench.data.x.shape[1], 0.8 * bench.sizes.epochs + bench.sizes.repeats
    tasks = [
        Task("growth", f"n = {n}", bench.guess(n, d, passes), lambda n=n: measure_rows(bench, n))  # type: ignore[misc]
        for n in bench.sizes.growth
    ]
    n = bench.sizes.growth_rows
    return tasks + [
        Task(
            "growth",
            f"d = {d}, {'8-bit' if coded else 'general floats'}",
            bench.guess(n, d, passes),
            lambda d=d, coded=coded: measure_features(bench, n, d, coded),  # type: ignore[misc]
        )
        for d in bench.sizes.features
        for coded in (False, True)
    ]


def measure_rows(bench: Bench, n: int) -> list[Measurement]:
    """An epoch on the first n rows of the data."""
    return _measure(bench, bench.data.first(n), f"n = {n}", "n")


def measure_features(bench: Bench, n: int, d: int, coded: bool) -> list[Measurement]:
    """An epoch on n random rows of d features."""
    kind = "8-bit" if coded else "general floats"
    return _measure(bench, random_data(n, d, coded, bench.seed), f"d = {d}, {kind}", f"d, {kind}")


def random_data(n: int, d: int, coded: bool, seed: int = 0) -> BenchData:
    """Uniform random features in [0, 1), multiples of 1/256 or not, with random labels."""
    generator = torch.Generator().manual_seed(seed)
    if coded:
        x = torch.randint(LEVELS, (n, d), generator=generator).float() / LEVELS
    else:
        x = torch.rand(n, d, generator=generator)
    labels = torch.arange(n) % CLASSES
    return BenchData("random", x, torch.nn.functional.one_hot(labels, CLASSES).float(), labels)


def _measure(bench: Bench, data: BenchData, name: str, grows: str) -> list[Measurement]:
    import kl

    kernel = bench.kernels.get(KERNEL) if data.name == bench.data.name else None
    kernel = kernel or kl.Gaussian("auto").resolve(data.x, seed=bench.seed)
    subsample = None if bench.sizes.subsample is None else min(bench.sizes.subsample, len(data.x) // 2)
    run = train(
        data,
        kernel,
        epochs=bench.sizes.epochs,
        subsample=subsample,
        memory=budget_for(data, False, subsample),
        accelerator=bench.accelerator,
        seed=bench.seed,
    )
    limit = bench.limits.of(data.x, run.detail["batch_size"])
    detail = {**run.detail, "grows": grows, "limit_seconds": limit.seconds, "kernel": str(kernel)}
    n, d = data.x.shape
    return [Measurement("growth", name, n, d, run.seconds, run.seconds / limit.seconds, MM, detail=detail)]
