"""Exact interpolants against nearest neighbours, on growing parts of MNIST, with and without label noise."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, panel, panels, style_of
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.neighbours import Neighbours as NeighboursPoint
from recipes.reproduce.published import B18, NEIGHBOURS, NEIGHBOURS_COLUMNS, NEIGHBOURS_SOURCE, TEST_ERROR
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import exact
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, by_level, derived, groups, mean, rows_of, spread, stacked, sweep_table

DATA = "mnist"
NOISES = tuple(NEIGHBOURS)
INTERPOLANTS, KS = ["gaussian", "laplacian"], (1, 3, 5)
TITLES = {"gaussian": "Gaussian", "laplacian": "Laplacian"}  # other columns are their own titles
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
NEAREST = [f"{k}-NN" for k in KS]
PUBLISHED = {
    (noise, n, name): error
    for noise, by_n in NEIGHBOURS.items()
    for n, errors in by_n.items()
    for name, error in zip(NEIGHBOURS_COLUMNS, errors, strict=True)
}


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
        is_papers = setting.data(DATA) == DATA
        figure, (axes,) = panels(1, len(NOISES), width=3.4, height=3.0)
        for each, own in zip(axes, groups(errors, "noise"), strict=True):
            draw(each, own, is_papers)
        finish(figure, columns=6)
        note = setting.choose(tiny="", quick="2000 test rows here", full="")
        return Presentation(
            figures={"neighbours": figure},
            rows=rows_of(errors, "data noise n classifier seed test_error"),
            comparisons=compare(errors, note) if is_papers else [],
            claims=[*(better_claim(own) for own in groups(errors, "noise")), robust_claim(errors)],
            tables=[error_table(own) for own in groups(errors, "noise")],
            sentences=[
                f"Means and standard deviations are over {len(seeds(setting))} draws of the training rows"
                + (" (and of the test rows)." if note else "; the test rows are all there are."),
                "With label noise every error is against test labels that were noised like the training labels, as in "
                "the paper: with 10% noise and ten classes 9% are wrong in expectation whatever is predicted.",
                *(off_curve_sentences(errors) if is_papers and not note else []),
            ],
        )


def sizes(setting: Setting) -> list[int]:
    """The values of n."""
    chosen = setting.choose(tiny=(100, 300), quick=(500, 1500), full=tuple(NEIGHBOURS[0.0]))
    return setting.sizes(DATA, *chosen)


def seeds(setting: Setting) -> range:
    """The seeds of the draws."""
    return range(setting.choose(tiny=2, quick=3, full=5))


def interpolants(setting: Setting, n: int, seed: int) -> list[Exact]:
    """The exact interpolants of both kernels."""
    return [exact(setting, DATA, n, kernel, seed) for kernel in setting.kernels(DATA)]


def neighbours(setting: Setting, n: int, seed: int) -> NeighboursPoint:
    """Nearest neighbours on the same rows."""
    sample = exact(setting, DATA, n, setting.kernels(DATA)[0], seed).sample
    return NeighboursPoint(sample=sample, ks=KS, noises=NOISES)


def collect(setting: Setting, results: Results) -> DataFrame:
    """The test errors that the paper's tables report, by noise, n, classifier and seed."""
    draws = [(n, seed) for n in sizes(setting) for seed in seeds(setting)]
    solved = by_level(sweep_table([point for draw in draws for point in interpolants(setting, *draw)], results))
    voted = by_level(sweep_table([neighbours(setting, *draw) for draw in draws], results))
    voted["classifier"] = [NEAREST] * len(voted)
    voted = voted.explode(["classifier", "test_error_noisy"])
    found = stacked([solved.assign(classifier=solved["kernel"]), voted])
    order = found["classifier"].map(NEIGHBOURS_COLUMNS.index)
    found = found.assign(test_error=found["test_error_noisy"], order=order).sort_values(["noise", "n", "order", "seed"])
    return found[found["noise"].isin(NOISES)]


def means(errors: DataFrame) -> DataFrame:
    """Means over seeds: a row for each level of noise and n, a column for each classifier."""
    return errors.groupby(["noise", "n", "classifier"])["test_error"].agg(mean).unstack("classifier")


def beside_published(errors: DataFrame) -> DataFrame:
    """A row for each level of noise, n and classifier: mean and spread over seeds, and the published error or None."""
    found = errors.groupby(["noise", "n", "classifier"], sort=False)["test_error"].agg([mean, spread]).reset_index()
    return derived(
        found,
        title=lambda row: TITLES.get(row["classifier"], row["classifier"]),
        published=lambda row: PUBLISHED.get((row["noise"], row["n"], row["classifier"])),
        tolerance=lambda row: row["published"] and max(2 * row["spread"], 0.1 * row["published"]),
    )


