"""Test error of EigenPro after 1, 5, 10 and 20 epochs and of the exact interpolant, on whole sets."""

from __future__ import annotations

from typing import Any

from recipes.reproduce.common import whole, whole_fit, whole_points
from recipes.reproduce.drawing import OF_KERNEL, curve, epochs_axis, legend_below, limit, panels, percent_axis
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.point import Point, Results
from recipes.reproduce.presentation import Comparison, Presentation, Table
from recipes.reproduce.published import (
    EIGENPRO_2_MNIST,
    EIGENPRO_2_MNIST_SOURCE,
    EPOCHS,
    TEST_ERROR,
    TEST_ERROR_SOURCE,
    TRAIN_ERROR,
)
from recipes.reproduce.sample import KernelSpec
from recipes.reproduce.setting import Setting, title

DATA = ("mnist", "cifar10", "fashion-mnist")
EXACT_TOLERANCE = {"mnist": 0.15, "cifar10": 1.5}  # points


class Accuracy(Experiment):
    """[B18] Tables 3-4, with EigenPro 2 in place of EigenPro 1; CIFAR-10 in gray; and Fashion-MNIST."""

    name = "accuracy"
    title = "Test error at epochs 1, 5, 10, 20 and of the exact interpolant: MNIST, gray CIFAR-10, Fashion-MNIST"
    source = "[B18] Tables 3-4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run and its limit for each set and kernel."""
        return whole_points(setting, *DATA)

    def present(self, setting: Setting, results: Results) -> Presentation:
        """The tables, and a panel for each set."""
        names = setting.distinct(*DATA)
        figure, axes = panels(1, len(names), width=3.0)
        rows: list[dict[str, Any]] = []
        comparisons: list[Comparison] = []
        table = []
        for column, data in enumerate(names):
            panel = axes[0, column]
            for kernel in setting.kernels(data):
                fit, exact = results[whole_fit(setting, data, kernel)], results[whole(setting, data, kernel)]
                errors, level = fit["curves"]["val/error"], exact["levels"][0]
                curve(panel, range(1, len(errors) + 1), errors, kernel.title, color=OF_KERNEL[kernel.name], marker="o")
                limit(panel, level["test_error"], f"{kernel.title}, exact limit", OF_KERNEL[kernel.name])
                at = {epoch: errors[epoch - 1] for epoch in EPOCHS if epoch <= len(errors)}
                where = {"data": exact["data_source"], "n": exact["n"], "kernel": kernel.name}
                rows += [{**where, "epoch": epoch, "test_error": value} for epoch, value in at.items()]
                rows.append({**where, "epoch": "exact", "test_error": level["test_error"]})
                cells = [f"{at[epoch]:.2%}" if epoch in at else "" for epoch in EPOCHS]
                name = f"{title(exact['data_source'])} n={exact['n']}, {kernel}"
                table.append((name, *cells, f"{level['test_error']:.2%}", f"{exact['seconds']:.0f}"))
                if setting.scale == "full":
                    comparisons += compare(data, kernel, fit["curves"], level["test_error"])
            panel.set_title(f"{title(exact['data_source'])}, n={exact['n']}", loc="left")
            percent_axis(panel, "test error" if column == 0 else "")
            epochs_axis(panel)
        legend_below(figure, axes[0, 0])
        header = ("test error", *(f"epoch {epoch}" for epoch in EPOCHS), "exact limit", "its seconds")
        return Presentation(
            figures={"accuracy": figure}, rows=rows, comparisons=comparisons, tables=[Table("", header, table)]
        )


def compare(data: str, kernel: KernelSpec, curves: dict[str, list[float]], exact: float) -> list[Comparison]:
    """Our numbers beside those of the tables; in percent."""
    if (data, kernel.name) not in TEST_ERROR:
        return []
    by_epoch, published = TEST_ERROR[data, kernel.name]
    name, source = f"{title(data)}, {kernel.title}", TEST_ERROR_SOURCE[data]
    found = [
        Comparison(
            f"{name}: test error of the exact interpolant",
            100 * exact,
            100 * published,
            source,
            "%",
            tolerance=EXACT_TOLERANCE[data],
        )
    ]
    other = "EigenPro 2 here, EigenPro 1 there"
    for tag, what, values in (
        ("val/error", "test error", dict(zip(EPOCHS, by_epoch, strict=True))),
        ("train/error", "training error", TRAIN_ERROR[data, kernel.name]),
    ):
        found += [
            Comparison(
                f"{name}: {what}, epoch {epoch}", 100 * curves[tag][epoch - 1], 100 * value, source, "%", note=other
            )
            for epoch, value in values.items()
        ]
    if (data, kernel.name) == ("mnist", "gaussian"):
        found += [
            Comparison(
                f"{name}: test error of EigenPro 2, epoch {i + 1}",
                100 * curves["val/error"][i],
                100 * value,
                EIGENPRO_2_MNIST_SOURCE,
                "%",
                note="batch and q differ with the machine",
            )
            for i, value in enumerate(EIGENPRO_2_MNIST)
        ]
    return found
