"""What the bandwidth changes: test error, epochs of training, RKHS norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from callbacks.figures import BLUE, ORANGE
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import log_axis, panels, percent_axis
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.parts.bandwidth_case import HEADER, TRAIN_MSE, Case, percent
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.search import BandwidthSearch, at_an_end
from recipes.reproduce.points.solvable import ExactWhereSolvable
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Result, Results

CLAIMED = (0.5, 1.0, 2.0)  # of the best bandwidth: those that [B18] speaks of
FRACTIONS = (0.25, *CLAIMED, 4.0)
NOISES = (0.0, 0.1)
INSENSITIVE = 0.01  # a percentage point
MUCH = 2.0  # times as many epochs
FEW = 5  # epochs: below, whole ones are too coarse to compare
COLOUR = {0.0: BLUE, 0.1: ORANGE}


class Bandwidth(Experiment):
    """Both kernels at 25 to 400% of the best bandwidth, with and without label noise, MNIST."""

    name = "bandwidth"
    title = "Test error, epochs and RKHS norm at 25 to 400% of the best bandwidth, MNIST, with 0 and 10% label noise"
    source = B18

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """For each kernel a search, and for each bandwidth the interpolant and two runs until the labels are fitted."""
        found: list[Point] = []
        for kernel in setting.kernels("mnist"):
            found.append(search(setting, kernel))
            for fraction in fractions(setting):
                found.append(exact(setting, kernel, fraction))
                found += [overfitted(setting, kernel, fraction, noise) for noise in NOISES]
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A row for each kernel: errors, epochs, norm against the bandwidth."""
        kernels = setting.kernels("mnist")
        cases = {
            kernel: [c for f in fractions(setting) for c in cases_at(setting, kernel, f, results)] for kernel in kernels
        }
        every = [case for each in cases.values() for case in each]
        return Presentation(
            figures={"bandwidth": draw(list(cases.values()))},
            rows=[{"data": title(setting.data("mnist")), **case.row()} for case in every],
            claims=[make(each) for each in cases.values() for make in (error_claim, epochs_claim)],
            tables=[
                Table(
                    f"{kernel.title}, {title(setting.data('mnist'))}, n={each[0].n}", HEADER, [c.cells() for c in each]
                )
                for kernel, each in cases.items()
            ],
            sentences=[
                *(search_sentence(kernel, results[search(setting, kernel)]) for kernel in kernels),
                "Test errors at 10% label noise are against test labels noised the same way; the errors against clean "
                "ones are in results.csv. 100% is the bandwidth of [B18], or what it would be on digits.",
                f"Training stops at zero training classification error, or after {epochs(setting)} epochs; epochs to a "
                f"training mse of {TRAIN_MSE:g} are of the same runs. Hollow squares are runs that were cut off.",
            ],
        )


def sample(setting: Setting, n: int | None) -> Sample:
    """A draw of MNIST."""
    return setting.sample("mnist", n, setting.choose(tiny=None, quick=2000, full=None))


def rows(setting: Setting) -> Sample:
    """What every solve and every run here is trained on."""
    return sample(setting, setting.choose(tiny=150, quick=2000, full=10_000))


def epochs(setting: Setting) -> int:
    """At most."""
    return setting.choose(tiny=10, quick=60, full=300)


def fractions(setting: Setting) -> tuple[float, ...]:
    """Of the best bandwidth."""
    return setting.choose(tiny=CLAIMED, quick=FRACTIONS, full=FRACTIONS)


def search(setting: Setting, kernel: KernelSpec) -> BandwidthSearch:
    """The search for the bandwidth, on training rows alone."""
    n_train, n_held_out = setting.choose(tiny=(200, 100), quick=(1000, 400), full=(4000, 2000))
    drawn = sample(setting, n_train + n_held_out)
    return BandwidthSearch(sample=drawn, kernel=replace(kernel, bandwidth=None), n_train=n_train, n_held_out=n_held_out)


def at(kernel: KernelSpec, fraction: float) -> KernelSpec:
    """The kernel with a fraction of its bandwidth."""
    assert kernel.bandwidth is not None
    return replace(kernel, bandwidth=fraction * kernel.bandwidth)


def exact(setting: Setting, kernel: KernelSpec, fraction: float) -> ExactWhereSolvable:
    """The interpolant for the labels without and with noise."""
    return ExactWhereSolvable(sample=rows(setting), kernel=at(kernel, fraction), noises=NOISES)


def overfitted(setting: Setting, kernel: KernelSpec, fraction: float, noise: float) -> Fit:
    """EigenPro until zero training error, tested at its end."""
    return Fit(
        sample=rows(setting),
        kernel=at(kernel, fraction),
        noise=noise,
        epochs=epochs(setting),
        until_interpolated=True,
        test_every=0,
    )


def cases_at(setting: Setting, kernel: KernelSpec, fraction: float, results: Results) -> list[Case]:
    """The cases of a bandwidth, one for each level of noise."""
    solved = results[exact(setting, kernel, fraction)]
    levels = solved["levels"] or [None] * len(NOISES)
    return [
        Case(
            at(kernel, fraction),
            fraction,
            noise,
            level,
            solved.get("reason"),
            results[overfitted(setting, kernel, fraction, noise)],
        )
        for noise, level in zip(NOISES, levels, strict=True)
    ]


