"""How the time and the memory of an epoch grow with the rows, the features and the targets."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from recipes.bench import record
from recipes.bench.parts.limit import MM
from recipes.bench.parts.memory import measure_memory
from recipes.bench.parts.training import budget_for, train
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData

KERNEL = "gaussian"
LEVELS = 256  # of 8-bit features
CLASSES = 10
FEATURES = 256  # d of the growth with c
FEW_CLASSES = 16  # up to which more targets cost next to nothing
LARGEST = {"n": record.GROWS_WITH_N, "n, bytes": record.GROWS_WITH_N, "c": record.GROWS_WITH_C}


def growth_tasks(bench: Bench) -> list[Task]:
    """One task for every n and, on random features, for every d and c; the Gaussian, K not kept."""
    d, passes = bench.data.x.shape[1], 0.8 * bench.sizes.epochs + bench.sizes.repeats
    tasks = [
        Task("growth", f"n = {n}", bench.guess(n, d, passes), lambda n=n: measure_rows(bench, n))  # type: ignore[misc]
        for n in bench.sizes.growth
    ]
    n = bench.sizes.growth_rows
    return (
        tasks
        + [
            Task(
                "growth",
                f"d = {d}, {'8-bit' if coded else 'general floats'}",
                bench.guess(n, d, passes),
                lambda d=d, coded=coded: measure_features(bench, n, d, coded),  # type: ignore[misc]
            )
            for d in bench.sizes.features
            for coded in (False, True)
        ]
        + [
            Task("growth", f"c = {c}", bench.guess(n, FEATURES, passes), lambda c=c: measure_classes(bench, n, c))  # type: ignore[misc]
            for c in bench.sizes.classes
        ]
    )


def measure_rows(bench: Bench, n: int) -> list[Measurement]:
    """An epoch on the first n rows of the data, and the peak of its memory, in a process of its own."""
    data = bench.data.first(n)
    subsample = subsample_of(bench, n)
    sized = replace(bench, sizes=replace(bench.sizes, subsample=subsample))
    memory = measure_memory(sized, data, "none of K", budget_for(data, False, subsample))
    used = memory.detail["used_bytes"]
    return [
        *_measure(bench, data, f"n = {n}", "n"),
        replace(
            memory,
            part="growth",
            name=f"n = {n}, peak memory",
            ratio=None,
            against=None,
            target=None,
            detail={**memory.detail, "grows": "n, bytes", "grown": used},
        ),
    ]


def measure_features(bench: Bench, n: int, d: int, coded: bool) -> list[Measurement]:
    """An epoch on n random rows of d features."""
    kind = "8-bit" if coded else "general floats"
    return _measure(bench, random_data(n, d, coded, bench.seed), f"d = {d}, {kind}", f"d, {kind}")


def measure_classes(bench: Bench, n: int, c: int) -> list[Measurement]:
    """An epoch on n random rows with c classes, or with one target."""
    return _measure(bench, random_data(n, FEATURES, True, bench.seed, c), f"c = {c}", "c")


def exponents(measured: Sequence[Measurement]) -> list[Measurement]:
    """The exponent e of seconds or bytes ~ n^e, d^e, c^e: the slope of a line of least squares through logarithms.

    For c, of those up to 16 alone.
    """
    groups: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in measured:
        grows, value = each.detail.get("grows"), each.detail.get("grown")
        if each.part == "growth" and grows and value:
            at = int({"n": each.n, "d": each.d, "c": each.detail.get("c")}[grows[0]] or 0)
            if grows != "c" or at <= FEW_CLASSES:
                groups[grows].append((at, value))
    found = []
    for grows, points in groups.items():
        places, values = zip(*points, strict=True)
        if len(set(places)) > 1:
            slope = statistics.linear_regression([math.log(at) for at in places], [math.log(v) for v in values]).slope
            found.append(
                Measurement("growth", f"exponent in {grows}", None, None, None, slope, "exponent", LARGEST.get(grows))
            )
    return found


def random_data(n: int, d: int, coded: bool, seed: int = 0, c: int = CLASSES) -> BenchData:
    """Uniform random features in [0, 1), multiples of 1/256 or not, with random labels, or one random target."""
    generator = torch.Generator().manual_seed(seed)
    if coded:
        x = torch.randint(LEVELS, (n, d), generator=generator).float() / LEVELS
    else:
        x = torch.rand(n, d, generator=generator)
    if c == 1:
        return BenchData("random", x, torch.randn(n, 1, generator=generator), None)
    labels = torch.arange(n) % c
    return BenchData("random", x, torch.nn.functional.one_hot(labels, c).float(), labels)


def subsample_of(bench: Bench, n: int) -> int | None:
    """The benchmark's s, but at most half of n rows; None leaves the choice to the machine."""
    return None if bench.sizes.subsample is None else min(bench.sizes.subsample, n // 2)


def _measure(bench: Bench, data: BenchData, name: str, grows: str) -> list[Measurement]:
    import kl

    kernel = bench.kernels.get(KERNEL) if data.name == bench.data.name else None
    kernel = kernel or kl.Gaussian("auto").resolve(data.x, seed=bench.seed)
    subsample = subsample_of(bench, len(data.x))
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
    growth = {"grows": grows, "grown": run.seconds, "c": data.y.shape[1]}
    detail = {**run.detail, **growth, "limit_seconds": limit.seconds, "kernel": str(kernel)}
    n, d = data.x.shape
    return [Measurement("growth", name, n, d, run.seconds, run.seconds / limit.seconds, MM, detail=detail)]
