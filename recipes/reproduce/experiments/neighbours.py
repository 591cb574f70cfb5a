"""Exact interpolants beside nearest neighbours, on growing parts of MNIST, with and without label noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, band, legend_below, panels, rows_axis, style_of
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table, mean_and_spread
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.neighbours import Neighbours as NeighboursPoint
from recipes.reproduce.published import B18, NEIGHBOURS, NEIGHBOURS_COLUMNS, NEIGHBOURS_SOURCE, TEST_ERROR
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import exact
from recipes.reproduce.sweep.point import Point, Results

DATA = "mnist"
NOISES = tuple(NEIGHBOURS)
INTERPOLANTS, KS = ("gaussian", "laplacian"), (1, 3, 5)
TITLES = {"gaussian": "Gaussian", "laplacian": "Laplacian"}  # of the columns that are not their own titles
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

Errors = dict[float, dict[int, dict[str, list[float]]]]
"""Test errors by noise, n and classifier, a list over seeds."""


class Neighbours(Experiment):
    """[B18] Tables 6-7. With label noise all errors are against test labels noised like the training labels."""

    name = "neighbours"
    title = (
        "Exact interpolants beside 1-, 3-, 5-nearest neighbours, MNIST from 500 to 15000 rows, 0 and 10% label noise"
    )
    source = f"{B18} Tables 6-7"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """Both interpolants and the neighbours for each n and seed."""
        return [
            point
            for n in sizes(setting)
            for seed in seeds(setting)
            for point in (*interpolants(setting, n, seed), neighbours(setting, n, seed))
        ]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A panel and a table for each level of noise."""
        errors = collect(setting, results)
        first = results[neighbours(setting, sizes(setting)[0], 0)]
        is_papers = setting.data(DATA) == DATA
        figure, axes = panels(1, len(NOISES), width=3.4, height=3.0)
        for panel, noise in zip(axes[0], NOISES, strict=True):
            draw(panel, errors[noise], NEIGHBOURS[noise] if is_papers else {})
            panel.set_title(f"{title(first['data_source'])}, {noise:.0%} label noise", loc="left")
            panel.set_ylabel("test error (noised labels)" if noise else "test error")
        legend_below(figure, columns=6)
        rows = [
            {
                "data": first["data_source"],
                "noise": noise,
                "n": n,
                "classifier": name,
                "seed": seed,
                "test_error": error,
            }
            for noise, by_n in errors.items()
            for n, by_name in by_n.items()
            for name, values in by_name.items()
            for seed, error in zip(seeds(setting), values, strict=True)
        ]
        note = setting.choose(tiny="", quick="2000 test rows here", full="")
        return Presentation(
            figures={"neighbours": figure},
            rows=rows,
            comparisons=compare(errors, note) if is_papers else [],
            claims=[*(better_claim(noise, errors[noise]) for noise in NOISES), robust_claim(errors)],
            tables=[table(noise, errors[noise]) for noise in NOISES],
            sentences=[
                f"Means and standard deviations are over {len(seeds(setting))} draws of the training rows"
                + (" (and of the test rows)." if note else "; the test rows are all there are."),
                "With label noise every error is against test labels that were noised like the training labels, as in "
                "the paper: with 10% noise and ten classes 9% are wrong in expectation whatever is predicted.",
                *(off_curve_sentences(errors[0.0]) if is_papers and not note else []),
            ],
        )


def sizes(setting: Setting) -> list[int]:
    """n."""
    chosen = setting.choose(tiny=(100, 300), quick=(500, 1500), full=tuple(NEIGHBOURS[0.0]))
    return setting.sizes(DATA, *chosen)


def seeds(setting: Setting) -> range:
    """Of the draws."""
    return range(setting.choose(tiny=2, quick=3, full=5))


def interpolants(setting: Setting, n: int, seed: int) -> list[Exact]:
    """The exact interpolants of both kernels."""
    return [exact(setting, DATA, n, kernel, seed) for kernel in setting.kernels(DATA)]


def neighbours(setting: Setting, n: int, seed: int) -> NeighboursPoint:
    """Nearest neighbours on the same rows."""
    sample = exact(setting, DATA, n, setting.kernels(DATA)[0], seed).sample
    return NeighboursPoint(sample=sample, ks=KS, noises=NOISES)


def collect(setting: Setting, results: Results) -> Errors:
    """The test errors that the paper's tables have."""
    found: Errors = {n: {} for n in NOISES}
    for noise in NOISES:
        for n in sizes(setting):
            by_name: dict[str, list[float]] = {name: [] for name in NEIGHBOURS_COLUMNS}
            for seed in seeds(setting):
                for point in interpolants(setting, n, seed):
                    by_name[point.kernel.name].append(level_of(results[point], noise)["test_error_noisy"])
                nearest = level_of(results[neighbours(setting, n, seed)], noise)["test_error_noisy"]
                for k, error in zip(KS, nearest, strict=True):
                    by_name[f"{k}-NN"].append(error)
            found[noise][n] = by_name
    return found


def level_of(result: dict[str, Any], noise: float) -> dict[str, Any]:
    """The level of a point at that noise."""
    return next(level for level in result["levels"] if level["noise"] == noise)


