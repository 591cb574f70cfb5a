"""All kernels on colour CIFAR-10 and Fashion-MNIST: errors per epoch and per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.reproduce.analysis.course import HEADER, Course, course
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import (
    curve,
    epochs_axis,
    legend_below,
    log_axis,
    panels,
    percent_axis,
    seconds_axis,
    style_of,
)
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.search import BandwidthSearch, at_an_end
from recipes.reproduce.published import MB19, NTK_CIFAR_ACCURACY, NTK_CIFAR_EPOCHS, NTK_CIFAR_SOURCE, REPORT
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Results

if TYPE_CHECKING:
    from kl import Kernel

DATA = ("cifar10", "fashion-mnist")
EPOCHS = 20


@dataclass(frozen=True, kw_only=True)
class ExponentialPowerSpec(KernelSpec):
    """The kernel exp(-(r / bandwidth)^power), which is the Laplacian at power 1 unless told otherwise."""

    name: str = "exponential-power"
    power: float

    def build(self) -> Kernel:
        """The kernel."""
        import kl

        return kl.build_kernel(self.name, bandwidth=self.bandwidth, power=self.power)

    @property
    def title(self) -> str:
        """The kernel as a figure's legend has it."""
        return f"exponential power {self.power:g}"


# Kernels with a length scale stand here without it: it is searched for.
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
        """The searches for bandwidths; once they are done the runs with them."""
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
        main = {data: courses(setting, data, results, MAIN, whole=True) for data in names}
        every = {data: courses(setting, data, results, ALL, whole=False) for data in names}
        figures = {f"kernels-{setting.data(data)}": by_epoch_and_second(main[data]) for data in names}
        tables, comparisons = [], []
        for data in names:
            if main[data][0].n != every[data][0].n:
                tables.append(Table(main[data][0].data, HEADER, [each.cells() for each in main[data]]))
            tables.append(Table(f"{every[data][0].data}, all kernels", HEADER, [each.cells() for each in every[data]]))
            if setting.scale == "full" and data == "cifar10":
                comparisons += compare_ntk(main[data][-1])
        runs = {each.point: each for data in names for each in (*main[data], *every[data])}
        return Presentation(
            figures={**figures, "kernels-all": side_by_side(list(every.values()))},
            rows=[row for each in runs.values() for row in each.rows()],
            comparisons=comparisons,
            claims=[make(main[data]) for data in names for make in (worse_claim, slower_claim)],
            tables=[*tables, search_table(setting, results)],
            sentences=sentences(setting, results, list(runs.values())),
        )


def sample(setting: Setting, data: str, n: int | None) -> Sample:
    """Rows of a set: of unit length on CIFAR-10, as in [MB19]; as they are on Fashion-MNIST."""
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
    # Tests are most of the time of 10,000 rows: as many test rows as training rows, on nine kernels.
    test_every = 1 if whole else setting.choose(tiny=1, quick=1, full=5)
    return Fit(sample=sample(setting, data, n), kernel=kernel, epochs=epochs, test_every=test_every)


def courses(setting: Setting, data: str, results: Results, kernels: Sequence[KernelSpec], whole: bool) -> list[Course]:
    """How the runs of these kernels went, in their order."""
    points = [run(setting, data, kernel, results, whole) for kernel in kernels]
    return [course(point, results[point]) for point in points]


def by_epoch_and_second(runs: Sequence[Course]) -> Figure:
    """Training error above and test error below, against epochs and against seconds."""
    figure, axes = panels(2, 2, width=3.4, sharey="row", sharex="col")
    for i, each in enumerate(runs):
        draw(axes[:, 0], each, each.epochs, i)
        draw(axes[:, 1], each, each.elapsed, i)
    finish(axes, runs)
    epochs_axis(axes[1, 0])
    seconds_axis(axes[1, 1], "seconds of training steps")
    axes[0, 0].set_title(runs[0].data, loc="left")
    legend_below(figure)
    return figure


def side_by_side(sets: Sequence[Sequence[Course]]) -> Figure:
    """A column for each set: training error above and test error below, against epochs."""
    figure, axes = panels(2, len(sets), width=3.4 if len(sets) > 1 else 5.0, sharex="col")
    axes[0, -1].sharey(axes[0, 0])  # but not the test errors, which are far apart
    for column, runs in enumerate(sets):
        for i, each in enumerate(runs):
            draw(axes[:, column], each, each.epochs, i)
        epochs_axis(axes[1, column])
        axes[0, column].set_title(runs[0].data, loc="left")
    finish(axes, [each for runs in sets for each in runs])
    legend_below(figure, columns=3)
    return figure


def draw(axes: Sequence[Axes], run: Course, x: Sequence[float], index: int) -> None:
    """One run in the upper and the lower panel."""
    upper, lower = axes
    floor = 0.5 / run.n  # where 0 is drawn: half of one error
    style = style_of(index)
    curve(upper, x, [max(value, floor) for value in run.train_error], run.point.kernel.title, clip_on=False, **style)
    curve(lower, [x[epoch - 1] for epoch in run.tested], run.test_error, **style)


