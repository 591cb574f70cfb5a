"""The run's approach to its exact limit, in one figure that can be printed."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from callbacks.common import Machine, find_callback, val_name
from callbacks.exact_interpolation import ExactInterpolation
from callbacks.figures import BLUE, GREEN, ORANGE, figure_style, log_figure, new_figure
from callbacks.history import Curves, History


class ConvergenceFigure(History):
    """Logs the figure `convergence` at the end of training, also as log_dir/figures/convergence.png.

    Three panels over the epochs: train mse (its mean over the batches, if the machine has only that) and, with an
    `ExactInterpolation` among the callbacks, the RKHS distance to the limit relative to |f*|; test or validation error
    (mse for regression); RKHS norm. Dashed lines are the exact limit. The exact train mse is not drawn, because it is
    a rounding error far below the panel.

    Attributes:
        path: the PNG file; None before it is written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: Machine, stage: str) -> None:
        """Forget an earlier fit."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.path = None

    def values(self, trainer: pl.Trainer, pl_module: Machine) -> dict[str, float]:
        """The epoch's values by tag, with the distance to the limit."""
        values = super().values(trainer, pl_module)
        exact = find_callback(trainer, ExactInterpolation)
        if exact is not None and exact.solution is not None:
            values["exact/distance"] = exact.epoch_distance(trainer, pl_module)
        return values

    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Draw and log."""
        if trainer.fast_dev_run or not self.history:  # type: ignore[attr-defined]
            return
        exact = find_callback(trainer, ExactInterpolation)
        limits = (exact.results if exact is not None else None) or {}
        figure = convergence_figure(self.history, limits, val_name(trainer), pl_module.method)
        self.path = log_figure(trainer, "convergence", figure)


def convergence_figure(
    history: Curves,
    limits: dict[str, float | None],  # ExactInterpolation.results, or empty
    rows: str = "test",  # the name of the rows of val/*
    method: str = "EigenPro",
) -> Figure:
    """The three panels, 7.2 by 2.5 inches: the width of a page."""
    norm = limits.get("exact_rkhs_norm")
    measure = "error" if "val/error" in history else "mse"
    with figure_style():
        figure = new_figure(7.2, 2.5)
        left, middle, right = figure.subplots(1, 3)
        running = "train/mse_running" in history
        label = "train mse over the batches" if running else "train mse"
        _curve(left, history.get("train/mse_running" if running else "train/mse", []), BLUE, label)
        if norm:
            relative = [(epoch, value / norm) for epoch, value in history.get("exact/distance", [])]
            _curve(left, relative, GREEN, r"$|f_t - f^*|_H\,/\,|f^*|_H$", marker="s")
            left.legend()
        if any(value > 0 for line in left.lines for value in line.get_ydata()):
            left.set_yscale("log")
        left.set_title(label.capitalize() if not norm else "Approach to the limit", loc="left")
        _curve(middle, history.get(f"val/{measure}", []), BLUE, method)
        _limit(middle, limits.get(f"exact_val_{measure}"))
        middle.set_title(f"{rows.capitalize()} {measure}", loc="left")
        if measure == "error":
            middle.yaxis.set_major_formatter(PercentFormatter(1.0))
        _curve(right, history["rkhs/norm"], BLUE, method)
        _limit(right, norm)
        right.set_title(r"RKHS norm $|f_t|_H$", loc="left")
        if not middle.lines:
            middle.text(0.5, 0.5, "no validation", ha="center", va="center", transform=middle.transAxes)
        for axes in (middle, right):
            widen(axes)
        for axes in (left, middle, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    return figure


def _curve(axes: Axes, points: list[tuple[int, float]], colour: str, label: str, marker: str = "o") -> None:
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, marker=marker if len(points) <= 30 else None, label=label)


def _limit(axes: Axes, value: float | None) -> None:
    """Draw the exact limit, if it is known, as a dashed line, and a legend."""
    if value is not None:
        axes.axhline(value, color=ORANGE, linestyle="--", label="exact limit")
        axes.legend()


def widen(axes: Axes) -> None:
    """Let the axis span at least a fifth of its values, so that a change of one test row does not look like a cliff."""
    low, high = axes.get_ylim()
    missing = 0.2 * abs(high) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
