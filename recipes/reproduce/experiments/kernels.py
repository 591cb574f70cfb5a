"""All kernels on colour CIFAR-10 and Fashion-MNIST: errors per epoch and per second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, style_of
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.search import BandwidthSearch, at_an_end
from recipes.reproduce.published import MB19, NTK_CIFAR_ACCURACY, NTK_CIFAR_EPOCHS, NTK_CIFAR_SOURCE, REPORT
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Row, by_epoch, derived, rows_of, stacked, sweep_table

if TYPE_CHECKING:
    from kl import Kernel

DATA = ("cifar10", "fashion-mnist")
EPOCHS = 20
HEADER = ("", "test error, epoch 1", "last", "lowest", "training error, last", "fitted at", "s, epoch 1", "s, later")
"""The header of a table of runs; "fitted at" is the first epoch without a training error."""


@dataclass(frozen=True, kw_only=True)
class ExponentialPowerSpec(KernelSpec):
    """The kernel exp(-(r / bandwidth)^power); power 1 is the Laplacian."""

    name: str = "exponential-power"
    power: float

    def build(self) -> Kernel:
        """The kernel."""
        import kl

        return kl.build_kernel(self.name, bandwidth=self.bandwidth, power=self.power)

    @property
    def title(self) -> str:
        """The kernel's name in a figure's legend."""
        return f"exponential power {self.power:g}"


# Kernels with a bandwidth are listed without it, because it is searched for.
RADIAL = (
    KernelSpec(name="gaussian"),
    KernelSpec(name="laplacian"),
    ExponentialPowerSpec(power=0.5),
    KernelSpec(name="matern32"),
    KernelSpec(name="matern52"),
    KernelSpec(name="inverse-multiquadric"),
)
NTK = KernelSpec(name="relu-ntk", depth=3)  # [MB19]
MAIN = (RADIAL[0], RADIAL[1], NTK)
ALL = (*MAIN, *RADIAL[2:], KernelSpec(name="polynomial"), KernelSpec(name="relu-nngp", depth=3))


class Kernels(Experiment):
    """EigenPro 2 with three kernels on whole sets, and with all kernels on 10,000 rows."""

    name = "kernels"
    title = "ReLU NTK, Laplacian, Gaussian and other kernels on colour CIFAR-10 and Fashion-MNIST, per epoch and second"
    source = f"{MB19}; {REPORT}"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The searches for bandwidths and, once they are done, the runs with the bandwidths found."""
        names = setting.distinct(*DATA)
        found: list[Point] = [search(setting, data, kernel) for data in names for kernel in RADIAL]
        if not all(point in results for point in found):
            return found
        for data in names:
            found += [run(setting, data, kernel, results, whole=True) for kernel in MAIN]
            found += [run(setting, data, kernel, results, whole=False) for kernel in ALL]
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure for each set with the three main kernels, one with all kernels, and what the searches found."""
        names = setting.distinct(*DATA)
        main = {data: runs(setting, data, results, MAIN, whole=True) for data in names}
        every = {data: runs(setting, data, results, ALL, whole=False) for data in names}
        searches = sweep_table([search(setting, data, kernel) for data in names for kernel in RADIAL], results)
        tables, comparisons = [], []
        for data in names:
            if main[data]["n"].iat[0] != every[data]["n"].iat[0]:
                tables.append(course_table(main[data]))
            tables.append(course_table(every[data], ", all kernels"))
            if setting.scale == "full" and data == "cifar10":
                comparisons += compare_ntk(rows_of(main[data])[-1])
        shown = stacked(each for data in names for each in (main[data], every[data])).drop_duplicates("point")
        columns = (
            "data n unit_norm kernel bandwidth depth power epoch seconds train_mse train_error test_error diverged"
        )
        figures = {f"kernels-{setting.data(data)}": by_epoch_and_second(main[data]) for data in names}
        return Presentation(
            figures=figures | {"kernels-all": side_by_side(list(every.values()))},
            rows=rows_of(by_epoch(shown), columns),
            comparisons=comparisons,
            claims=[make(main[data]) for data in names for make in (worse_claim, slower_claim)],
            tables=[*tables, search_table(searches)],
            sentences=sentences(searches, shown),
        )


def sample(setting: Setting, data: str, n: int | None) -> Sample:
    """Rows of a set: scaled to unit length on CIFAR-10, as in [MB19]; unchanged on Fashion-MNIST."""
    test_size = setting.choose(tiny=None, quick=1000, full=None)
    return setting.sample(data, n, test_size, unit_norm=data == "cifar10")


def search(setting: Setting, data: str, kernel: KernelSpec) -> BandwidthSearch:
    """The search for a kernel's bandwidth, on training rows alone."""
    n_train, n_held_out = setting.choose(tiny=(200, 100), quick=(1000, 400), full=(4000, 2000))
    rows = replace(sample(setting, data, n_train + n_held_out), test_size=1)
    return BandwidthSearch(sample=rows, kernel=kernel, n_train=n_train, n_held_out=n_held_out)


