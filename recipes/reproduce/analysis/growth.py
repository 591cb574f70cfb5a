"""Interpolants and overfitted classifiers on MNIST at growing n, with and without label noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipes.reproduce.page.presentation import mean_and_spread
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import ROWS, KernelSpec
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import exact
from recipes.reproduce.sweep.point import Point, Result, Results

GROWTH_NOISES = (0.0, 0.01, 0.1)
"""[B18] Figure 4's levels of label noise."""


def growth_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """(n, seed) of the interpolants on MNIST whose error and norm are followed with n; None is all rows."""
    sizes: dict[int | None, int] = setting.choose(
        tiny={100: 2, 200: 2, 400: 2},
        quick={500: 3, 1000: 3, 2000: 2, 4000: 1},
        full={500: 5, 1000: 5, 2000: 5, 5000: 5, 10_000: 5, 20_000: 3, None: 1},
    )
    rows = ROWS[setting.data("mnist")]
    few = {None if n is None or n >= rows else n: seeds for n, seeds in sizes.items()}  # those beyond are all rows
    return [(n, seed) for n, seeds in few.items() for seed in range(seeds)]


def growth_exact(setting: Setting, kernel: KernelSpec, n: int | None, seed: int) -> Exact:
    """The interpolants at all levels of noise."""
    return exact(setting, "mnist", n, kernel, seed)


def overfitted_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """The same of the overfitted classifiers, each of which is a run of its own: fewer seeds."""
    seeds = setting.choose(tiny=1, quick=1, full=3)
    return [(n, seed) for n, seed in growth_draws(setting) if seed < (1 if n == 20_000 else seeds)]


def growth_overfitted(setting: Setting, kernel: KernelSpec, n: int | None, seed: int, noise: float) -> Fit:
    """EigenPro stopped at the first epoch with zero training classification error [B18]."""
    return Fit(
        sample=growth_exact(setting, kernel, n, seed).sample,
        kernel=kernel,
        noise=noise,
        # The Gaussian took 121 epochs at n = 20000 with 1% noise, and 54 at 10000.
        epochs=setting.choose(tiny=60, quick=200, full=1000 if n is None else 400),
        until_interpolated=True,
        test_every=0,
    )


def growth_points(setting: Setting, kernel: KernelSpec) -> list[Point]:
    """All of them for one kernel."""
    points: list[Point] = [growth_exact(setting, kernel, n, seed) for n, seed in growth_draws(setting)]
    return points + [
        growth_overfitted(setting, kernel, n, seed, noise)
        for n, seed in overfitted_draws(setting)
        for noise in GROWTH_NOISES
    ]


def growth_records(setting: Setting, results: Results, kernel: KernelSpec) -> list[dict[str, Any]]:
    """One record for each draw, level of noise, and way of fitting ("interpolated", "overfitted").

    An overfitted run that had not fitted its training labels by its last epoch has fitted=False.
    """
    records = []
    for n, seed in growth_draws(setting):
        records += exact_records(results[growth_exact(setting, kernel, n, seed)], kernel, seed)
    for n, seed in overfitted_draws(setting):
        for noise in GROWTH_NOISES:
            found = results[growth_overfitted(setting, kernel, n, seed, noise)]
            final, fitted = found["final"], found["fitted_epoch"] is not None
            error = final.get("val/error")  # none of a run that diverged at once
            values = [noise, error, final.get("val/error_noisy", error), found["rkhs_norm"]]
            records.append(_record(found, kernel, seed, "overfitted", fitted, values, found["rkhs_norm_per_class"]))
    return records


def exact_records(found: Result, kernel: KernelSpec, seed: int) -> list[dict[str, Any]]:
    """Those of one exact solve."""
    return [
        _record(
            found, kernel, seed, "interpolated", True, [level[name] for name in VALUES], level["rkhs_norm_per_class"]
        )
        for level in found["levels"]
        if level["noise"] in GROWTH_NOISES
    ]


VALUES = ("noise", "test_error", "test_error_noisy", "rkhs_norm")


def _record(
    found: Result,
    kernel: KernelSpec,
    seed: int,
    way: str,
    fitted: bool,
    values: list[float | None],
    per_class: list[float],
) -> dict[str, Any]:
    return {
        "data": found["data_source"],
        "kernel": kernel.name,
        "bandwidth": kernel.bandwidth,
        "n": found["n"],
        "seed": seed,
        "way": way,
        "fitted": fitted,
        **dict(zip(VALUES, values, strict=True)),
        **{f"rkhs_norm_class_{k}": norm for k, norm in enumerate(per_class)},
    }


def grouped(records: Sequence[dict[str, Any]], name: str, **where: Any) -> tuple[list[int], list[list[float]]]:
    """The sizes n among the records that `where` describes, and for each the values of `name` over seeds."""
    groups: dict[int, list[float]] = {}
    for record in records:
        if all(record[key] == value for key, value in where.items()):
            groups.setdefault(record["n"], []).append(record[name])
    return sorted(groups), [groups[n] for n in sorted(groups)]


def interpolated(records: list[dict[str, Any]], kernel: KernelSpec, noise: float) -> tuple[list[int], list[float]]:
    """n, and the interpolant's norm, the mean over seeds."""
    sizes, groups = grouped(records, "rkhs_norm", kernel=kernel.name, noise=noise, way="interpolated")
    return sizes, [mean_and_spread(group)[0] for group in groups]
