"""Test error of EigenPro after 1, 5, 10 and 20 epochs and of the exact interpolant, on whole sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Mark, Style, finish, kernel_look, panel, panels
from recipes.reproduce.page.presentation import Comparison, Presentation, Table
from recipes.reproduce.points.detail import LostDetail
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.published import (
    EIGENPRO_2_MNIST,
    EIGENPRO_2_MNIST_PLAN,
    EIGENPRO_2_MNIST_SOURCE,
    EPOCHS,
    TEST_ERROR,
    TEST_ERROR_SOURCE,
    TRAIN_ERROR,
)
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import whole, whole_points, whole_table
from recipes.reproduce.sweep.point import Point, Result, Results
from recipes.reproduce.table import DataFrame, Row, by_epoch, groups, rows_of, stacked, sweep_table

DATA = ("mnist", "cifar10", "fashion-mnist")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the detail that JPEG may have removed
EXACT_TOLERANCE = {"mnist": 0.15, "cifar10": 1.5}  # percentage points


class Accuracy(Experiment):
    """[B18] Tables 3-4, with EigenPro 2 in place of EigenPro 1; CIFAR-10 in gray; and Fashion-MNIST."""

    name = "accuracy"
    title = "Test error at epochs 1, 5, 10, 20 and of the exact interpolant: MNIST, gray CIFAR-10, Fashion-MNIST"
    source = "[B18] Tables 3-4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run and its limit for each set and kernel; and, if images are compressed, the effect of the compression."""
        points = whole_points(setting, *DATA)
        limit_found = results.get(limit_in_doubt(setting))
        compressed = limit_found is not None and limit_found["data_source"].endswith("-jpeg")
        return [*points, *(lost_detail(setting) if compressed else [])]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """The tables, and a panel for each set."""
        runs = whole_table(setting, results, *DATA)
        curves = by_epoch(runs)
        figure, (axes,) = panels(1, runs["set"].nunique(), width=3.0)
        named: Style = {"label": "{spec.title}", "title": "{set}, n={n}"}
        limit = Mark("exact_test_error", "{spec.title}, exact limit")
        for each, own in zip(axes, groups(curves, "set"), strict=True):
            panel(each, own, "epoch", "test_error", "kernel", kernel_look, marker="o", mark=limit, **named)
        finish(figure)
        chosen = curves[curves["epoch"].isin(EPOCHS)]
        exact = runs.assign(epoch="exact", test_error=runs["exact_test_error"])
        at = chosen.pivot(columns="epoch", values="test_error").reindex(columns=EPOCHS).add_prefix("epoch ")
        detail = sweep_table([point for point in lost_detail(setting) if point in results], results)
        return Presentation(
            figures={"accuracy": figure},
            rows=rows_of(stacked([chosen, exact]).sort_index(kind="stable"), "data n kernel epoch test_error"),
            comparisons=[each for run in rows_of(runs) for each in compare(run)] if setting.scale == "full" else [],
            tables=[
                Table.of(
                    "",
                    runs.join(at),
                    ("test error", "{set} n={n}, {spec}"),
                    *((name, f"{{{name}:.2%}}") for name in at.columns),
                    ("exact limit", "{exact_test_error:.2%}"),
                    ("its seconds", "{exact_seconds:.0f}"),
                ),
                *([detail_table(detail)] if len(detail) else []),
            ],
            sentences=[detail_sentence(results[limit_in_doubt(setting)], detail)] if len(detail) else [],
        )


def limit_in_doubt(setting: Setting) -> Exact:
    """The only interpolant that compression changes much: the Gaussian's on CIFAR-10."""
    return whole(setting, "cifar10", setting.kernels("cifar10")[0])


def lost_detail(setting: Setting) -> list[LostDetail]:
    """That interpolant on fewer rows with several `SHARES` of the lost detail; at full scale, two on all rows, too."""
    limit_point = limit_in_doubt(setting)
    n = setting.choose(tiny=100, quick=3000, full=10_000)
    few = replace(limit_point.sample, n=n)
    points = [LostDetail(sample=few, kernel=limit_point.kernel, share=share) for share in SHARES]
    if setting.scale == "full":
        points += [LostDetail(sample=limit_point.sample, kernel=limit_point.kernel, share=s) for s in (0.75, 1.0)]
    return points


def detail_table(found: DataFrame) -> Table:
    """Test error and norm by the share of detail that was added."""
    return Table.of(
        "{set} gray, {spec}: the exact limit with noise in place of the detail that JPEG took",
        found,
        ("share of JPEG's rounding", "n={n}, {share:.0%}"),
        ("grey levels added (rms)", "{added:.1f}"),
        ("test error", "{test_error:.2%}"),
        ("norm", "{rkhs_norm:.1f}"),
    )


def detail_sentence(limit_found: Result, found: DataFrame) -> str:
    """The effect of the detail on the limit; `limit_found` is the limit on all rows without added detail."""
    changes = []
    for n, own in found.groupby("n"):
        best = own.loc[own["test_error"].astype(float).idxmin()]
        as_is = limit_found["levels"][0] if n == limit_found["n"] else own.iloc[0]
        said = f"with n={n} from {as_is['test_error']:.2%} to {best['test_error']:.2%}"
        changes.append(f"{said} (at {best['share']:.0%} of it)")
    return (
        "JPEG rounds fine detail away. Detail keeps images apart from each other, which regularises a smooth kernel's "
        "interpolant as a ridge does. Uniform noise within what the rounding leaves open takes the exact limit's test "
        f"error {', '.join(changes)}."
    )


def compare(run: Row) -> list[Comparison]:
    """A run and its limit compared with the published tables; errors in percent."""
    of = run["point"].sample.data, run["kernel"]
    if of not in TEST_ERROR:
        return []
    by_epoch, published = TEST_ERROR[of]
    name, source, other = (
        f"{run['set']}, {run['spec'].title}",
        TEST_ERROR_SOURCE[of[0]],
        "EigenPro 2 here, EigenPro 1 there",
    )
    found = [
        Comparison(
            f"{name}: test error of the exact interpolant",
            100 * run["exact_test_error"],
            100 * published,
            source,
            "%",
            tolerance=EXACT_TOLERANCE[of[0]],
        )
    ]
    found += errors_beside(
        run, "val/error", f"{name}: test error", dict(zip(EPOCHS, by_epoch, strict=True)), source, other
    )
    found += errors_beside(run, "train/error", f"{name}: training error", TRAIN_ERROR[of], source, other)
    if of == ("mnist", "gaussian"):
        source, differ = EIGENPRO_2_MNIST_SOURCE, "batch and q differ with the machine"
        found += [
            Comparison(f"{name}: EigenPro 2's {what}", run[key], value, source, note=differ)
            for key, (what, value) in EIGENPRO_2_MNIST_PLAN.items()
        ]
        also = dict(enumerate(EIGENPRO_2_MNIST, start=1))
        found += errors_beside(run, "val/error", f"{name}: test error of EigenPro 2", also, source, differ)
    return found


def errors_beside(
    run: Row, tag: str, what: str, published: Mapping[int, float], source: str, note: str
) -> list[Comparison]:
    """A run's errors beside published ones, by epoch."""
    ours = {epoch: run["curves"][tag][epoch - 1] for epoch in published}
    return [
        Comparison(f"{what}, epoch {epoch}", 100 * ours[epoch], 100 * value, source, "%", note=note)
        for epoch, value in published.items()
    ]
