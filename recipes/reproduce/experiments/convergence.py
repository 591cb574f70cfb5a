"""Training mse and test error of every epoch, against the exact limit."""

from __future__ import annotations

from matplotlib.axes import Axes

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, Mark, Style, finish, kernel_look, panel, panels
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import whole_points, whole_table
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, by_epoch, groups, rows_of

DATA = ("mnist", "fashion-mnist")
COLUMNS = "data n kernel bandwidth epoch train_mse train_error test_error exact_train_mse exact_test_error"


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
        curves = by_epoch(whole_table(setting, results, *DATA))
        last = curves.groupby(["set", "kernel"], sort=False).tail(1)
        figure, axes = panels(2, curves["set"].nunique(), width=3.4, sharex="col")
        for (upper, lower), own in zip(axes.T, groups(curves, "set"), strict=True):
            named: Style = {"label": "{spec.title}, EigenPro", "title": "{set}, n={n}"}
            panel(upper, own, "epoch", "train_mse", "kernel", kernel_look, marker="o", **named)
            draw_limits(upper, own)
            panel(lower, own, "epoch", "test_error", "kernel", kernel_look, marker="o", mark=Mark("exact_test_error"))
        lower.plot([], [], color="black", linestyle="--", label="exact limit")
        finish(figure, 3)
        return Presentation(
            figures={"convergence": figure},
            rows=rows_of(curves, COLUMNS),
            claims=[
                claim
                for name, own in last.set_index("kernel").groupby("set", sort=False)
                for claim in (faster_claim(own), *([gaussian_claim(own)] if name == "Fashion-MNIST" else []))
            ],
            tables=[
                Table.of(
                    "after the last epoch",
                    last,
                    ("", "{set} n={n}, {spec}"),
                    ("training mse", "{train_mse:.1e}"),
                    ("limit", "{exact_train_mse:.1e}"),
                    ("test error", "{test_error:.2%}"),
                    ("limit", "{exact_test_error:.2%}"),
                    ("epochs to zero training error", "{fitted_at}", "not reached"),
                )
            ],
            sentences=[
                "The exact training mse is the rounding error of the solve, far below what training reaches: all that "
                "separates EigenPro from its limit is the number of epochs."
            ],
        )


def draw_limits(axes: Axes, curves: DataFrame) -> None:
    """Draw the exact training mse of both kernels; if it is far below the curves, draw one line at the foot instead."""
    limits = curves.groupby("kernel", sort=False)["exact_train_mse"].first()
    foot = curves["train_mse"].min() / 30
    if limits.max() >= foot:
        for name, value in limits.items():
            axes.axhline(value, color=OF_KERNEL[name], linestyle="--", linewidth=1.2)
        return
    axes.axhline(foot, color="black", linestyle="--", linewidth=1.2)
    axes.annotate(
        f"exact limits, far below: {', '.join(f'{value:.0e}' for value in limits)}",
        (0.5, foot),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
    )


def faster_claim(runs: DataFrame) -> Claim:
    """That the Laplacian fits its training data in fewer epochs than the Gaussian; `runs` are by kernel."""
    laplacian, gaussian = runs["fitted_at"]["laplacian"], runs["fitted_at"]["gaussian"]
    epochs = runs["epochs"].iat[-1]
    holds = None if laplacian == gaussian else (laplacian or epochs + 1) < (gaussian or epochs + 1)
    said = {name: f"after {value}" if value else f"not in {epochs}" for name, value in runs["fitted_at"].items()}
    return Claim(
        f"{runs['set'].iat[0]}: the Laplacian fits its training labels in fewer epochs than the Gaussian",
        holds,
        f"Laplacian {said['laplacian']} epochs, Gaussian {said['gaussian']}",
        "two student reports",
    )


def gaussian_claim(runs: DataFrame) -> Claim:
    """That the Gaussian's interpolant does worse than the Laplacian's on Fashion-MNIST, by about two points."""
    errors = runs["exact_test_error"]
    difference = 100 * (errors["gaussian"] - errors["laplacian"])
    return Claim(
        "Fashion-MNIST: the exact Gaussian interpolant has about 2 points more error than the Laplacian's",
        1 <= difference <= 3,
        f"n={runs['n'].iat[0]}: {difference:+.2f} points ({errors['gaussian']:.2%}, {errors['laplacian']:.2%})",
        "two student reports, whose n we do not know",
    )