def draw(kernels: Sequence[Sequence[Case]]) -> Figure:
    """A row of panels for each kernel: test error, epochs, norm."""
    figure, axes = panels(len(kernels), 3, width=2.45, height=2.3, sharex=True, sharey="col")
    for row, cases in enumerate(kernels):
        error, epoch, norm = axes[row]
        for noise in NOISES:
            own = [case for case in cases if case.noise == noise]
            said = f"{noise:.0%}"
            line(error, own, [c.interpolated_error for c in own], noise, f"interpolated, {said}", "o", "-")
            line(error, own, [c.overfitted_error for c in own], noise, f"overfitted, {said}", "s", "--")
            line(epoch, own, [c.fitted for c in own], noise, None, "s", "--")
            line(epoch, own, [c.epochs_to_mse for c in own], noise, f"mse {TRAIN_MSE:g}, {said}", "^", ":")
            cut_off(epoch, [c for c in own if c.fitted is None], noise)
            line(norm, own, [c.norm for c in own], noise, None, "o", "-")
        error.set_title(f"{cases[0].kernel.title}, n={cases[0].n}", loc="left")
        percent_axis(error, "test error, noised labels")
        log_axis(epoch, "epochs")
        log_axis(norm, "RKHS norm")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(nbins=5))
    ticks = sorted({case.fraction for case in kernels[0]})
    for panel in axes[-1]:
        panel.set_xscale("log")
        panel.set_xticks(ticks, [f"{100 * fraction:g}" for fraction in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("bandwidth, % of the paper's")
    handles = {handle.get_label(): handle for p in axes.flat for handle in p.get_legend_handles_labels()[0]}
    figure.legend(
        handles=list(handles.values()),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        title="at 0% and 10% label noise:",
    )
    return figure


def line(
    axes: Axes, cases: Sequence[Case], values: Sequence[float | None], noise: float, label: str | None, *look: str
) -> None:
    """A curve with gaps where there is no value."""
    marker, style = look
    shown = [float("nan") if value is None else value for value in values]
    axes.plot([c.fraction for c in cases], shown, color=COLOUR[noise], marker=marker, linestyle=style, label=label)


def cut_off(axes: Axes, cases: Sequence[Case], noise: float) -> None:
    """Hollow squares at the last epoch of runs that had training errors left."""
    if cases:
        x, y = [c.fraction for c in cases], [c.cap for c in cases]
        look: Any = {"color": COLOUR[noise], "markerfacecolor": "white", "linestyle": "", "marker": "s"}
        axes.plot(x, y, label=f"cut off, {noise:.0%}", **look)


def error_claim(cases: Sequence[Case]) -> Claim:
    """That the interpolant's test error is nearly the same at 50, 100 and 200%."""
    spans = {noise: span([c.interpolated_error for c in claimed(cases, noise)]) for noise in NOISES}
    known = [each for each in spans.values() if each is not None]
    holds = None if len(known) < len(spans) else all(high - low < INSENSITIVE for low, high in known)
    return Claim(
        f"{cases[0].kernel.title}: the test error is insensitive to the bandwidth at 50, 100 and 200% of the paper's "
        f"(it changes by less than {100 * INSENSITIVE:g} percentage point)",
        holds,
        "interpolated: " + "; ".join(f"{noise:.0%} noise {between(each)}" for noise, each in spans.items()),
        B18,
    )


def between(ends: tuple[float, float] | None) -> str:
    """The ends of a span of errors."""
    return "not known" if ends is None else f"{ends[0]:.2%} to {ends[1]:.2%}"


def epochs_claim(cases: Sequence[Case]) -> Claim:
    """That the epochs until the labels are fitted differ much; a run that was cut off needs more than it had.

    Of a few epochs, and where no run came to its end, nothing can be said.
    """
    ratios: list[float | None] = []
    seen = []
    for noise in NOISES:
        own = claimed(cases, noise)
        least = [c.fitted or c.cap for c in own]
        ratios.append(max(least) / min(least) if any(c.fitted for c in own) and max(least) >= FEW else None)
        seen.append(f"{noise:.0%} noise {', '.join(str(c.fitted or f'more than {c.cap}') for c in own)}")
    known = [ratio for ratio in ratios if ratio is not None]
    bounds = any(c.fitted is None for noise in NOISES for c in claimed(cases, noise))  # the ratios may be larger
    much = max(known, default=0.0) >= MUCH
    return Claim(
        f"{cases[0].kernel.title}: optimisation is sensitive to it (the epochs to zero training error change by "
        f"a factor of {MUCH:g} or more)",
        much if known and (much or not bounds) else None,
        f"epochs at 50, 100 and 200%: {'; '.join(seen)}",
        B18,
    )


def claimed(cases: Sequence[Case], noise: float) -> list[Case]:
    """The cases that the claims are about."""
    return [case for case in cases if case.noise == noise and case.fraction in CLAIMED]


def span(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The least and the largest value; None where one is missing."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if len(known) == len(values) else None


def search_sentence(kernel: KernelSpec, found: Result) -> str:
    """The bandwidth that the search chose beside the paper's."""
    tried = ", ".join(f"{each['bandwidth']:g}: {percent(each['error'], 'singular')}" for each in found["tried"])
    end = ", an end of what was tried" if at_an_end(found) else ""
    return (
        f"{kernel.title}: on held-out training rows the best bandwidth is {found['bandwidth']:g}{end} "
        f"(error at {tried}); 100% here is {kernel.bandwidth:g}."
    )
