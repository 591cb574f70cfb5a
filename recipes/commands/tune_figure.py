"""The candidates in one figure: for each kernel the error over bandwidth and ridge, and the norm beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from callbacks.figures import BLACK, ORANGE, figure_style, new_figure
from kl.kernels.kernel import kernel_name
from kl.tuning.result import Tuning, TuningPoint
from recipes.output.report import kernel_text

CELL, LEFT, MORE = (
    (0.52, 0.26),
    1.3,
    1.1,
)  # inches: of a cell, of the names to the left, of the title and axis of a panel
FINEST = 30  # bandwidths or ridges beyond which cells have no numbers


def draw_tuning(tuning: Tuning, title: str) -> Figure:
    """Heat maps of the stage that scored all candidates; the choice has a frame, finalists of all rows a dot."""
    points = [each for each in tuning.points if each.stage == tuning.points[0].stage]
    kernels: dict[str, list[TuningPoint]] = {}
    for each in points:
        kernels.setdefault(_name(each), []).append(each)
    ridges = sorted({each.ridge for each in points})
    heights = [CELL[1] * len({each.bandwidth for each in own}) + MORE for own in kernels.values()]
    with figure_style():
        figure = new_figure(2 * (CELL[0] * max(len(ridges), 4) + LEFT), sum(heights) + 0.4)
        grid = figure.subplots(len(kernels), 2, squeeze=False, height_ratios=heights)
        # Of classes the error, which people know how to read, also where the mse decides.
        shown = "error" if tuning.metric == "mse" and points[0].error is not None else tuning.metric
        percent = shown == "error"
        loss, norm = _colours([getattr(each, shown) for each in points]), _colours([each.rkhs_norm for each in points])
        for (name, own), (left, right) in zip(kernels.items(), grid, strict=True):
            of_metric = f"{name}: {shown.replace('_', ' ')}{' in %' if percent else ''}"
            _map(left, own, ridges, lambda p: getattr(p, shown), loss, of_metric, _percent if percent else _short)
            _map(right, own, ridges, lambda p: p.rkhs_norm, norm, "RKHS norm", _short)
            right.set_ylabel("")
            for axes in (left, right):
                _mark(axes, own, ridges, tuning)
        rows = points[0].rows
        figure.suptitle(f"{title}; scores on {rows} rows{_legend(tuning)}", fontsize=9)
    return figure


def _name(point: TuningPoint) -> str:
    """The kernel without its bandwidth."""
    if point.bandwidth is None:
        return kernel_text(point.kernel)
    config = {key: value for key, value in point.kernel.config().items() if key not in ("kernel", "bandwidth")}
    said = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in config.items()
    )
    return kernel_name(type(point.kernel)).rpartition(":")[2] + (f" ({said})" if said else "")


def _legend(tuning: Tuning) -> str:
    if tuning.points[0].stage == tuning.stage:
        return f"; frame: the choice by {tuning.metric.replace('_', ' ')}"
    return (
        f"; dots: scored again on all {tuning.best.rows}; frame: the choice there by {tuning.metric.replace('_', ' ')}"
    )


def _map(
    axes: Axes,
    points: Sequence[TuningPoint],
    ridges: Sequence[float],
    value: Callable[[TuningPoint], float],
    colours: Normalize,
    title: str,
    text: Callable[[float], str],
) -> None:
    widths = _widths(points)
    table = np.full((len(widths), len(ridges)), math.nan)
    for each in points:
        table[widths.index(each.bandwidth), ridges.index(each.ridge)] = value(each)
    axes.imshow(table, norm=colours, cmap="viridis", aspect="auto", origin="lower")
    axes.set_xticks(range(len(ridges)), [f"{each:g}" for each in ridges], fontsize=7)
    axes.set_yticks(range(len(widths)), ["" if each is None else f"{each:.3g}" for each in widths], fontsize=7)
    axes.set_xlabel("ridge")
    axes.set_ylabel("" if widths == [None] else "bandwidth")
    axes.set_title(title, loc="left")
    axes.grid(visible=False)
    if max(table.shape) <= FINEST:
        for (i, j), number in np.ndenumerate(table):
            if math.isfinite(number):
                light = float(colours(number)) > 0.6
                axes.text(j, i, text(number), ha="center", va="center", fontsize=6, color=BLACK if light else "white")


def _mark(axes: Axes, points: Sequence[TuningPoint], ridges: Sequence[float], tuning: Tuning) -> None:
    """A frame about the choice, and dots on those that were scored again on all rows."""
    from matplotlib.patches import Rectangle

    widths, kernels = _widths(points), {each.kernel for each in points}
    again = [each for each in tuning.points if each.stage != tuning.points[0].stage and each.kernel in kernels]
    for each in again:
        place = ridges.index(each.ridge) + 0.36, widths.index(each.bandwidth) + 0.3
        axes.plot(*place, marker="o", markersize=2.5, color=ORANGE, clip_on=False)
    if tuning.kernel in kernels:
        corner = ridges.index(tuning.ridge) - 0.5, widths.index(tuning.best.bandwidth) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2, clip_on=False, zorder=3))


def _widths(points: Sequence[TuningPoint]) -> list[Any]:
    return sorted({each.bandwidth for each in points}, key=lambda each: each or 0.0)


def _colours(values: Sequence[float]) -> Normalize:
    """Logarithmic colours if all values are above 0 and differ by more than 3 times, else linear ones."""
    known = [each for each in values if math.isfinite(each)] or [0.0]
    low, high = min(known), max(known)
    return LogNorm(low, high) if low > 0 and high > 3 * low else Normalize(low, high)


def _percent(value: float) -> str:
    return f"{100 * value:.3g}"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.0e}"
