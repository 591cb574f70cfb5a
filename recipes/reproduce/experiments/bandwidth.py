"""The effect of the bandwidth on test error, epochs of training and RKHS norm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from callbacks.figures import BLUE, ORANGE
from recipes.reproduce import shared_points as common
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, percent, scale
from recipes.reproduce.page.presentation import Claim, Presentation, Table, cell, number
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.search import BandwidthSearch, at_an_end
from recipes.reproduce.points.solvable import ExactWhereSolvable
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Result, Results
from recipes.reproduce.table import DataFrame, groups, rows_of, sweep_table

CLAIMED = (0.5, 1.0, 2.0)  # fractions of the best bandwidth that [B18] speaks of
FRACTIONS = (0.25, *CLAIMED, 4.0)
NOISES = (0.0, 0.1)
INSENSITIVE = 0.01  # a percentage point
MUCH = 2.0  # times as many epochs
FEW = 5  # epochs; smaller numbers of whole epochs are too coarse to compare
TRAIN_MSE = 0.01  # a tenth of the mse of f = 0 with ten classes; reached before the training error is 0
COLUMNS = (
    "data n kernel fraction bandwidth label_noise interpolated_test_error interpolated_test_error_noisy rkhs_norm "
    "relative_residual singular overfitted_test_error overfitted_test_error_noisy epochs_to_zero_training_error "
    "epochs_to_train_mse epochs diverged"
)
NO_LEVELS = [dict.fromkeys(("test_error", "test_error_noisy", "rkhs_norm", "relative_residual"))] * len(NOISES)
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
        whole = {kernel.name: kernel for kernel in setting.kernels("mnist")}
        points = [point for point in self.points(setting, results) if isinstance(point, Fit)]
        cases = case_table(points, results, whole).assign(data=title(setting.data("mnist")))
        of_kernels = groups(cases, "kernel")
        return Presentation(
            figures={"bandwidth": draw(of_kernels)},
            rows=rows_of(cases, COLUMNS),
            claims=[make(own) for own in of_kernels for make in (error_claim, epochs_claim)],
            tables=[summary(own) for own in of_kernels],
            sentences=[
                *(search_sentence(kernel, results[search(setting, kernel)]) for kernel in whole.values()),
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
    """The training rows of every solve and every run here."""
    return sample(setting, setting.choose(tiny=150, quick=2000, full=10_000))


def epochs(setting: Setting) -> int:
    """The most epochs of a run."""
    return setting.choose(tiny=10, quick=60, full=300)


def fractions(setting: Setting) -> tuple[float, ...]:
    """Fractions of the best bandwidth."""
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
    """EigenPro until zero training error."""
    return common.overfitted(rows(setting), at(kernel, fraction), noise, epochs(setting))


def case_table(points: Iterable[Fit], results: Results, whole: Mapping[str, KernelSpec]) -> DataFrame:
    """A row for each bandwidth and level of noise: the run until the labels are fitted, and beside it the interpolant.

    If K is singular, the numbers of the interpolant are None, and `singular` is the reason. If training errors are
    left, the test errors of the run are None. Bandwidths are `fraction` times those of `whole`, by name.
    """
    interpolant = {
        point: results[ExactWhereSolvable(sample=point.sample, kernel=point.kernel, noises=NOISES)] for point in points
    }
    at = {noise: i for i, noise in enumerate(NOISES)}
    return sweep_table(
        interpolant,
        results,
        fraction=lambda run: run["bandwidth"] / whole[run["kernel"]].bandwidth,
        label_noise=lambda run: run["noise"],
        singular=lambda run: interpolant[run["point"]].get("reason"),
        level=lambda run: (interpolant[run["point"]]["levels"] or NO_LEVELS)[at[run["label_noise"]]],
        interpolated_test_error=lambda run: run["level"]["test_error"],
        interpolated_test_error_noisy=lambda run: run["level"]["test_error_noisy"],
        rkhs_norm=lambda run: run["level"]["rkhs_norm"],
        relative_residual=lambda run: run["level"]["relative_residual"],
        tests=lambda run: run["final"] if run["fitted_epoch"] else {},
        overfitted_test_error=lambda run: run["tests"].get("val/error"),
        overfitted_test_error_noisy=lambda run: run["tests"].get("val/error_noisy", run["overfitted_test_error"]),
        epochs_to_zero_training_error=lambda run: run["fitted_epoch"],
        epochs_to_train_mse=lambda run: first_below(run["curves"].get("train/mse", []), TRAIN_MSE),
    )


def first_below(values: Sequence[float], bound: float) -> int | None:
    """The first epoch whose value is at most the bound."""
    return next((epoch for epoch, value in enumerate(values, start=1) if value <= bound), None)


def summary(cases: DataFrame) -> Table:
    """A row for each bandwidth and level of noise."""
    return Table.of(
        "{spec.title}, {data}, n={n}",
        cases.assign(norm=[norm and number(norm) for norm in cases["rkhs_norm"]]),
        ("bandwidth", "{bandwidth:g} ({fraction:.0%})"),
        ("noise", "{label_noise:.0%}"),
        ("test error, interpolated", "{interpolated_test_error_noisy:.2%}", "singular"),
        ("overfitted", "{overfitted_test_error_noisy:.2%}", "not reached"),
        ("epochs", "{epochs_to_zero_training_error}", "over {epochs}"),
        (f"to mse {TRAIN_MSE:g}", "{epochs_to_train_mse}", "over {epochs}"),
        ("RKHS norm", "{norm}", "singular"),
    )


def draw(of_kernels: Sequence[DataFrame]) -> Figure:
    """A row of panels for each kernel: test error, epochs, norm."""
    figure, axes = panels(len(of_kernels), 3, width=2.45, height=2.3, sharex=True, sharey="col")
    for (error, epoch, norm), cases in zip(axes, of_kernels, strict=True):
        for own in groups(cases, "label_noise"):
            line(error, own, "interpolated_test_error_noisy", "interpolated", "o", "-")
            line(error, own, "overfitted_test_error_noisy", "overfitted", "s", "--")
            line(epoch, own, "epochs_to_zero_training_error", None, "s", "--")
            line(epoch, own, "epochs_to_train_mse", f"mse {TRAIN_MSE:g}", "^", ":")
            cut_off = own[own["epochs_to_zero_training_error"].isna()]
            if len(cut_off):
                line(epoch, cut_off, "epochs", "cut off", "s", "", markerfacecolor="white")
            line(norm, own, "rkhs_norm", None, "o", "-")
        error.set_title(f"{cases['spec'].iat[0].title}, n={cases['n'].iat[0]}", loc="left")
        percent("test error, noised labels")(error.yaxis)
        log("epochs")(epoch.yaxis)
        log("RKHS norm")(norm.yaxis)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(nbins=5))
    texts = {fraction: f"{100 * fraction:g}" for fraction in sorted(set(of_kernels[0]["fraction"]))}
    for each in axes[-1]:
        scale("bandwidth, % of the paper's", 10, ticks=texts)(each.xaxis)
    finish(figure, title="at 0% and 10% label noise:")
    return figure


def line(axes: Axes, cases: DataFrame, y: str, label: str | None, marker: str, style: str, **more: Any) -> None:
    """A curve in the colour of the level of noise, with gaps at missing values."""
    named: Style = {"label": label and f"{label}, {{label_noise:.0%}}", "color": COLOUR[cases["label_noise"].iat[0]]}
    panel(axes, cases, "fraction", y, gaps=True, marker=marker, linestyle=style, **named, **more)


def error_claim(cases: DataFrame) -> Claim:
    """That the interpolant's test error is nearly the same at 50, 100 and 200%; `cases` are of one kernel."""
    spans = {noise: span(claimed(cases, noise)["interpolated_test_error_noisy"]) for noise in NOISES}
    known = [each for each in spans.values() if each is not None]
    holds = None if len(known) < len(spans) else all(high - low < INSENSITIVE for low, high in known)
    return Claim(
        f"{cases['spec'].iat[0].title}: the test error is insensitive to the bandwidth at 50, 100 and 200% of the "
        f"paper's (it changes by less than {100 * INSENSITIVE:g} percentage point)",
        holds,
        "interpolated: " + "; ".join(f"{noise:.0%} noise {between(each)}" for noise, each in spans.items()),
        B18,
    )


