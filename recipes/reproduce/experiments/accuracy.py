"""Test error of EigenPro after 1, 5, 10 and 20 epochs and of the exact interpolant, on whole sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, curve, epochs_axis, legend_below, limit, panels, percent_axis
from recipes.reproduce.page.presentation import Comparison, Presentation, Table
from recipes.reproduce.points.detail import LostDetail
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import (
    EIGENPRO_2_MNIST,
    EIGENPRO_2_MNIST_PLAN,
    EIGENPRO_2_MNIST_SOURCE,
    EPOCHS,
    TEST_ERROR,
    TEST_ERROR_SOURCE,
    TRAIN_ERROR,
)
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import whole, whole_fit, whole_points
from recipes.reproduce.sweep.point import Point, Result, Results

DATA = ("mnist", "cifar10", "fashion-mnist")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the detail that JPEG may have taken
EXACT_TOLERANCE = {"mnist": 0.15, "cifar10": 1.5}  # points


class Accuracy(Experiment):
    """[B18] Tables 3-4, with EigenPro 2 in place of EigenPro 1; CIFAR-10 in gray; and Fashion-MNIST."""

    name = "accuracy"
    title = "Test error at epochs 1, 5, 10, 20 and of the exact interpolant: MNIST, gray CIFAR-10, Fashion-MNIST"
    source = "[B18] Tables 3-4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run and its limit for each set and kernel; and for compressed images what the compression has cost."""
        points = whole_points(setting, *DATA)
        limit_found = results.get(limit_in_doubt(setting))
        compressed = limit_found is not None and limit_found["data_source"].endswith("-jpeg")
        return [*points, *(lost_detail(setting) if compressed else [])]

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
                    comparisons += compare(data, exact["data_source"], kernel, fit, level["test_error"])
            panel.set_title(f"{title(exact['data_source'])}, n={exact['n']}", loc="left")
            percent_axis(panel, "test error" if column == 0 else "")
            epochs_axis(panel)
        legend_below(figure)
        header = ("test error", *(f"epoch {epoch}" for epoch in EPOCHS), "exact limit", "its seconds")
        tables, sentences = [Table("", header, table)], []
        detail = {point: results[point] for point in lost_detail(setting) if point in results}
        if detail:
            tables.append(detail_table(detail))
            sentences.append(detail_sentence(results[limit_in_doubt(setting)], detail))
        return Presentation(
            figures={"accuracy": figure}, rows=rows, comparisons=comparisons, tables=tables, sentences=sentences
        )


def limit_in_doubt(setting: Setting) -> Exact:
    """The one interpolant that compression changes much: the Gaussian's on CIFAR-10."""
    return whole(setting, "cifar10", setting.kernels("cifar10")[0])


def lost_detail(setting: Setting) -> list[LostDetail]:
    """The same on fewer rows, for several shares of the detail that JPEG may have taken; two of them on all rows."""
    limit_point = limit_in_doubt(setting)
    n = setting.choose(tiny=100, quick=3000, full=10_000)
    few = replace(limit_point.sample, n=n)
    points = [LostDetail(sample=few, kernel=limit_point.kernel, share=share) for share in SHARES]
    if setting.scale == "full":
        points += [LostDetail(sample=limit_point.sample, kernel=limit_point.kernel, share=s) for s in (0.75, 1.0)]
    return points


def detail_table(found: dict[LostDetail, Result]) -> Table:
    """Test error and norm against what was added."""
    rows = [
        (
            f"n={result['n']}, {point.share:.0%}",
            f"{result['added']:.1f}",
            f"{result['test_error']:.2%}",
            f"{result['rkhs_norm']:.1f}",
        )
        for point, result in found.items()
    ]
    point, result = next(iter(found.items()))
    return Table(
        f"{title(result['data_source'])} gray, {point.kernel}: the exact limit with noise in place "
        "of the detail that JPEG took",
        ("share of JPEG's rounding", "grey levels added (rms)", "test error", "norm"),
        rows,
    )


def detail_sentence(limit_found: Result, found: dict[LostDetail, Result]) -> str:
    """What the detail does to the limit; `limit_found` is that of the files as they are, on all rows."""
    as_is = {result["n"]: result["test_error"] for point, result in found.items() if point.share == 0}
    as_is[limit_found["n"]] = limit_found["levels"][0]["test_error"]
    changes = []
    for n in sorted({result["n"] for result in found.values()}):
        lowest, share = min((result["test_error"], point.share) for point, result in found.items() if result["n"] == n)
        changes.append(f"with n={n} from {as_is[n]:.2%} to {lowest:.2%} (at {share:.0%} of it)")
    return (
        "JPEG rounds fine detail away. Detail keeps images apart from each other, which regularises a smooth kernel's "
        "interpolant as a ridge does. Uniform noise within what the rounding leaves open takes the exact limit's test "
        f"error {', '.join(changes)}."
    )


def compare(data: str, source: str, kernel: KernelSpec, fit: Result, exact: float) -> list[Comparison]:
    """Our numbers, from rows of `source`, beside those of the tables; errors in percent."""
    curves = fit["curves"]
    if (data, kernel.name) not in TEST_ERROR:
        return []
    by_epoch, published = TEST_ERROR[data, kernel.name]
    name, published_in = f"{title(source)}, {kernel.title}", TEST_ERROR_SOURCE[data]
    found = [
        Comparison(
            f"{name}: test error of the exact interpolant",
            100 * exact,
            100 * published,
            published_in,
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
                f"{name}: {what}, epoch {epoch}",
                100 * curves[tag][epoch - 1],
                100 * value,
                published_in,
                "%",
                note=other,
            )
            for epoch, value in values.items()
        ]
    if (data, kernel.name) == ("mnist", "gaussian"):
        differ = "batch and q differ with the machine"
        found += [
            Comparison(f"{name}: EigenPro 2's {what}", fit[key], value, EIGENPRO_2_MNIST_SOURCE, note=differ)
            for key, (what, value) in EIGENPRO_2_MNIST_PLAN.items()
        ]
        found += [
            Comparison(
                f"{name}: test error of EigenPro 2, epoch {i + 1}",
                100 * curves["val/error"][i],
                100 * value,
                EIGENPRO_2_MNIST_SOURCE,
                "%",
                note=differ,
            )
            for i, value in enumerate(EIGENPRO_2_MNIST)
        ]
    return found