def finish(axes: Any, runs: Sequence[Course]) -> None:
    """The vertical axes of both rows of panels."""
    floor = 0.5 / max(each.n for each in runs)  # where 0 is drawn
    for i, (upper, lower) in enumerate(axes.T):
        log_axis(upper, "" if i else "training error")
        upper.set_ylim(bottom=floor)
        upper.yaxis.set_major_formatter(lambda value, _: "0" if value <= floor else f"{100 * value:g}%")
        percent_axis(lower, "" if i else "test error")


def worse_claim(runs: Sequence[Course]) -> Claim:
    """That the Gaussian has the largest test error; a difference within the standard error of the test says nothing."""
    last = {each.point.kernel.name: each.test_error[-1] for each in runs if not each.diverged}
    holds = None
    if len(last) == len(runs):
        others = max(value for name, value in last.items() if name != "gaussian")
        difference = last["gaussian"] - others
        spread = math.sqrt(last["gaussian"] * (1 - last["gaussian"]) / rows_tested(runs[0].point.sample))
        holds = None if abs(difference) <= spread else difference > 0
    return Claim(
        f"{runs[0].data}: the Gaussian's test error is larger than the Laplacian's and the ReLU NTK's",
        holds,
        f"after {len(runs[0].epochs)} epochs " + ", ".join(f"{name} {value:.2%}" for name, value in last.items()),
        REPORT,
    )


def slower_claim(runs: Sequence[Course]) -> Claim:
    """That the Gaussian needs more epochs until it fits its training labels."""
    needed = {each.point.kernel.name: each.fitted or math.inf for each in runs}
    others = max(value for name, value in needed.items() if name != "gaussian")
    said = []
    for each in runs:
        spent = f"after {each.fitted} epochs, {each.elapsed[each.fitted - 1]:.1f} s" if each.fitted else "not reached"
        said.append(f"{each.point.kernel.name} {spent}")
    return Claim(
        f"{runs[0].data}: the Gaussian needs more epochs to zero training error than the Laplacian and the ReLU NTK",
        None if needed["gaussian"] == others or any(each.diverged for each in runs) else needed["gaussian"] > others,
        "; ".join(said),
        REPORT,
    )


def rows_tested(rows: Sample) -> int:
    """Test rows of a sample; sets that are drawn whole have 10,000, digits 360."""
    return rows.test_size or (360 if rows.data == "digits" else 10_000)


def compare_ntk(run: Course) -> list[Comparison]:
    """The accuracy of the ReLU NTK on colour CIFAR-10 beside the published one; in percent."""
    if len(run.test_error) < NTK_CIFAR_EPOCHS:
        return []
    other = "; our images are a JPEG copy" if run.source.endswith("-jpeg") else ""
    return [
        Comparison(
            f"CIFAR-10, {run.point.kernel.title}: test accuracy, epoch {NTK_CIFAR_EPOCHS}",
            100 * (1 - run.test_error[NTK_CIFAR_EPOCHS - 1]),
            100 * NTK_CIFAR_ACCURACY,
            NTK_CIFAR_SOURCE,
            "%",
            note=f"batch and q differ with the machine{other}",
        )
    ]


def search_table(setting: Setting, results: Results) -> Table:
    """The error on held-out rows at each bandwidth that was tried."""
    points = [search(setting, data, kernel) for data in setting.distinct(*DATA) for kernel in RADIAL]
    factors = points[0].factors
    rows = [
        (
            f"{title(point.sample.data)}, {point.kernel.title}",
            *("singular" if each["error"] is None else f"{each['error']:.2%}" for each in results[point]["tried"]),
            f"{results[point]['median_distance']:.3g}",
            f"{results[point]['bandwidth']:g}",
        )
        for point in points
    ]
    header = ("", *(f"{factor:g}" for factor in factors), "median", "chosen")
    caption = (
        f"error of {points[0].n_train} training rows' interpolant on {points[0].n_held_out} others, by the bandwidth "
        "over the median distance"
    )
    return Table(caption, header, rows)


def sentences(setting: Setting, results: Results, runs: Sequence[Course]) -> list[str]:
    """What the numbers mean and where they end."""
    points = [search(setting, data, kernel) for data in setting.distinct(*DATA) for kernel in RADIAL]
    ends = [f"{title(p.sample.data)}, {p.kernel.title}" for p in points if at_an_end(results[p])]
    said = [
        "Bandwidths were chosen on held-out rows of the training set, among those in the last table; the kernels "
        "without one have the depth and degree that they have by default.",
        "Seconds are those of the training steps alone: the first epoch computes K, where K fits the memory budget "
        "later ones read it; the preconditioner and the tests are not in them.",
    ]
    if ends:
        said.append(f"The best bandwidth is the smallest or the largest one tried for {'; '.join(ends)}.")
    if diverged := [f"{each.data}, {each.point.kernel.title}" for each in runs if each.diverged]:
        said.append(f"Training diverged for {'; '.join(diverged)}: only the epochs before are shown.")
    return said
