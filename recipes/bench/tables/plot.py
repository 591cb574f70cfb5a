"""The critical-difference picture: mean ranks on an axis, and bars over methods that do not differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from callbacks.figures import BLACK, BLUE, GREY, PRINT_DPI, figure_style, new_figure
from kl.system.files import written_whole
from recipes.bench.tables.ranks import groups

WIDTH, ROW = 6.0, 0.26  # inches: of the figure, of a line of text
OURS = ("kl", "rfm")
MARGIN = 0.22  # of the axis, on both sides, for the names


def write_figure(path: Path, ranks: dict[str, Any]) -> None:
    """Write the picture, if two methods were ranked at least."""
    if ranks["critical_difference"] is None:
        path.unlink(missing_ok=True)  # that of another run
        return
    figure = draw(ranks)
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=PRINT_DPI)
    figure.clear()


def draw(ranks: dict[str, Any]) -> Figure:
    """Names of the better half on the left, of the others on the right, each with its mean rank.

    Source: Demsar 2006, JMLR 7, figure 1.
    """
    names, means, difference = ranks["methods"], ranks["mean_ranks"], ranks["critical_difference"]
    k, bars = len(names), groups(means, difference)
    left = (k + 1) // 2
    first = 0.55 + 0.3 * len(bars)  # the height of the first name below the axis; 1 is a line of text
    depth = first + left
    with figure_style():
        figure = new_figure(WIDTH, ROW * (depth + 4.2))
        axes = figure.subplots()
        axes.set_axis_off()
        pad = MARGIN * (k - 1)
        end = max(k + pad, 1 + difference)  # the bar of the critical difference may be longer than the axis
        axes.set(xlim=(1 - pad, end), ylim=(depth, -3.0))
        axes.plot([1, k], [0, 0], color=BLACK, linewidth=1)
        for place in range(1, k + 1):
            axes.plot([place, place], [0, -0.3], color=BLACK, linewidth=1)
            axes.text(place, -0.45, str(place), ha="center", va="bottom")
        axes.plot([1, 1 + difference], [-2.0, -2.0], color=GREY, linewidth=2, solid_capstyle="butt")
        axes.text(1, -2.2, f"critical difference {difference:.2f}", color=GREY, ha="left", va="bottom", fontsize=8)
        for i, (name, mean) in enumerate(zip(names, means, strict=True)):
            row, side = (i, 1 - 0.02 * pad) if i < left else (k - 1 - i, k + 0.02 * pad)
            colour = BLUE if name in OURS else BLACK
            height = first + row + 0.3
            axes.plot([mean, mean, side], [0, height, height], color=colour, linewidth=0.8)
            text = f"{name} {mean:.2f} " if i < left else f" {name} {mean:.2f}"
            axes.text(side, height, text, color=colour, ha="right" if i < left else "left", va="center")
        for i, (low, high) in enumerate(bars):
            height = 0.35 + 0.3 * i
            axes.plot([means[low] - 0.03, means[high] + 0.03], [height, height], color=BLACK, linewidth=3)
        axes.set_title(
            f"Mean rank over {ranks['sets']} sets; bars join methods without a significant difference "
            f"(Nemenyi, {ranks['level']:.0%})",
            loc="left",
        )
    return figure
