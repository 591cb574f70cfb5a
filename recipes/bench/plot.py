"""The benchmark in one figure: ratios beside their targets, growth, exact solves and other libraries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures import BLACK, BLUE, GREEN, GREY, ORANGE, figure_style, new_figure

Found = dict[str, Any]
COLOURS = (BLUE, ORANGE, GREEN, GREY)
MARKERS = ("o", "s", "^", "D")
WIDTH, ROW, CURVES = 8.0, 0.2, 2.6  # inches: of the figure, of a bar, of a panel of curves


def draw(results: Found) -> Figure | None:
    """The figure of all panels that have numbers; None if no panel has any."""
    by_part: dict[str, list[Found]] = defaultdict(list)
    for each in results["measurements"]:
        by_part[each["part"]].append(each)
    panels: list[tuple[float, Callable[[Axes], None]]] = []
    for part, title, value in (
        ("epochs", "Epoch / roofline (black: target)", "ratio"),
        ("exact", "Exact solve: seconds", "seconds"),
        ("peers", "Seconds to a training mse of 1e-4 (SVC: to the end of its training)", "seconds"),
        ("tune", "Choice of kernel, bandwidth and ridge: seconds", "seconds"),
        ("memory", "Peak memory / budget (black: target)", "ratio"),
    ):
        rows = [each for each in by_part[part] if each[value] is not None and each["against"] != "the epoch"]
        if rows:
            height = 0.7 + ROW * len(rows)
            panels.append((height, lambda axes, rows=rows, title=title, value=value: bars(axes, rows, title, value)))  # type: ignore[misc]
    timed = [each for each in by_part["growth"] if each["seconds"] is not None]
    for grows, title in (("n", "Growth with n"), ("d", "Growth with d")):
        rows = [each for each in timed if each["detail"]["grows"][0] == grows]
        if rows:
            panels.append((CURVES, lambda axes, rows=rows, title=title, grows=grows: curves(axes, rows, title, grows)))  # type: ignore[misc]
    if not panels:
        return None
    with figure_style():
        figure = new_figure(WIDTH, sum(height for height, _ in panels) + 0.4)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[height for height, _ in panels])
        for axes, (_, drawn) in zip(grid[:, 0], panels, strict=True):
            drawn(axes)
        machine = results["machine"]
        figure.suptitle(f"kl bench: {results['data']['name']} on {machine['gpu'] or machine['cpu']}", fontsize=9)
    return figure


def bars(axes: Axes, rows: list[Found], title: str, value: str) -> None:
    """One bar for each row, with its number beside it and its target as a black stroke across it."""
    places = range(len(rows))
    colours = [ORANGE if each["met"] is False else BLUE for each in rows]
    axes.barh(places, [each[value] for each in rows], color=colours, height=0.7)
    axes.set_yticks(places, [each["name"] for each in rows])
    axes.invert_yaxis()
    values = [each[value] for each in rows]
    if max(values) > 30 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(left=min(values) / 3)
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    for place, each in zip(places, rows, strict=True):
        text = f" {each[value]:.3g}" + (" (mse not reached)" if each["error"] else "")
        axes.annotate(text, (each[value], place), va="center", fontsize=7)
        if each["target"] is not None and value == "ratio":
            axes.plot([each["target"]] * 2, [place - 0.45, place + 0.45], color=BLACK, linewidth=2)
    axes.set_xlim(right=axes.get_xlim()[1] * 1.15)  # room for the numbers


def curves(axes: Axes, rows: list[Found], title: str, grows: str) -> None:
    """The seconds of an epoch and of the limit over n or d, with their ratios as numbers."""
    lines: dict[str, list[Found]] = defaultdict(list)
    for each in rows:
        lines[each["detail"]["grows"]].append(each)
    for (name, points), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
        points = sorted(points, key=lambda each: each[grows])
        where = [each[grows] for each in points]
        label = name.partition(", ")[2] or "epoch"
        axes.plot(where, [each["seconds"] for each in points], color=colour, marker=marker, label=label)
        for each in points:
            axes.annotate(
                f"{each['ratio']:.2f}",
                (each[grows], each["seconds"]),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=colour,
            )
    limit = sorted({(each[grows], each["detail"]["limit_seconds"]) for each in rows})
    axes.plot(*zip(*limit, strict=True), color=BLACK, linestyle="--", label="float32 product")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(y=0.2)
    axes.set_xticks(
        sorted({each[grows] for each in rows}), [str(each) for each in sorted({each[grows] for each in rows})]
    )
    axes.set_xticks([], minor=True)
    axes.set_xlabel(grows)
    axes.set_ylabel("seconds")
    axes.set_title(f"{title}: seconds an epoch (numbers: ratio to the product)", loc="left")
    axes.legend(fontsize=7)
