"""The figures, tables and claims of `general`."""

from __future__ import annotations

from matplotlib.figure import Figure

from callbacks.figures import CYCLE
from recipes.reproduce.experiments.general.runs import PROJECTIONS
from recipes.reproduce.page.drawing import Style, counts, finish, log, panel, panels, short_count
from recipes.reproduce.page.presentation import Claim, Table
from recipes.reproduce.published import EIGENPRO_4, EIGENPRO_4_SOURCE, REPORT
from recipes.reproduce.table import DataFrame, Row, by_epoch, derived, groups

SAME = 0.01  # errors within a percentage point count as equal


def by_epoch_and_second(found: DataFrame) -> Figure:
    """A row for each kernel: test error against epochs and against seconds."""
    order = list(dict.fromkeys(found["name"]))

    def look(row: Row) -> Style:
        i = order.index(row["name"])
        return {"color": CYCLE[i % len(CYCLE)], "marker": "osD^v"[i % 5], "markersize": 3}

    figure, axes = panels(found["kernel"].nunique(), 2, width=3.4, height=1.9, sharey="row", sharex="col")
    for row, own in zip(axes, groups(by_epoch(found), "kernel"), strict=True):
        for each, x in zip(row, ("epoch", "seconds"), strict=True):
            panel(each, own, x, "test_error", "name", look, label="{name}")
        row[0].set_title(own["spec"].iat[0].title, loc="left")
    finish(figure, 3)
    return figure


def course_table(found: DataFrame) -> Table:
    """Errors and seconds of every run."""
    return Table.of(
        "{set}, n={n}",
        found,
        ("", "{spec.title}, {name}"),
        ("test error", "{test_error:.2%}"),
        ("epochs", "{epochs}"),
        ("s an epoch", "{fastest:.2f}"),
        ("s in all", "{seconds:.1f}"),
    )


def time_figure(timed: DataFrame) -> Figure:
    """Seconds of an epoch against p."""

    def look(row: Row) -> Style:
        i = list(PROJECTIONS.values()).index(row["name"])
        return {"color": CYCLE[i], "marker": "os"[i], "linestyle": "--" if row["point"].period == 1 else "-"}

    figure, axes = panels(1, 1, width=4.6, height=3.0)
    label: Style = {"label": "{point.method}, by {name}"}
    scales: Style = {"across": counts("p, centres"), "up": log("seconds of an epoch")}
    timed = derived(timed, method=lambda run: run["point"].method)
    panel(axes[0, 0], timed, "p", "fastest", ["name", "method"], look, **label, **scales)
    finish(figure, 2)
    return figure


def beside(timed: DataFrame) -> DataFrame:
    """A row for each p and projection: EigenPro 4, with the columns fastest_3 and test_error_3 of EigenPro 3."""
    is_three = timed["point"].map(lambda point: point.period == 1)
    three = timed[is_three][["p", "name", "fastest", "test_error"]]
    found = timed[~is_three].merge(three, on=["p", "name"], suffixes=("", "_3"))
    return found.assign(faster=found["fastest_3"] / found["fastest"])


def time_table(timed: DataFrame) -> Table:
    """Seconds and errors of EigenPro 4 and 3, and how many times faster EigenPro 4 is."""
    return Table.of(
        "{set}, n={n}, Laplacian: T > 1 against T = 1",
        beside(timed),
        ("", "p = {p}, projected by {name}"),
        ("EigenPro 4, s an epoch", "{fastest:.2f}"),
        ("EigenPro 3", "{fastest_3:.2f}"),
        ("times faster", "{faster:.1f}"),
        (f"test error after {timed['point'].iat[0].epochs}", "{test_error:.2%}"),
        ("EigenPro 3", "{test_error_3:.2%}"),
    )


