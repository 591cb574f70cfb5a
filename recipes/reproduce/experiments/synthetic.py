"""Test error and RKHS norm against n on the synthetic sets of [B18], whose Bayes errors are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import band, legend_below, noise_style, panels, percent_axis, rows_axis
from recipes.reproduce.page.presentation import Comparison, Presentation, Table, mean_and_spread
from recipes.reproduce.parts.synthetic_claims import claims_of, factor_sentence
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample, gaussian, laplacian
from recipes.reproduce.published import B18, SYNTHETIC_2_BAYES, SYNTHETIC_2_SOURCE
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Result, Results

KINDS = (1, 2)
NOISES = (0.0, 0.01, 0.1)
WAYS = ("interpolated", "overfitted")
LINES = {"interpolated": "--", "overfitted": "-"}
# The paper's bandwidths are not known to us: the median distance between rows (bandwidth "auto") at n=2000, seed 0.
# It stays when n grows, so that norms of different n are norms of one space.
BANDWIDTH = {1: 7.87, 2: 6.0}
FACTORS = (0.5, 1.0, 2.0)
EPOCHS = 200  # at most, to fit the training labels


class Synthetic(Experiment):
    """[B18]'s Synthetic 1 and 2 with 0, 1, 10% label noise, interpolated and overfitted, both kernels."""

    name = "synthetic"
    title = "Synthetic 1 and 2: test error and RKHS norm against n under label noise, beside the Bayes error"
    source = f"{B18} section 4, Synthetic 1 and Synthetic 2"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """An exact solve for each draw, a run for each draw and noise; the largest n at other bandwidths too."""
        found: list[Point] = []
        for kind in KINDS:
            for draw in draws(setting, kind):
                for kernel in kernels(kind):
                    found.append(interpolated(draw, kernel))
                    found += [overfitted(draw, kernel, noise) for noise in NOISES]
            found += [interpolated(draws(setting, kind)[-1], k) for factor in FACTORS for k in kernels(kind, factor)]
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure for each set: error above and norm below, a column for each kernel."""
        series = {kind: [each for k in kernels(kind) for each in collect(setting, results, kind, k)] for kind in KINDS}
        factors = {kind: by_factor(setting, results, kind) for kind in KINDS}
        largest = sizes(setting)[-1]
        every = [each for found in series.values() for each in found]
        unfitted = sum(each.unfitted for each in every)
        bandwidths = " and ".join(f"{BANDWIDTH[kind]:g} on Synthetic {kind}" for kind in KINDS)
        return Presentation(
            figures={f"synthetic{kind}": figure(kind, series[kind]) for kind in KINDS},
            rows=[record for each in every for record in each.records()],
            comparisons=[optimal_error()],
            claims=[claim for kind in KINDS for claim in claims_of(kind, series[kind], largest)],
            tables=[
                *(summary(kind, series[kind], largest) for kind in KINDS),
                Table(
                    f"interpolated norm at other bandwidths, n={largest}, seed {draws(setting, 1)[-1].seed}",
                    ("", *(f"{noise:.0%} noise" for noise in NOISES), "1% / 0%", "10% / 0%", "error at 10%"),
                    [factor_cells(kind, *each) for kind in KINDS for each in factors[kind]],
                ),
            ],
            sentences=[
                f"Bandwidths: {bandwidths}, the median distance at n=2000, fixed for all n; those of the paper are not "
                f"known to us. {len(seeds(setting))} draws of each n; the levels of noise are 0, 1 and 10% on both "
                f"sets.",
                "Errors are against test labels noised like the training labels, and so is the Bayes error. Norms are "
                "of two outputs with one-hot targets: for targets of +1 and -1 a norm that noise has made large is "
                "larger by the square root of 2, ratios of such norms are the same.",
                factor_sentence({kind: [(str(k), norms(result)) for _, k, result in factors[kind]] for kind in KINDS}),
            ]
            + [f"{unfitted} runs did not fit their training labels in {EPOCHS} epochs and are left out."]
            * bool(unfitted),
        )


@dataclass(frozen=True)
class Series:
    """One curve of the figures: norms and errors by n, lists over seeds."""

    kind: int
    kernel: KernelSpec
    way: str
    noise: float
    norms: dict[int, list[float]]
    errors: dict[int, list[float]]
    bayes_error: float
    """With labels noised likewise."""
    unfitted: int = 0
    """Runs that are left out: they have training errors."""

    def records(self) -> list[dict[str, Any]]:
        """A flat record for each draw."""
        same = {"data": f"synthetic{self.kind}", "kernel": self.kernel.name, "bandwidth": self.kernel.bandwidth}
        same |= {"way": self.way, "noise": self.noise, "bayes_error": self.bayes_error}
        return [
            {**same, "n": n, "rkhs_norm": norm, "test_error": error}
            for n in self.norms
            for norm, error in zip(self.norms[n], self.errors[n], strict=True)
        ]


def sizes(setting: Setting) -> tuple[int, ...]:
    """n."""
    return setting.choose(tiny=(50, 100), quick=(200, 500, 1200), full=(200, 500, 1500, 4000, 10_000))


def seeds(setting: Setting) -> range:
    """Of the draws."""
    return range(setting.choose(tiny=1, quick=2, full=3))


def draws(setting: Setting, kind: int) -> list[Sample]:
    """Every n with every seed."""
    test_size = setting.choose(tiny=300, quick=2000, full=10_000)
    return [
        Sample(data=f"synthetic{kind}", n=n, test_size=test_size, seed=seed)
        for n in sizes(setting)
        for seed in seeds(setting)
    ]


def kernels(kind: int, factor: float = 1.0) -> tuple[KernelSpec, KernelSpec]:
    """Both kernels at that multiple of the bandwidth."""
    return gaussian(factor * BANDWIDTH[kind]), laplacian(factor * BANDWIDTH[kind])


def interpolated(draw: Sample, kernel: KernelSpec) -> Exact:
    """The exact interpolants at all levels of noise."""
    return Exact(sample=draw, kernel=kernel, noises=NOISES)


def overfitted(draw: Sample, kernel: KernelSpec, noise: float) -> Fit:
    """EigenPro until the first epoch without training errors."""
    return Fit(sample=draw, kernel=kernel, noise=noise, epochs=EPOCHS, until_interpolated=True, test_every=0)


def optimal_error() -> Comparison:
    """The error that no classifier of Synthetic 2 goes below, from its definition; in percent."""
    from datamodules import SyntheticDataModule

    ours = SyntheticDataModule(kind=2).noisy_bayes_error
    return Comparison("Synthetic 2: optimal error", 100 * ours, 100 * SYNTHETIC_2_BAYES, SYNTHETIC_2_SOURCE, "%")


def collect(setting: Setting, results: Results, kind: int, kernel: KernelSpec) -> list[Series]:
    """The curves of one kernel."""
    from datamodules import SyntheticDataModule

    found = []
    for i, noise in enumerate(NOISES):
        bayes_error = SyntheticDataModule(kind=kind, label_noise=noise).noisy_bayes_error
        for way in WAYS:
            norms: dict[int, list[float]] = {}
            errors: dict[int, list[float]] = {}
            unfitted = 0
            for draw in draws(setting, kind):
                if way == "interpolated":
                    level = results[interpolated(draw, kernel)]["levels"][i]
                    norm, error = level["rkhs_norm"], level["test_error_noisy"]
                else:
                    fit = results[overfitted(draw, kernel, noise)]
                    if fit["fitted_epoch"] is None:
                        unfitted += 1
                        continue
                    norm, error = fit["rkhs_norm"], final_error(fit)
                norms.setdefault(draw.rows, []).append(norm)
                errors.setdefault(draw.rows, []).append(error)
            found.append(Series(kind, kernel, way, noise, norms, errors, bayes_error, unfitted))
    return found


def final_error(fit: Result) -> float:
    """The last error of a run, against noised test labels where there are such."""
    return fit["final"].get("val/error_noisy", fit["final"]["val/error"])


def by_factor(setting: Setting, results: Results, kind: int) -> list[tuple[float, KernelSpec, Result]]:
    """The largest n at each multiple of the bandwidth."""
    draw = draws(setting, kind)[-1]
    return [
        (factor, kernel, results[interpolated(draw, kernel)])
        for i in range(2)
        for factor in FACTORS
        for kernel in kernels(kind, factor)[i : i + 1]
    ]


def norms(result: Result) -> list[float]:
    """The norm at each level."""
    return [level["rkhs_norm"] for level in result["levels"]]


def factor_cells(kind: int, factor: float, kernel: KernelSpec, result: Result) -> tuple[str, ...]:
    """A row of the table of bandwidths."""
    clean, one, ten = norms(result)
    error = result["levels"][-1]["test_error_noisy"]
    name = f"Synthetic {kind}, {kernel.name}, {factor:g} x {BANDWIDTH[kind]:g}"
    return name, *(f"{v:.3g}" for v in (clean, one, ten)), f"{one / clean:.2f}", f"{ten / clean:.2f}", f"{error:.1%}"


def summary(kind: int, series: list[Series], n: int) -> Table:
    """Norm and error at one n."""
    rows = []
    for each in series:
        if n in each.norms:
            norm, spread = mean_and_spread(each.norms[n])
            error, error_spread = mean_and_spread(each.errors[n])
            name = f"{each.kernel.title}, {each.noise:.0%} noise, {each.way}"
            shown = f"{100 * error:.2f} ± {100 * error_spread:.2f}"
            rows.append((name, f"{norm:.4g} ± {spread:.2g}", shown, f"{100 * each.bayes_error:.2f}"))
    return Table(f"Synthetic {kind}, n={n}", ("", "RKHS norm", "test error, %", "Bayes error, %"), rows)


def figure(kind: int, series: list[Series]) -> Figure:
    """Errors above, norms below, a column for each kernel."""
    shown, axes = panels(2, 2, width=3.4, height=2.4, sharex=True, sharey="row")
    for column, kernel in enumerate(kernels(kind)):
        upper, lower = axes[:, column]
        own = [each for each in series if each.kernel == kernel]
        for each in own:
            n = list(each.norms)
            style = {**noise_style(NOISES.index(each.noise)), "linestyle": LINES[each.way]}
            if n:  # none where no run fitted its labels
                band(upper, n, list(each.errors.values()), f"{each.way}, {each.noise:.0%} noise", **style)
                band(lower, n, list(each.norms.values()), **style)
            if each.way == WAYS[-1]:
                label = f"Bayes error, {each.noise:.0%} noise"
                upper.axhline(each.bayes_error, color=style["color"], linestyle=":", linewidth=1.2, label=label)
        upper.set_title(f"Synthetic {kind}, {kernel.title}, bandwidth {kernel.bandwidth:g}", loc="left")
        lower.set_yscale("log")
        for panel in (upper, lower):
            rows_axis(panel, {n for each in own for n in each.norms})
        upper.set_xlabel("")
    percent_axis(axes[0, 0], "test error (noised labels)")
    axes[0, 0].set_ylim(bottom=min(0.0, axes[0, 0].get_ylim()[0]) if kind == 1 else None)
    axes[1, 0].set_ylabel("RKHS norm")
    legend_below(shown, columns=3)
    return shown
