"""Interpolants and overfitted classifiers on MNIST at growing n, with and without label noise."""

from __future__ import annotations

from collections.abc import Sequence

from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import ROWS, KernelSpec
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import exact, overfitted
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Row, Series, by_level, mean, rows_of, stacked, sweep_table

GROWTH_NOISES = (0.0, 0.01, 0.1)
"""[B18] Figure 4's levels of label noise."""
COLUMNS = "data kernel bandwidth n seed way fitted noise test_error test_error_noisy rkhs_norm"


def growth_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """(n, seed) of the interpolants on MNIST whose errors and norms are studied as n grows; None means all rows."""
    sizes: dict[int | None, int] = setting.choose(
        tiny={100: 2, 200: 2, 400: 2},
        quick={500: 3, 1000: 3, 2000: 2, 4000: 1},
        full={500: 5, 1000: 5, 2000: 5, 5000: 5, 10_000: 5, 20_000: 3, None: 1},
    )
    rows = ROWS[setting.data("mnist")]
    few = {None if n is None or n >= rows else n: seeds for n, seeds in sizes.items()}  # larger n mean all rows
    return [(n, seed) for n, seeds in few.items() for seed in range(seeds)]


def growth_exact(setting: Setting, kernel: KernelSpec, n: int | None, seed: int) -> Exact:
    """The interpolants at all levels of noise."""
    return exact(setting, "mnist", n, kernel, seed)


def overfitted_draws(setting: Setting) -> list[tuple[int | None, int]]:
    """(n, seed) of the overfitted classifiers, with fewer seeds, because each classifier is a run of its own."""
    seeds = setting.choose(tiny=1, quick=1, full=3)
    return [(n, seed) for n, seed in growth_draws(setting) if seed < (1 if n == 20_000 else seeds)]


def growth_overfitted(setting: Setting, kernel: KernelSpec, n: int | None, seed: int, noise: float) -> Fit:
    """The overfitted classifier; the Gaussian took 121 epochs at n = 20000 with 1% noise, and 54 at 10000."""
    cap = setting.choose(tiny=60, quick=200, full=1000 if n is None else 400)
    return overfitted(growth_exact(setting, kernel, n, seed).sample, kernel, noise, cap)


def growth_points(setting: Setting, kernel: KernelSpec) -> list[Point]:
    """All interpolants and overfitted classifiers of one kernel."""
    points: list[Point] = [growth_exact(setting, kernel, n, seed) for n, seed in growth_draws(setting)]
    return points + [
        growth_overfitted(setting, kernel, n, seed, noise)
        for n, seed in overfitted_draws(setting)
        for noise in GROWTH_NOISES
    ]


def growth_table(setting: Setting, results: Results, *kernels: KernelSpec) -> DataFrame:
    """The table `both_ways` of all these points, kernel by kernel."""
    return stacked(both_ways(growth_points(setting, kernel), results) for kernel in kernels)


def both_ways(points: Sequence[Point], results: Results) -> DataFrame:
    """A row for each draw, level of noise among GROWTH_NOISES, and way of fitting: "interpolated", then "overfitted".

    An overfitted run that had not fitted its training labels by its last epoch has fitted=False; one that diverged at
    once has no test error.
    """
    solves = by_level(
        sweep_table(
            [point for point in points if isinstance(point, Exact)],
            results,
            way=lambda solve: "interpolated",
            fitted=lambda solve: True,
        )
    )
    runs = sweep_table(
        [point for point in points if isinstance(point, Fit)],
        results,
        way=lambda run: "overfitted",
        fitted=lambda run: run["fitted_epoch"] is not None,
        test_error=lambda run: run["final"].get("val/error"),
        test_error_noisy=lambda run: run["final"].get("val/error_noisy", run["test_error"]),
    )
    return stacked([solves[solves["noise"].isin(GROWTH_NOISES)], runs])


def growth_rows(growth: DataFrame) -> list[Row]:
    """The rows of a table of `growth_table` that are kept as results."""
    return [
        row | {f"rkhs_norm_class_{k}": norm for k, norm in enumerate(norms)}
        for row, norms in zip(rows_of(growth, COLUMNS), growth["rkhs_norm_per_class"], strict=True)
    ]


def norms_by_n(growth: DataFrame, kernel: KernelSpec, noise: float) -> Series:
    """The interpolant's norm by n, the mean over seeds."""
    chosen = (growth["kernel"] == kernel.name) & (growth["noise"] == noise) & (growth["way"] == "interpolated")
    return growth[chosen].groupby("n")["rkhs_norm"].agg(mean)
