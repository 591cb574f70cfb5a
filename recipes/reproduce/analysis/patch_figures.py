"""The figures of `images`: test error against the number of patches, against seconds, and after each change."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from callbacks.figures import BLACK, GREY
from recipes.reproduce.analysis.patch_claims import MAIN, PIXELS, RIDGE, beside_published
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, percent, scale, style_of
from recipes.reproduce.published import PATCHES_CIFAR
from recipes.reproduce.table import DataFrame, groups, rows_of, stacked

SLOWER = ("3 x 3 cells", "soft", "rectified", "Laplacian")  # changes after which the seconds differ


def draw_counts(found: DataFrame) -> Figure:
    """Test error against the number of patches, with those of pixels as lines, and a published one."""
    figure, (axes,) = panels(1, found["set"].nunique(), width=3.4, height=2.8)
    for each, own in zip(axes, groups(found, "set"), strict=True):
        curve = own[own["change"] == MAIN]
        across = scale("patches in the dictionary", 2, ticks=lambda values: {value: str(value) for value in values})
        named = f"patches, Gaussian, ridge {RIDGE:g}"
        panel(each, curve, "count", "test_error", label=named, title="{set}, n={n}", across=across, color=BLACK)
        for i, pixels in enumerate(groups(own[own["change"] == PIXELS], ["kernel", "ridge"])):
            line: Style = {"color": style_of(i)["color"], "linestyle": "--", "linewidth": 1.2}
            label = "pixels, {kernel_title}, ridge {ridge:g}".format(**pixels.iloc[0])
            each.axhline(pixels["test_error"].iat[0], label=label, **line)
        if beside_published(own):
            first = min(PATCHES_CIFAR)
            mark: Style = {"color": GREY, "marker": "X", "linestyle": "", "markersize": 7}
            each.plot([first], [PATCHES_CIFAR[first]], label="published, n=50000, augmented, linear", **mark)
        each.set_ylim(bottom=0)
    finish(figure, columns=2)
    return figure


def draw_seconds(found: DataFrame) -> Figure:
    """Test error against the seconds of features, solve and evaluation, of all that changes the seconds."""
    figure, (axes,) = panels(1, found["set"].nunique(), width=3.4, height=2.8)
    across = log("seconds of features, solve and evaluation")
    for each, own in zip(axes, groups(found, "set"), strict=True):
        curve = own[own["change"] == MAIN]
        panel(each, curve, "seconds", "test_error", label=MAIN, title="{set}, n={n}", color=BLACK, marker="o")
        for row in rows_of(curve):
            each.annotate(f"{row['count']}", (row["seconds"], row["test_error"]), (2, 4), textcoords="offset points")
        others = own[own["change"].isin(SLOWER)]
        plain = own[(own["change"] == PIXELS) & (own["ridge"] == RIDGE)]
        shown = stacked([others, plain.assign(change=f"{PIXELS}, " + plain["kernel_title"])])
        style: Style = {"linestyle": "", "markersize": 6, "across": across, "up": percent("test error")}
        panel(each, shown, "seconds", "test_error", "change", label="{change}", **style)
    finish(figure, columns=4)
    return figure


def draw_changes(found: DataFrame) -> Figure:
    """Test error after each change, beside a line at that of the main machine."""
    figure, (axes,) = panels(1, found["set"].nunique(), width=3.2, height=3.2, sharey=True)
    for each, own in zip(axes, groups(found, "set"), strict=True):
        changed = own[~own["change"].isin([MAIN, PIXELS])].sort_values("change", key=order).reset_index(drop=True)
        changed = changed.assign(place=[-float(i) for i in range(len(changed))])
        names = scale("", ticks={-float(i): name for i, name in enumerate(changed["change"])})
        style: Style = {"linestyle": "", "marker": "o", "markersize": 6, "across": percent("test error"), "up": names}
        panel(
            each, changed, "test_error", "place", title="{set}, n={n},\n{features}", color=style_of(0)["color"], **style
        )
        base = own[(own["change"] == MAIN) & (own["count"] == changed["count"].iat[0])]
        line: Style = {"color": BLACK, "linestyle": "--", "linewidth": 1.2}
        each.axvline(
            base["test_error"].iat[0], label=f"eps 0.01, 2 x 2 cells, count, Gaussian, ridge {RIDGE:g}", **line
        )
    finish(figure, columns=2)
    return figure


def order(changes: Any) -> Any:
    """Ridges together, before the other changes, which stay in their order."""
    seen = list(dict.fromkeys(changes))
    return changes.map({name: (not name.startswith("ridge")) * len(seen) + i for i, name in enumerate(seen)})
