"""The figures of a report: curves of all runs against their limits, confusion matrices, spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from callbacks.confusion import confusion_figure
from callbacks.convergence import widen
from callbacks.figures import CYCLE, MARKERS, any_script, as_svg, figure_style, new_figure
from callbacks.spectrum import damped_eigenvalues
from recipes.report.reading import Checked, Run

PANEL = (3.2, 2.7)  # inches: a panel fills the width of a phone, and three the width of a page
NEGLIGIBLE = 1e-3  # a limit below this share of a curve on a logarithmic axis is rounding error, and is not drawn
SPREAD = 50  # largest over smallest value from which an axis is logarithmic
BESIDE = 5  # entries of a legend in a line
LEAST_ERROR = 0.01  # that an axis of errors reaches to, so that none is seen as none
MANY = 30  # epochs above which points have no markers


@dataclass(frozen=True)
class Panel:
    """A quantity by epoch."""

    title: str
    tags: tuple[str, ...]
    """Of the curves; a run has the first of them that it knows."""
    limits: tuple[str, ...] = ()
    """Names among the results of the exact limit; a run has the first of them that it knows."""
    log: bool = False
    percent: bool = False


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG, with its text for those who do not see it."""

    svg: str
    alt: str


def panels_of(rows: str) -> list[Panel]:
    """The panels of a report; `rows` is the name of the rows of val/*."""

    def limit(name: str) -> tuple[str, ...]:
        return (f"exact_val_{name}", f"exact_test_{name}")

    return [
        Panel("training mse", ("train/mse", "train/mse_running"), ("exact_train_mse",), log=True),
        Panel("training error", ("train/error", "train/error_running"), ("exact_train_error",), percent=True),
        Panel(f"{rows} mse", ("val/mse",), limit("mse")),
        Panel(f"{rows} error", ("val/error",), limit("error"), percent=True),
        Panel(f"{rows} error, noisy labels", ("val/error_noisy",), limit("error_noisy"), percent=True),
        Panel("RKHS norm", ("rkhs/norm",), ("exact_rkhs_norm",)),
        Panel("RKHS distance to the limit", ("exact/distance",), log=True),
        Panel("score of the round", ("features/score",)),
    ]


def curves_of(panel: Panel, runs: Sequence[Run], letters: Sequence[str]) -> Drawn | None:
    """A panel with a curve for each run that has one, its limit dashed; None if no run has one."""
    shown, texts = [], []
    for i, run in enumerate(runs):
        tag = next((tag for tag in panel.tags if tag in run.curves), None)
        if tag is not None:
            limit = next((v for name in panel.limits if (v := run.results.get(name)) is not None), None)
            shown.append((i, run.curves[tag], limit))
            texts.append(said(letters[i], run.curves[tag], limit, panel.percent))
    if not shown:
        return None
    with figure_style():
        figure = new_figure(*PANEL)
        axes = figure.add_subplot()
        values = [value for _, points, _ in shown for _, value in points]
        positive = [value for value in values if value > 0]
        log = bool(positive) and (panel.log or (len(positive) == len(values) and max(values) > SPREAD * min(values)))
        for i, points, limit in shown:
            hidden = log and (limit or 0) < NEGLIGIBLE * min(positive)
            draw(axes, above(points, 0.0) if log else points, None if hidden else limit, i, letters[i])
        axes.set_yscale("log" if log else "linear")
        if not log:
            widen(axes)
            low, high = axes.get_ylim()
            if panel.percent:
                axes.set_ylim(max(low, 0.0), max(high, LEAST_ERROR) if max(values) > 0 else LEAST_ERROR)
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_title(panel.title[0].upper() + panel.title[1:], loc="left")
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=BESIDE)
        return Drawn(as_svg(figure), f"{panel.title} by epoch; {'; '.join(texts)}")


def above(points: list[tuple[int, float]], least: float) -> list[tuple[int, float]]:
    """The points with gaps in place of values up to `least`: a logarithmic axis has no room for 0."""
    return [(epoch, value if value > least else math.nan) for epoch, value in points]


def draw(axes: Axes, points: list[tuple[int, float]], limit: float | None, index: int, letter: str) -> None:
    """A curve in the colour of its run, and its limit as a dashed line."""
    epochs, values = zip(*points, strict=True)
    colour, marker = CYCLE[index], MARKERS[index] if len(points) <= MANY else None
    axes.plot(epochs, values, color=colour, marker=marker, label=letter or None)
    if limit is not None:
        axes.axhline(limit, color=colour, linestyle="--", linewidth=1.1, label=None if letter else "exact limit")


def said(letter: str, points: list[tuple[int, float]], limit: float | None, percent: bool) -> str:
    """A curve in words."""
    form = "{:.2%}" if percent else "{:.4g}"
    (first, start), (last, end) = points[0], points[-1]
    text = f"{letter} {form.format(start)} after epoch {first}".strip()
    text += f", {form.format(end)} after epoch {last}" if last != first else ""
    return text + (f", exact limit {form.format(limit)}" if limit is not None else "")


def matrix_of(confusion: Checked, rows: str) -> Drawn:
    """The confusion matrix of a run."""
    names = confusion["names"]
    matrix = torch.zeros(len(names), len(names), dtype=torch.long)
    for true, predicted, count in confusion["counts"]:
        matrix[true, predicted] = count
    wrong = int(matrix.sum() - matrix.trace())
    with any_script():
        svg = as_svg(confusion_figure(matrix, names, rows))
    return Drawn(svg, f"confusion matrix of {len(names)} classes: {wrong} of {int(matrix.sum())} {rows} rows wrong")


def spectra_of(runs: Sequence[Run], letters: Sequence[str]) -> Drawn | None:
    """The spectra of all runs that have one, preconditioned dashed; None if no run has one."""
    texts = []
    with figure_style():
        figure = new_figure(4.4, 3.3)
        axes = figure.add_subplot()
        for i, run in enumerate(runs):
            found = run.spectrum
            values = np.array(found["eigenvalue"] if found else [], dtype=float)
            shown = values > 0
            if found is None or not shown.any():
                continue
            index, q = np.array(found["index"]), found["top_q"]
            axes.plot(index[shown], values[shown], color=CYCLE[i], label=letters[i] or "of the kernel")
            text = f"{letters[i]} {values[0]:.3g} down to {values[shown][-1]:.3g} of s = {found['s']}".strip()
            if q and values[index == q][0] > 0:
                head = index <= q
                damped = damped_eigenvalues(values, int(head.sum()))[head]
                label = None if letters[i] else f"preconditioned, q = {q}"
                axes.plot(index[head], damped, color=CYCLE[i], linestyle="--", label=label)
                text += f", preconditioned {damped[0]:.3g} (q = {q})"
            texts.append(text)
        if not texts:
            return None
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("index i")
        axes.set_ylabel("eigenvalue of K(X_S, X_S) / s")
        axes.legend(loc="lower left")
        return Drawn(as_svg(figure), f"eigenvalues by index; {'; '.join(texts)}")
