"""The choice of kernel, bandwidth and ridge: kl.tune beside scikit-learn's GridSearchCV over KernelRidge.

GridSearchCV has 5 folds and gets Gram matrices, computed once for each kernel and bandwidth from scikit-learn's own
distances, because its laplacian kernel takes another distance and KernelRidge calls a kernel function pair by pair. So
it has less to compute than with kernels by name, whose Gram matrices are computed again for each ridge and fold.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kl.system.clock import now
from recipes.bench import record
from recipes.bench.parts.exact import exact_features
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData

if TYPE_CHECKING:
    from kl import Kernel

OURS, THEIRS = "kl.tune", "sklearn GridSearchCV"
KERNELS = ("gaussian", "laplacian", "matern32")
POWERS = range(-3, 5)  # of 2, times the median distance
RIDGES = tuple(10.0**power for power in range(-8, 2))
FOLDS = 5
TEST_ROWS = 10_000
SHARE = 0.25  # of the time that a peer may take: then the rest of the grid is scaled up


@dataclass(frozen=True)
class Chosen:
    """A choice and what it is worth."""

    kernel: Kernel
    ridge: float
    seconds: float
    score: float
    timed: int
    """Kernels and bandwidths that were searched; the seconds are scaled to all."""


def tune_tasks(bench: Bench) -> list[Task]:
    """One task: ours, then scikit-learn within the time limit."""
    n = min(bench.sizes.tune, len(bench.data.x))
    count, factor = len(KERNELS) * len(POWERS), n**3 / (0.3 * bench.rate)
    seconds = count * 15 * min(n, 1000) ** 3 / bench.rate + min(SHARE * bench.sizes.time_limit, count * 50 * factor) + 2
    return [
        Task("tune", f"{count} kernels and bandwidths, {len(RIDGES)} ridges", seconds, lambda: measure_tune(bench, n))
    ]


def measure_tune(bench: Bench, n: int) -> list[Measurement]:
    """The seconds and the choice of both, and the error of each choice, solved on all n rows, on the test set."""
    data, d = bench.data.first(n), bench.data.x.shape[1]
    kernels = candidates(data, bench.seed)
    ours = kl_tune(data, kernels, bench.seed, bench.device)
    theirs = grid_search(data, kernels, bench.seed, SHARE * bench.sizes.time_limit)
    whole = theirs.timed == len(kernels)
    share = "" if whole else f", scaled from {theirs.timed} of {len(kernels)} kernels and bandwidths, drawn at random"
    found = []
    for name, chosen in ((OURS, ours), (THEIRS, theirs)):
        known = chosen is ours or whole  # a search of a part has no choice to compare
        detail: dict[str, Any] = {"timed": chosen.timed, "of": len(kernels), "ridges": list(RIDGES)}
        if known:
            detail |= {"choice": f"{chosen.kernel}, ridge {chosen.ridge:g}", "cv_mse": chosen.score}
            detail |= values_on_test_rows(data, chosen, bench.device)
        found.append(
            Measurement(
                "tune",
                name + (share if chosen is theirs else ""),
                n,
                d,
                chosen.seconds,
                chosen.seconds / theirs.seconds,
                THEIRS,
                record.TUNE if chosen is ours and n >= record.TUNE_FROM else None,
                detail=detail,
            )
        )
    return found


def candidates(data: BenchData, seed: int) -> list[Kernel]:
    """Every kernel at every bandwidth."""
    import kl

    median = kl.median_distance(data.x, seed=seed)
    return [kl.build_kernel(name, bandwidth=median * 2.0**power) for name in KERNELS for power in POWERS]


def kl_tune(data: BenchData, kernels: list[Kernel], seed: int, device: str) -> Chosen:
    """The choice by leave-one-out mse."""
    import kl

    x, y, start = data.x.to(device), data.y.to(device), now(device)
    tuning = kl.tune(x, y, kernels=kernels, ridges=RIDGES, metric="mse", seed=seed)
    return Chosen(tuning.kernel, tuning.ridge, now(device) - start, tuning.best.score, len(kernels))


def grid_search(data: BenchData, kernels: list[Kernel], seed: int, limit: float) -> Chosen:
    """The choice by the mse of 5 folds; kernels and bandwidths come in random order, none after `limit` seconds."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances
    from sklearn.model_selection import GridSearchCV, KFold

    x, y, folds = exact_features(data.x).numpy(), data.y.double().numpy(), KFold(FOLDS, shuffle=True, random_state=seed)
    best: tuple[float, Kernel, float] | None = None
    timed, start = 0, time.perf_counter()
    for i in np.random.default_rng(seed).permutation(len(kernels)):
        gram = gram_matrix(kernels[i], euclidean_distances(x))
        search = GridSearchCV(
            KernelRidge(kernel="precomputed"),
            {"alpha": list(RIDGES)},
            scoring="neg_mean_squared_error",
            cv=folds,
            refit=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # singular matrices are its own affair
            search.fit(gram, y)
        found = (-float(search.best_score_), kernels[i], float(search.best_params_["alpha"]))
        best = found if best is None or found[0] < best[0] else best
        timed += 1
        if time.perf_counter() - start > limit:
            break
    assert best is not None
    seconds = (time.perf_counter() - start) * len(kernels) / timed
    return Chosen(best[1], best[2], seconds, best[0], timed)


def gram_matrix(kernel: Kernel, distances: np.ndarray) -> np.ndarray:
    """K from distances |x_i - x_j|, shape (n, n), in their memory."""
    name, bandwidth = kernel.config()["kernel"], kernel.config()["bandwidth"]
    if name == "gaussian":
        distances **= 2
        distances /= -2 * bandwidth**2
        return np.exp(distances, out=distances)
    distances *= -(3**0.5 if name == "matern32" else 1.0) / bandwidth
    if name == "laplacian":
        return np.exp(distances, out=distances)
    return (1 - distances) * np.exp(distances)


def values_on_test_rows(data: BenchData, chosen: Chosen, device: str) -> dict[str, float]:
    """The error of classes, or the mse of numbers, of the chosen function on the test set; empty without one."""
    import kl
    from kl.metrics import mse

    if data.test is None:
        return {}
    solved = kl.interpolate(chosen.kernel, data.x.to(device), data.y.to(device), ridge=chosen.ridge)
    x, y = data.test[0][:TEST_ROWS], data.test[1][:TEST_ROWS]
    outputs = solved.predict(x.to(device)).cpu()
    if data.labels is None:
        return {"test_mse": mse(outputs, y)}
    return {"test_error": float((outputs.argmax(dim=1) != y).double().mean())}
