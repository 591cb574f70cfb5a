"""Training mse and test error of every epoch, against the exact limit."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from recipes.reproduce.common import whole, whole_fit
from recipes.reproduce.drawing import OF_KERNEL, curve, epochs_axis, legend_below, limit, panels, percent_axis
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.point import Point, Results
from recipes.reproduce.presentation import Claim, Presentation, Table
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title

DATA = ("mnist", "fashion-mnist")


class Convergence(Experiment):
    """EigenPro 2 beside the minimum-norm interpolant, MNIST and Fashion-MNIST, both kernels."""

    name = "convergence"
    title = "EigenPro's training mse and test error per epoch against the exact limit"
    source = f"{B18} section 3; two student reports"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run and its limit for each set and kernel."""
        return [
            make(setting, data, kernel)
            for data in setting.distinct(*DATA)
            for kernel in setting.kernels(data)
            for make in (whole_fit, whole)
        ]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A column for each set: training mse above, test error below."""
        names = setting.distinct(*DATA)
        figure, axes = panels(2, len(names), width=3.4, sharex="col")
        rows, claims, table = [], [], []
        for column, data in enumerate(names):
            upper, lower = axes[0, column], axes[1, column]
            reached: dict[str, int | None] = {}
            for kernel in setting.kernels(data):
                fit, exact = results[whole_fit(setting, data, kernel)], results[whole(setting, data, kernel)]
                colour, found, level = OF_KERNEL[kernel.name], fit["curves"], exact["levels"][0]
                epochs = list(range(1, fit["epochs"] + 1))
                curve(upper, epochs, found["train/mse"], f"{kernel.title}, EigenPro", color=colour, marker="o")
                curve(lower, epochs, found["val/error"], color=colour, marker="o")
                limit(lower, level["test_error"], color=colour)
                rows += [
                    {
                        "data": fit["data_source"],
                        "n": fit["n"],
                        "kernel": kernel.name,
                        "bandwidth": kernel.bandwidth,
                        "epoch": epoch,
                        "train_mse": found["train/mse"][i],
                        "train_error": found["train/error"][i],
                        "test_error": found["val/error"][i],
                        "exact_train_mse": level["train_mse"],
                        "exact_test_error": level["test_error"],
                    }
                    for i, epoch in enumerate(epochs)
                ]
                final = found["train/mse"][-1]
                reached[kernel.name] = next(
                    (e for e, v in zip(epochs, found["train/error"], strict=True) if v == 0), None
                )
                table.append(
                    (
                        f"{title(fit['data_source'])} n={fit['n']}, {kernel}",
                        f"{final:.1e}",
                        f"{level['train_mse']:.1e}",
                        f"{found['val/error'][-1]:.2%}",
                        f"{level['test_error']:.2%}",
                        str(reached[kernel.name] or "not reached"),
                    )
                )
            limit_below(upper, data, setting, results)
            upper.set_title(f"{title(setting.data(data))}, n={fit['n']}", loc="left")
            upper.set_ylabel("training mse" if column == 0 else "")
            percent_axis(lower, "test error" if column == 0 else "")
            epochs_axis(lower)
            claims.append(faster_claim(title(setting.data(data)), reached, fit["epochs"]))
        legend_below(figure, axes[0, 0])
        header = ("", "training mse", "limit", "test error", "limit", "epochs to zero training error")
        return Presentation(
            figures={"convergence": figure},
            rows=rows,
            claims=claims,
            tables=[Table("after the last epoch", header, table)],
            sentences=[
                "The exact training mse is the rounding error of the solve, far below what training reaches: all that "
                "separates EigenPro from its limit is the number of epochs."
            ],
        )


def limit_below(axes: Axes, data: str, setting: Setting, results: Results) -> None:
    """A logarithmic axis of the training mse; limits that are decades below the curves are a line at its foot."""
    axes.set_yscale("log")
    lowest = min(float(np.min(line.get_ydata())) for line in axes.lines)
    levels = {k: results[whole(setting, data, k)]["levels"][0]["train_mse"] for k in setting.kernels(data)}
    foot = max(lowest / 100, min(levels.values()))
    for kernel in setting.kernels(data):
        limit(axes, max(levels[kernel], foot), f"{kernel.title}, exact limit", OF_KERNEL[kernel.name])


def faster_claim(data: str, reached: dict[str, int | None], epochs: int) -> Claim:
    """That the Laplacian fits its training data in fewer epochs than the Gaussian."""
    laplacian, gaussian = reached["laplacian"], reached["gaussian"]
    holds = None if laplacian == gaussian else (laplacian or epochs + 1) < (gaussian or epochs + 1)
    said = {name: f"after {value}" if value else f"not in {epochs}" for name, value in reached.items()}
    return Claim(
        f"{data}: the Laplacian fits its training labels in fewer epochs than the Gaussian",
        holds,
        f"Laplacian {said['laplacian']} epochs, Gaussian {said['gaussian']}",
        "two student reports",
    )
