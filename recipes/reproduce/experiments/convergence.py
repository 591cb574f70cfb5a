"""Training mse and test error of every epoch, against the exact limit."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, curve, epochs_axis, legend_below, limit, panels, percent_axis
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import whole, whole_fit, whole_points
from recipes.reproduce.sweep.point import Point, Results

DATA = ("mnist", "fashion-mnist")


class Convergence(Experiment):
    """EigenPro 2 beside the minimum-norm interpolant, MNIST and Fashion-MNIST, both kernels."""

    name = "convergence"
    title = "EigenPro's training mse and test error per epoch against the exact limit"
    source = f"{B18} section 3; two student reports"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run and its limit for each set and kernel."""
        return whole_points(setting, *DATA)

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A column for each set: training mse above, test error below."""
        names = setting.distinct(*DATA)
        figure, axes = panels(2, len(names), width=3.4, sharex="col")
        rows, claims, table = [], [], []
        for column, data in enumerate(names):
            upper, lower = axes[0, column], axes[1, column]
            reached: dict[str, int | None] = {}
            limits: dict[str, float] = {}
            exact_errors: dict[str, float] = {}
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
                limits[kernel.name], exact_errors[kernel.name] = level["train_mse"], level["test_error"]
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
            draw_limits(upper, limits)
            upper.set_title(f"{title(setting.data(data))}, n={fit['n']}", loc="left")
            upper.set_ylabel("training mse" if column == 0 else "")
            percent_axis(lower, "test error" if column == 0 else "")
            epochs_axis(lower)
            claims.append(faster_claim(title(setting.data(data)), reached, fit["epochs"]))
            if setting.data(data) == "fashion-mnist":
                claims.append(gaussian_claim(exact_errors, fit["n"]))
        lower.plot([], [], color="black", linestyle="--", label="exact limit")
        legend_below(figure, 3)
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


def draw_limits(axes: Axes, limits: dict[str, float]) -> None:
    """The exact training mse of both kernels; where it is decades below the curves a line at the foot stands for it."""
    axes.set_yscale("log")
    lowest = min(float(np.min(line.get_ydata())) for line in axes.lines)
    foot = lowest / 30
    if max(limits.values()) >= foot:
        for name, value in limits.items():
            limit(axes, value, color=OF_KERNEL[name])
        return
    limit(axes, foot)
    said = ", ".join(f"{value:.0e}" for value in limits.values())
    axes.annotate(
        f"exact limits, far below: {said}",
        (0.5, foot),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
    )


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


def gaussian_claim(errors: dict[str, float], n: int) -> Claim:
    """That the Gaussian's interpolant does worse than the Laplacian's on Fashion-MNIST, by about two points."""
    difference = 100 * (errors["gaussian"] - errors["laplacian"])
    return Claim(
        "Fashion-MNIST: the exact Gaussian interpolant has about 2 points more error than the Laplacian's",
        1 <= difference <= 3,
        f"n={n}: {difference:+.2f} points ({errors['gaussian']:.2%}, {errors['laplacian']:.2%})",
        "two student reports, whose n we do not know",
    )