def draw(axes: Axes, errors: dict[int, dict[str, list[float]]], published: Mapping[int, Sequence[float]]) -> None:
    """Curves with bands, and the published values as hollow markers."""
    lowest, highest = 1.0, 0.0
    for i, name in enumerate(NEIGHBOURS_COLUMNS):
        style = style_of(i)
        style["color"] = OF_KERNEL.get(name, style["color"])
        band(axes, list(errors), [by_name[name] for by_name in errors.values()], TITLES.get(name, name), **style)
        shown = [n for n in errors if n in published]
        values = [published[n][i] for n in shown]
        hollow = {**style, "markerfacecolor": "none", "markersize": 7, "linestyle": "none"}
        axes.plot(shown, values, **hollow)
        all_values = values + [error for by_name in errors.values() for error in by_name[name]]
        lowest, highest = min(lowest, *all_values), max(highest, *all_values)
    if published:
        axes.plot([], [], "o", color="#777777", markerfacecolor="none", markersize=7, label=B18)
    rows_axis(axes, errors)
    axes.set_yscale("log")
    # A solve on few rows of an easy set may have no error at all.
    axes.set_ylim(max(lowest, 1e-3) / 1.15, highest * 1.15)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))


def compare(errors: Errors, note: str) -> list[Comparison]:
    """Every entry of the tables at our n, in percent."""
    found = []
    for noise, by_n in errors.items():
        for n, by_name in by_n.items():
            for name, published in zip(NEIGHBOURS_COLUMNS, NEIGHBOURS[noise].get(n, ()), strict=False):
                mean, spread = mean_and_spread(by_name[name])
                found.append(
                    Comparison(
                        f"{TITLES.get(name, name)}, n={n}, {noise:.0%} noise: test error",
                        100 * mean,
                        100 * published,
                        NEIGHBOURS_SOURCE[noise],
                        "%",
                        spread=100 * spread,
                        tolerance=100 * tolerance(spread, published),
                        note=note,
                    )
                )
    return found


def tolerance(spread: float, published: float) -> float:
    """Two standard deviations, at least a tenth."""
    return max(2 * spread, 0.1 * published)


def off_curve_sentences(errors: dict[int, dict[str, list[float]]]) -> list[str]:
    """For each interpolant that differs from the published one without noise: what the paper's other values say there.

    They are those at the next smaller n and of the whole set (n = 60000, Tables 3-4), with a power law between them.
    """
    found = []
    for i, name in enumerate(INTERPOLANTS):
        published = {n: row[i] for n, row in NEIGHBOURS[0.0].items()} | {60_000: TEST_ERROR["mnist", name][1]}
        for n, by_name in errors.items():
            mean, spread = mean_and_spread(by_name[name])
            smaller = max((size for size in published if size < n), default=None)
            if smaller is None or n not in published or abs(mean - published[n]) <= tolerance(spread, published[n]):
                continue
            share = math.log(n / smaller) / math.log(60_000 / smaller)
            between = published[smaller] ** (1 - share) * published[60_000] ** share
            found.append(
                f"{TITLES[name]}, n={n}: ours is {mean:.2%} ± {spread:.2%}, the published one {published[n]:.2%}. A "
                f"power law through the paper's own values at n={smaller} ({published[smaller]:.2%}) and 60000 "
                f"({published[60_000]:.2%}) has {between:.2%} there."
            )
    return found


def better_claim(noise: float, errors: dict[int, dict[str, list[float]]]) -> Claim:
    """That at every n both interpolants err less than any of the neighbours."""
    margins = {}
    for n, by_name in errors.items():
        means = {name: mean_and_spread(values)[0] for name, values in by_name.items()}
        margins[n] = min(means[f"{k}-NN"] for k in KS) - max(means[name] for name in INTERPOLANTS)
    closest = min(margins, key=lambda n: margins[n])
    return Claim(
        f"{noise:.0%} noise: at every n both interpolants have a smaller test error than 1-, 3- and 5-NN",
        margins[closest] > 0,
        f"the worse interpolant is better than the best neighbours by {100 * margins[closest]:.2f} points or more "
        f"(n={closest})"
        if margins[closest] > 0
        else f"at n={closest} the best neighbours are better by {-100 * margins[closest]:.2f} points",
        NEIGHBOURS_SOURCE[noise],
    )


def robust_claim(errors: Errors) -> Claim:
    """That noise costs 1-NN, which fits noisy labels too, more than it costs the interpolants."""
    clean, noisy = NOISES
    rises = {
        name: [
            mean_and_spread(errors[noisy][n][name])[0] - mean_and_spread(errors[clean][n][name])[0]
            for n in errors[clean]
        ]
        for name in (*INTERPOLANTS, "1-NN")
    }
    worse = [max(pair) for pair in zip(*(rises[name] for name in INTERPOLANTS), strict=True)]
    last = ", ".join(f"{TITLES.get(name, name)} {100 * values[-1]:.1f}" for name, values in rises.items())
    return Claim(
        f"At every n {noisy:.0%} noise costs 1-NN more than the interpolants, though all of them fit the noisy labels",
        all(own < other for own, other in zip(worse, rises["1-NN"], strict=True)),
        f"error added at n={list(errors[clean])[-1]}, in points: {last}",
        f"{B18} Tables 6-7",
    )


def table(noise: float, errors: dict[int, dict[str, list[float]]]) -> Table:
    """A row for each n."""
    rows = []
    for n, by_name in errors.items():
        cells = [mean_and_spread(by_name[name]) for name in NEIGHBOURS_COLUMNS]
        rows.append((str(n), *(f"{100 * mean:.2f} ± {100 * spread:.2f}" for mean, spread in cells)))
    header = ("n", *(TITLES.get(name, name) for name in NEIGHBOURS_COLUMNS))
    return Table(f"test error at {noise:.0%} label noise, %", header, rows)
