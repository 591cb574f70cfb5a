"""The common style of all experiments' figures: `panel` draws a panel from a table, and colours have a meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from callbacks.figures import BLUE, CYCLE, GREEN, MARKERS, ORANGE, new_figure
from recipes.reproduce.table import DataFrame, Row, groups, is_missing, mean, spread

OF_KERNEL = {"gaussian": BLUE, "laplacian": ORANGE, "relu-ntk": GREEN}
NOISES = (0.0, 0.01, 0.1)  # the levels of label noise that have a colour
LINES = {"interpolated": "--", "overfitted": "-"}
PANEL = (2.6, 2.3)  # inches

Style = dict[str, Any]
"""Keyword arguments of `panel`, or of matplotlib's `plot`."""
Scale = Callable[..., None]
"""Sets up an axis of a panel; called with the axis and, optionally, the values along it."""


class Mark(NamedTuple):
    """A straight line at the value of a column, one for each curve that has a value there."""

    column: str
    label: str | None = None
    """A format of the fields of the curve's first row."""
    line: str = "--"
    upright: bool = False
    """Whether the line is vertical."""


def panels(
    rows: int, columns: int, width: float = PANEL[0], height: float = PANEL[1], **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, an array of shape (rows, columns)."""
    figure = new_figure(columns * width, rows * height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panel(
    axes: Axes,
    table: DataFrame,
    x: str,
    y: str,
    by: str | list[str] | None = None,
    look: Callable[[Row], Style] | str | None = None,
    *,
    label: str | None = None,
    band: bool = False,
    gaps: bool = False,
    mark: Mark | None = None,
    title: str | None = None,
    across: Scale | None = None,
    up: Scale | None = None,
    **style: Any,
) -> None:
    """Draw y against x: a curve for each group of rows, in the order in which the groups first appear.

    Args:
        axes: the panel.
        table: rows with the columns x and y.
        x: a column.
        y: a column; rows without a value there are left out.
        by: columns whose values tell the curves apart.
        look: colour and marker of a curve from its first row, or the column that holds them; None: `style_of`.
        label: the label of a curve, a format of the fields of its first row.
        band: draw the mean of the rows of equal x, with one standard deviation to either side.
        gaps: interrupt a curve where y has no value.
        mark: draw a straight line beside each curve, in its colour.
        title: above the panel, to the left; a format of the fields of the table's first row.
        across: sets up the horizontal axis; None takes that of x in `AXES`.
        up: sets up the vertical axis; None takes that of y in `AXES`.
        style: further style of all curves.
    """
    for i, own in enumerate(groups(table, by) if by else [table]):
        row = own.iloc[0].to_dict()
        drawn = (style_of(i) if look is None else row[look] if isinstance(look, str) else look(row)) | style
        known, name = (own if gaps else own[own[y].notna()]), label and label.format(**row)
        if band:
            found = known.groupby(x)[y].agg([mean, spread])
            known = found.reset_index().rename(columns={"mean": y})
        if len(known):
            curve(axes, known[x], known[y], name, **drawn)
        if band and len(known):
            ends = found["mean"] - found["spread"], found["mean"] + found["spread"]
            axes.fill_between(list(found.index), *ends, color=drawn["color"], alpha=0.2, linewidth=0)
        if mark and not is_missing(row[mark.column]):
            draw_mark = axes.axvline if mark.upright else axes.axhline
            said = mark.label and mark.label.format(**row)
            draw_mark(row[mark.column], color=drawn["color"], linestyle=mark.line, linewidth=1.2, label=said)
    for axis, column, scale in ((axes.xaxis, x, across or AXES.get(x)), (axes.yaxis, y, up or AXES.get(y))):
        if scale is not None:
            scale(axis, table[column].dropna())
    if title is not None:
        axes.set_title(title.format(**table.iloc[0].to_dict()), loc="left")


def curve(axes: Axes, x: Iterable[float], y: Iterable[float], label: str | None = None, **style: Any) -> None:
    """A line through points; more than 40 points have no markers, unless `markevery` selects some."""
    shown = [float("nan") if value is None else value for value in y]
    if len(shown) > 40 and "markevery" not in style:
        style["marker"] = None
    axes.plot(list(x), shown, label=label, **style)


# Looks


def style_of(index: int) -> Style:
    """Colour and marker of the index-th curve."""
    return {"color": CYCLE[index % len(CYCLE)], "marker": MARKERS[index % len(MARKERS)]}


def kernel_look(row: Row) -> Style:
    """Colour and marker of the row's kernel."""
    return {"color": OF_KERNEL[row["kernel"]], "marker": MARKERS[list(OF_KERNEL).index(row["kernel"])]}


def noise_look(row: Row) -> Style:
    """Colour and marker of the row's level of label noise: colours that no kernel has."""
    index = NOISES.index(row["noise"])
    return {"color": CYCLE[3 + index], "marker": MARKERS[index]}


def way_look(row: Row) -> Style:
    """`noise_look` with a line: dashed for interpolated, the exact limit; solid for overfitted."""
    return {**noise_look(row), "linestyle": LINES[row["way"]]}


# Axes


def scale(
    label: str,
    base: float | None = None,
    locator: Callable[[], Locator] | None = None,
    form: Callable[[float], str] | None = None,
    ticks: Mapping[float, str] | Callable[[Iterable[float]], Mapping[float, str]] | None = None,
) -> Scale:
    """An axis with a name.

    Args:
        label: the name of the axis.
        base: base of the logarithm; None means linear.
        locator: makes the locator of the ticks.
        form: the text of a tick.
        ticks: the only ticks, with their texts, or a function from the values to such ticks.
    """

    def set_up(axis: Axis, values: Iterable[float] = ()) -> None:
        axis.set_label_text(label)
        if base is not None:
            (axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale)("log", base=base)
        if locator is not None:
            axis.set_major_locator(locator())
        if form is not None:
            axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
            axis.set_minor_formatter(NullFormatter())
        if ticks is not None:
            texts = ticks(values) if callable(ticks) else ticks
            axis.set_ticks(list(texts), list(texts.values()))
            axis.set_ticks([], minor=True)

    return set_up


def percent(label: str) -> Scale:
    """Fractions, written in percent."""
    return scale(label, form=lambda value: f"{100 * value:.4g}%")


def log(label: str) -> Scale:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten that are written out."""
    return scale(label, 10, lambda: LogLocator(subs=(1, 2, 5)), lambda value: f"{value:g}")


def counts(label: str = "n, training rows", at: Iterable[float] = ()) -> Scale:
    """A logarithmic axis of counts, with a tick at each value (or each of `at`) that has room."""

    def texts(values: Iterable[float]) -> dict[float, str]:
        ticks = sorted(set(at or values))
        shown = [t for i, t in enumerate(ticks) if i == 0 or t / ticks[i - 1] > 1.3 or i == len(ticks) - 1]
        return {tick: short_count(tick) for tick in shown}

    return scale(label, 10, ticks=texts)


AXES: dict[str, Scale] = {
    "epoch": scale("epoch", locator=lambda: MaxNLocator(nbins=5, integer=True, min_n_ticks=1)),
    "n": counts(),
    "seconds": log("seconds of training steps"),
    "train_mse": scale("training mse", 10),
    "test_error": percent("test error"),
    "test_error_noisy": percent("test error, noised labels"),
    "rkhs_norm": log(r"RKHS norm $|f|_H$"),
}
"""The axis of a column, unless a panel has another."""


def short_count(value: float) -> str:
    """1500 as 1.5k."""
    return f"{value:g}" if value < 1000 else f"{value / 1000:g}k"


# The whole figure


def name_once(figure: Figure) -> None:
    """Leave out the name of an axis if the panel to the left has the same name, or the panel below shares the axis."""
    places = {(at.rowspan.start, at.colspan.start): axes for axes in figure.axes if (at := axes.get_subplotspec())}
    for (row, column), axes in sorted(places.items(), reverse=True):
        left, below = places.get((row, column - 1)), places.get((row + 1, column))
        if left is not None and left.get_ylabel() == axes.get_ylabel():
            axes.set_ylabel("")
        if below is not None and axes.get_shared_x_axes().joined(axes, below):
            axes.set_xlabel("")


def finish(figure: Figure, columns: int = 4, title: str | None = None) -> None:
    """Name each axis once, and put one legend for all panels under the figure, in at most `columns` columns.

    A narrow figure has fewer columns. Panels with a legend of their own are left out.
    """
    name_once(figure)
    found: dict[str, Any] = {}
    for axes in figure.axes:
        if axes.get_legend() is None:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
    labels, handles = list(found), list(found.values())
    needed = 0.55 + 0.075 * max(map(len, labels), default=0)  # inches of a column: the line, and letters of size 9
    columns = max(1, min(columns, int(figure.get_figwidth() / needed)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, title=title)