def delayed_claim(timed: DataFrame) -> Claim:
    """That delayed projections are faster at the same error, and gain more for a larger p."""
    pairs = beside(timed[timed["name"] == PROJECTIONS["eigenpro"]])
    ratios, apart = pairs["faster"], (pairs["test_error"] - pairs["test_error_3"]).abs().max()
    said = ", ".join(f"p={p}: {ratio:.1f} times" for p, ratio in zip(pairs["p"], ratios, strict=True))
    return Claim(
        "EigenPro 4 is faster than EigenPro 3, the more the larger p, at the same test error (within a point)",
        bool(ratios.min() > 1 and ratios.iat[-1] > ratios.iat[0] and apart <= SAME),
        f"projected by an epoch of EigenPro 2: {said}; errors at most {100 * apart:.2f} points apart",
        EIGENPRO_4_SOURCE,
    )


def gaussian_claim(found: DataFrame) -> Claim:
    """That the Gaussian does worse than the Laplacian and the ReLU NTK, with p centres, too."""
    four = found[found["name"].str.startswith("EigenPro 4")]
    largest = four[four["p"] == four["p"].max()]
    errors = {spec.title: error for spec, error in zip(largest["spec"], largest["test_error"], strict=True)}
    return Claim(
        f"{found['set'].iat[0]}, p={four['p'].max()}: the Gaussian's test error is larger than the Laplacian's and "
        "the ReLU NTK's",
        errors["Gaussian"] > max(error for name, error in errors.items() if name != "Gaussian"),
        ", ".join(f"{name} {error:.2%}" for name, error in errors.items()),
        REPORT,
    )


def surface_figure(grid: DataFrame) -> Figure:
    """Test error by n and p, in a heat map with the numbers."""
    import numpy as np

    figure, axes = panels(1, 1, width=4.6, height=3.2)
    panel = axes[0, 0]
    cells = 100 * grid.pivot(index="p", columns="n", values="test_error").astype(float)
    panel.imshow(cells, origin="lower", cmap="Greys", aspect="auto", vmax=1.5 * cells.max().max())
    for (i, j), value in np.ndenumerate(cells):
        if not np.isnan(value):
            panel.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8)
    panel.set_xticks(range(cells.shape[1]), [short_count(n) for n in cells.columns])
    panel.set_yticks(range(cells.shape[0]), [short_count(p) for p in cells.index])
    panel.set_xlabel("n, training rows")
    panel.set_ylabel("p, centres")
    panel.grid(visible=False)
    panel.set_title("test error, %", loc="left")
    return figure


def augment_table(gains: DataFrame) -> Table:
    """Test error without augmentation, with it, and with it and more centres, which are augmented images, too."""
    rows = []
    for own in groups(gains, "set"):
        name = f"{own['set'].iat[0]} n={own['n'].iat[0]}, {own['spec'].iat[0]}, {own['augment'].iat[1]}"
        rows.append((name, *(f"{error:.2%}" for error in own["test_error"])))
    heads = zip(("as they are", "augmented", "augmented"), own["p"], strict=True)
    return Table("augmented training images, test error", ("", *(f"{what}, p={p}" for what, p in heads)), rows)


def augment_claim(own: DataFrame) -> Claim:
    """That augmentation helps, if there are enough centres."""
    plain, same, more = own["test_error"]
    return Claim(
        f"{own['set'].iat[0]}, n={own['n'].iat[0]}: augmented images as training rows and as 4 n centres "
        "lower the test error",
        more < plain,
        f"{plain:.2%} as they are, {same:.2%} augmented with n centres, {more:.2%} with 4 n",
        "what p centres make possible",
    )


def published_table() -> Table:
    """The paper's numbers for orientation; their data set and machine are others."""
    cells = [
        (f"p = {p}", f"{a4:.2f}", f"{s4:.0f}", f"{a3:.2f}", f"{s3:.0f}", f"{s3 / s4:.1f}")
        for p, (a4, s4, a3, s3) in EIGENPRO_4.items()
    ]
    header = ("", "EigenPro 4, accuracy %", "s", "EigenPro 3, accuracy %", "s", "times faster")
    return Table("published: CIFAR5M features, n = 5e6, d = 1280, one epoch, one A100, Laplacian 20", header, cells)