def run(setting: Setting, data: str, kernel: KernelSpec, results: Results, whole: bool) -> Fit:
    """EigenPro with the bandwidth found: on the whole set, tested after each epoch; or on 10,000 of its rows."""
    if kernel in RADIAL:
        kernel = replace(kernel, bandwidth=results[search(setting, data, kernel)]["bandwidth"])
    full = None if whole else 10_000
    n = setting.choose(tiny=200, quick=1000, full=full)
    epochs = setting.choose(tiny=3, quick=EPOCHS // 2, full=EPOCHS)
    # With 10,000 rows tests take most of the time, because there are as many test rows, and nine kernels.
    test_every = 1 if whole else setting.choose(tiny=1, quick=1, full=5)
    return Fit(sample=sample(setting, data, n), kernel=kernel, epochs=epochs, test_every=test_every)


def runs(setting: Setting, data: str, results: Results, kernels: Sequence[KernelSpec], whole: bool) -> DataFrame:
    """The `course` of the runs of these kernels, in their order."""
    return course([run(setting, data, kernel, results, whole) for kernel in kernels], results)


def course(points: Iterable[Point], results: Results) -> DataFrame:
    """A row for each run: its test errors, its number of complete epochs, and its seconds of training steps."""
    return sweep_table(
        points,
        results,
        power=lambda run: run.get("power"),
        errors=lambda run: run["curves"].get("val/error", []),
        epochs=lambda run: len(run["curves"].get("train/error", [])),
    )


def course_table(found: DataFrame, more: str = "") -> Table:
    """A row for each run."""
    return Table(f"{found['set'].iat[0]}, n={found['n'].iat[0]}{more}", HEADER, [cells(run) for run in rows_of(found)])


def cells(run: Row) -> tuple[str, ...]:
    """A run as a row of the table; see HEADER."""
    errors, seconds = run["errors"], run["seconds_per_epoch"]
    bandwidth = "" if run["bandwidth"] is None else f" {run['bandwidth']:g}"
    name = f"{run['spec'].title}{bandwidth}{' (diverged)' if run['diverged'] else ''}"
    if not errors:
        return (name, *[""] * (len(HEADER) - 1))
    return (
        name,
        f"{errors[0]:.2%}" if run["tested_epochs"][0] == 1 else "",
        f"{errors[-1]:.2%}",
        f"{min(errors):.2%}",
        f"{run['curves']['train/error'][-1]:.3%}",
        str(run["fitted_at"] or "not reached"),
        f"{seconds[0]:.2f}",
        f"{median(seconds[1 : run['epochs']]):.2f}" if run["epochs"] > 1 else "",
    )


def look(row: Row) -> Style:
    """Colour and marker of a kernel."""
    return style_of([kernel.name for kernel in ALL].index(row["kernel"]))


def by_epoch_and_second(found: DataFrame) -> Figure:
    """Training error above and test error below, against epochs and against seconds."""
    figure, axes = panels(2, 2, width=3.4, sharey="row", sharex="col")
    for (upper, lower), x in zip(axes.T, ("epoch", "seconds"), strict=True):
        draw(upper, lower, found, x)
    axes[0, 1].set_title("", loc="left")
    finish(figure)
    return figure


def side_by_side(sets: Sequence[DataFrame]) -> Figure:
    """A column for each set: training error above and test error below, against epochs."""
    figure, axes = panels(2, len(sets), width=3.4 if len(sets) > 1 else 5.0, sharex="col")
    axes[0, -1].sharey(axes[0, 0])  # test errors do not share an axis, because they are far apart
    for (upper, lower), found in zip(axes.T, sets, strict=True):
        draw(upper, lower, found, "epoch")
    finish(figure, columns=3)
    return figure


def draw(upper: Axes, lower: Axes, found: DataFrame, x: str) -> None:
    """All runs in the upper and the lower panel."""
    floor = 0.5 / found["n"].max()  # 0 is drawn at half of one error
    rows = derived(by_epoch(found), drawn=lambda row: max(row["train_error"], floor))
    named: Style = {"label": "{spec.title}", "title": "{set}, n={n}", "up": log("training error")}
    panel(upper, rows, x, "drawn", "spec", look, clip_on=False, **named)
    panel(lower, rows, x, "test_error", "spec", look)
    upper.set_ylim(bottom=floor)
    upper.yaxis.set_major_formatter(lambda value, _: "0" if value <= floor else f"{100 * value:g}%")


def worse_claim(found: DataFrame) -> Claim:
    """That the Gaussian has the largest test error; a difference within the test's standard error leaves it open."""
    last = {row["kernel"]: row["errors"][-1] for row in rows_of(found) if not row["diverged"]}
    holds = None
    if len(last) == len(found):
        others = max(value for name, value in last.items() if name != "gaussian")
        difference = last["gaussian"] - others
        spread = math.sqrt(last["gaussian"] * (1 - last["gaussian"]) / rows_tested(found["point"].iat[0].sample))
        holds = None if abs(difference) <= spread else difference > 0
    return Claim(
        f"{found['set'].iat[0]}, n={found['n'].iat[0]}: the Gaussian's test error is larger than the Laplacian's and "
        "the ReLU NTK's",
        holds,
        f"after {found['epochs'].iat[0]} epochs " + ", ".join(f"{name} {value:.2%}" for name, value in last.items()),
        REPORT,
    )


def slower_claim(found: DataFrame) -> Claim:
    """That the Gaussian needs more epochs until it fits its training labels."""
    needed = {row["kernel"]: row["fitted_at"] or math.inf for row in rows_of(found)}
    others = max(value for name, value in needed.items() if name != "gaussian")
    said = []
    for row in rows_of(found):
        at = row["fitted_at"]
        spent = f"after {at} epochs, {sum(row['seconds_per_epoch'][:at]):.1f} s" if at else "not reached"
        said.append(f"{row['kernel']} {spent}")
    return Claim(
        f"{found['set'].iat[0]}, n={found['n'].iat[0]}: the Gaussian needs more epochs to zero training error than the "
        "Laplacian and the ReLU NTK",
        None if needed["gaussian"] == others or found["diverged"].any() else needed["gaussian"] > others,
        "; ".join(said),
        REPORT,
    )


def rows_tested(rows: Sample) -> int:
    """Test rows of a sample; sets that are drawn whole have 10,000, digits 360."""
    return rows.test_size or (360 if rows.data == "digits" else 10_000)


def compare_ntk(run: Row) -> list[Comparison]:
    """The accuracy of the ReLU NTK on colour CIFAR-10 compared with the published one; in percent."""
    if len(run["errors"]) < NTK_CIFAR_EPOCHS:
        return []
    other = "; our images are a JPEG copy" if run["data"].endswith("-jpeg") else ""
    return [
        Comparison(
            f"CIFAR-10, {run['spec'].title}: test accuracy, epoch {NTK_CIFAR_EPOCHS}",
            100 * (1 - run["errors"][NTK_CIFAR_EPOCHS - 1]),
            100 * NTK_CIFAR_ACCURACY,
            NTK_CIFAR_SOURCE,
            "%",
            note=f"batch and q differ with the machine{other}",
        )
    ]


def search_table(searches: DataFrame) -> Table:
    """The error on held-out rows at each bandwidth that was tried."""
    return Table.of(
        "error of {n_train} training rows' interpolant on {n_held_out} others, by the bandwidth over the median "
        "distance",
        searches,
        ("", "{set}, {spec.title}"),
        *((f"{x:g}", f"{{tried[{i}][error]:.2%}}", "singular") for i, x in enumerate(searches["factors"].iat[0])),
        ("median", "{median_distance:.3g}"),
        ("chosen", "{bandwidth:g}"),
    )


def sentences(searches: DataFrame, found: DataFrame) -> list[str]:
    """What the numbers mean, and their limits."""
    ends = [f"{row['set']}, {row['spec'].title}" for row in rows_of(searches) if at_an_end(row)]
    said = [
        "Bandwidths were chosen on held-out rows of the training set, among those in the last table; the kernels "
        "without one have the depth and degree that they have by default.",
        "Seconds are those of the training steps alone: the first epoch computes K, where K fits the memory budget "
        "later ones read it; the preconditioner and the tests are not in them.",
    ]
    if ends:
        said.append(f"The best bandwidth is the smallest or the largest one tried for {'; '.join(ends)}.")
    diverged = [f"{row['set']}, n={row['n']}, {row['spec'].title}" for row in rows_of(found) if row["diverged"]]
    if diverged:
        said.append(f"Training diverged for {'; '.join(diverged)}: only the epochs before are shown.")
    return said
