"""What the figures of all experiments share: colours with a meaning, bands over seeds, lines of the exact limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from callbacks.figures import BLACK, BLUE, GREEN, GREY, ORANGE, new_figure
from recipes.reproduce.page.presentation import mean_and_spread

# Okabe and Ito's colours in an order that also differs in grey.
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK, GREY, "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
OF_KERNEL = {"gaussian": BLUE, "laplacian": ORANGE, "relu-ntk": GREEN}
PANEL = (2.6, 2.3)  # inches


def panels(
    rows: int, columns: int, width: float = PANEL[0], height: float = PANEL[1], **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, an array of shape (rows, columns)."""
    figure = new_figure(columns * width, rows * height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def style_of(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th curve."""
    return {"color": CYCLE[index % len(CYCLE)], "marker": MARKERS[index % len(MARKERS)]}


def noise_style(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th level of label noise: colours that no kernel has."""
    return {"color": CYCLE[3 + index], "marker": MARKERS[index]}


def curve(axes: Axes, x: Sequence[float], y: Sequence[float], label: str | None = None, **style: Any) -> None:
    """A line through points; no markers where they would hide it."""
    if len(x) > 40:
        style["marker"] = None
    axes.plot(x, y, label=label, **style)


def band(
    axes: Axes, x: Sequence[float], groups: Sequence[Sequence[float]], label: str | None = None, **style: Any
) -> None:
    """The means of groups of values over seeds, and a band of one standard deviation to either side."""
    means, spreads = zip(*(mean_and_spread(group) for group in groups), strict=True)
    curve(axes, x, means, label, **style)
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axes.fill_between(x, low, high, color=style.get("color"), alpha=0.2, linewidth=0)


def limit(axes: Axes, value: float, label: str | None = None, color: str = BLACK) -> None:
    """The exact limit: a dashed horizontal line."""
    axes.axhline(value, color=color, linestyle="--", linewidth=1.2, label=label)


def epochs_axis(axes: Axes) -> None:
    """Whole epochs from left to right."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def percent_axis(axes: Axes, label: str) -> None:
    """Fractions from bottom to top, written in percent."""
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def log_axis(axes: Axes, label: str) -> None:
    """Bottom to top logarithmically, with ticks at 1, 2 and 5 times powers of ten that are written out."""
    axes.set_yscale("log")
    axes.set_ylabel(label)
    _written_out(axes.yaxis)


def seconds_axis(axes: Axes, label: str) -> None:
    """The same from left to right."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    _written_out(axes.xaxis)


def _written_out(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def rows_axis(axes: Axes, sizes: Iterable[float], label: str = "n, training rows") -> None:
    """Numbers of rows from left to right, logarithmic, a tick at each size."""
    ticks = sorted(set(sizes))
    axes.set_xscale("log")
    shown = [t for i, t in enumerate(ticks) if i == 0 or t / ticks[i - 1] > 1.3 or i == len(ticks) - 1]
    axes.set_xticks(shown, [short_count(t) for t in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def short_count(value: float) -> str:
    """1500 as 1.5k."""
    return f"{value:g}" if value < 1000 else f"{value / 1000:g}k"


def legend_below(figure: Figure, columns: int = 4) -> None:
    """One legend for all panels, under the figure, in at most so many columns: fewer where the figure is narrow.

    Panels that have a legend of their own are left out.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        if axes.get_legend() is None:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
    labels, handles = list(found), list(found.values())
    needed = 0.55 + 0.075 * max(map(len, labels), default=0)  # inches of a column: the line, and letters of size 9
    columns = max(1, min(columns, int(figure.get_figwidth() / needed)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