def between(ends: tuple[float, float] | None) -> str:
    """The ends of a span of errors."""
    return "not known" if ends is None else f"{ends[0]:.2%} to {ends[1]:.2%}"


def epochs_claim(cases: DataFrame) -> Claim:
    """That the epochs until the labels are fitted differ much; a run that was cut off needs more than it had.

    The claim stays open if the runs take only a few epochs, or if no run fitted its labels.
    """
    ratios, seen, bounds = [], [], False
    for noise in NOISES:
        own = claimed(cases, noise)
        pairs = list(zip(own["epochs_to_zero_training_error"], own["epochs"], strict=True))
        least = [fitted or cap for fitted, cap in pairs]
        if any(fitted for fitted, _ in pairs) and max(least) >= FEW:
            ratios.append(max(least) / min(least))
        seen.append(f"{noise:.0%} noise {', '.join(str(fitted or f'more than {cap}') for fitted, cap in pairs)}")
        bounds |= not all(fitted for fitted, _ in pairs)  # the ratios may be larger
    much = max(ratios, default=0.0) >= MUCH
    return Claim(
        f"{cases['spec'].iat[0].title}: optimisation is sensitive to it (the epochs to zero training error change by "
        f"a factor of {MUCH:g} or more)",
        much if ratios and (much or not bounds) else None,
        f"epochs at 50, 100 and 200%: {'; '.join(seen)}",
        B18,
    )


def claimed(cases: DataFrame, noise: float) -> DataFrame:
    """The cases that the claims are about."""
    return cases[(cases["label_noise"] == noise) & cases["fraction"].isin(CLAIMED)]


def span(values: Iterable[float | None]) -> tuple[float, float] | None:
    """The least and the largest value; None if a value is missing."""
    values = list(values)
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if len(known) == len(values) else None


def search_sentence(kernel: KernelSpec, found: Result) -> str:
    """The bandwidth that the search chose beside the paper's."""
    tried = ", ".join(f"{each['bandwidth']:g}: {cell(each, '{error:.2%}', 'singular')}" for each in found["tried"])
    end = ", an end of what was tried" if at_an_end(found) else ""
    return (
        f"{kernel.title}: on held-out training rows the best bandwidth is {found['bandwidth']:g}{end} "
        f"(error at {tried}); 100% here is {kernel.bandwidth:g}."
    )