def draw(axes: Axes, errors: DataFrame, is_papers: bool) -> None:
    """Curves with bands, and the published values as hollow markers."""
    hollow: Style = {"markerfacecolor": "none", "markersize": 7, "linestyle": "none"}
    beside = beside_published(errors)
    known = [*errors["test_error"], *(beside["published"].dropna() if is_papers else [])]
    for i, (own, paper) in enumerate(zip(groups(errors, "classifier"), groups(beside, "classifier"), strict=True)):
        panel(axes, own, "n", "test_error", label=paper["title"].iat[0], band=True, **style_of(i))
        if is_papers:
            panel(axes, paper, "n", "published", **style_of(i), **hollow)
    if is_papers:
        axes.plot([], [], "o", color="#777777", markerfacecolor="none", markersize=7, label=B18)
    noise = errors["noise"].iat[0]
    axes.set_title(f"{errors['set'].iat[0]}, {noise:.0%} label noise", loc="left")
    axes.set_ylabel("test error (noised labels)" if noise else "test error")
    axes.set_yscale("log")
    # A solve on few rows of an easy set may have no error at all.
    axes.set_ylim(max(min(known), 1e-3) / 1.15, max(known) * 1.15)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))


def compare(errors: DataFrame, note: str) -> list[Comparison]:
    """Every entry of the tables at our n, in percent."""
    beside = beside_published(errors)
    return [
        Comparison(
            f"{row['title']}, n={row['n']}, {row['noise']:.0%} noise: test error",
            100 * row["mean"],
            100 * row["published"],
            NEIGHBOURS_SOURCE[row["noise"]],
            "%",
            spread=100 * row["spread"],
            tolerance=100 * row["tolerance"],
            note=note,
        )
        for row in rows_of(beside[beside["published"].notna()])
    ]


def off_curve_sentences(errors: DataFrame) -> list[str]:
    """For each interpolant without noise that differs from the published one: the error that other n of [B18] imply.

    It follows from a power law through the published errors at the next smaller n and at n = 60000 (Tables 3-4).
    """
    found = []
    for row in rows_of(beside_published(errors[errors["noise"] == 0]).sort_values(["title", "n"])):
        name, n, ours, spread = (row[name] for name in ("classifier", "n", "mean", "spread"))
        if name not in INTERPOLANTS or row["published"] is None:
            continue
        published = {size: error for (noise, size, of), error in PUBLISHED.items() if (noise, of) == (0, name)}
        published[60_000] = TEST_ERROR["mnist", name][1]
        smaller = max((size for size in published if size < n), default=None)
        if smaller is None or abs(ours - published[n]) <= row["tolerance"]:
            continue
        share = math.log(n / smaller) / math.log(60_000 / smaller)
        between = published[smaller] ** (1 - share) * published[60_000] ** share
        found.append(
            f"{row['title']}, n={n}: ours is {ours:.2%} ± {spread:.2%}, the published one {published[n]:.2%}. A "
            f"power law through the paper's own values at n={smaller} ({published[smaller]:.2%}) and 60000 "
            f"({published[60_000]:.2%}) has {between:.2%} there."
        )
    return found


def better_claim(errors: DataFrame) -> Claim:
    """That at every n both interpolants err less than any of the neighbours; `errors` are of one level of noise."""
    noise, of = errors["noise"].iat[0], means(errors).droplevel("noise")
    margins = of[NEAREST].min(axis="columns") - of[INTERPOLANTS].max(axis="columns")
    n, least = margins.idxmin(), margins.min()
    return Claim(
        f"{noise:.0%} noise: at every n both interpolants have a smaller test error than 1-, 3- and 5-NN",
        bool(least > 0),
        f"the worse interpolant is better than the best neighbours by {100 * least:.2f} points or more (n={n})"
        if least > 0
        else f"at n={n} the best neighbours are better by {-100 * least:.2f} points",
        NEIGHBOURS_SOURCE[noise],
    )


def robust_claim(errors: DataFrame) -> Claim:
    """That noise costs 1-NN, which fits noisy labels too, more than it costs the interpolants."""
    clean, noisy = NOISES
    of = means(errors)
    rises = (of.loc[noisy] - of.loc[clean])[[*INTERPOLANTS, "1-NN"]]
    last = ", ".join(f"{TITLES.get(name, name)} {100 * rise:.1f}" for name, rise in rises.iloc[-1].items())
    return Claim(
        f"At every n {noisy:.0%} noise costs 1-NN more than the interpolants, though all of them fit the noisy labels",
        bool((rises[INTERPOLANTS].max(axis="columns") < rises["1-NN"]).all()),
        f"error added at n={rises.index[-1]}, in points: {last}",
        f"{B18} Tables 6-7",
    )


def error_table(errors: DataFrame) -> Table:
    """A row for each n."""
    cells = derived(
        beside_published(errors), text=lambda row: f"{100 * row['mean']:.2f} ± {100 * row['spread']:.2f}"
    ).pivot(index="n", columns="classifier", values="text")
    header = ("n", *(TITLES.get(name, name) for name in NEIGHBOURS_COLUMNS))
    rows = [(str(n), *row) for n, row in zip(cells.index, cells[list(NEIGHBOURS_COLUMNS)].to_numpy(), strict=True)]
    return Table(f"test error at {errors['noise'].iat[0]:.0%} label noise, %", header, rows)
