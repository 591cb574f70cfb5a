"""Test error and RKHS norm against n on the synthetic sets of [B18], whose Bayes errors are known."""

from __future__ import annotations

from matplotlib.figure import Figure

from recipes.reproduce.analysis.growth import both_ways
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Mark, Style, finish, panel, panels, percent, scale, way_look
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.sample import KernelSpec, Sample, gaussian, laplacian
from recipes.reproduce.published import B18, SYNTHETIC_2_BAYES, SYNTHETIC_2_SOURCE
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import overfitted
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Series, derived, groups, mean, rows_of, spread, stacked, sweep_table

KINDS = (1, 2)
NOISES = (0.0, 0.01, 0.1)
WAYS = ("interpolated", "overfitted")
# The median distance between rows (bandwidth "auto") at n=2000, seed 0, because the paper's bandwidths are unknown.
# It is the same for all n, so that norms at different n are norms of one space.
BANDWIDTH = {1: 7.87, 2: 6.0}
FACTORS = (0.5, 1.0, 2.0)
EPOCHS = 200  # at most, to fit the training labels
SYNTHETIC_1_SOURCE = f"{B18} section 4, Synthetic 1"
ORDER = 10.0  # of magnitude
HARDLY = 1.25  # a norm that noise raises by less than a quarter is hardly changed; the paper has no number
SAME_ERROR = 0.02  # interpolated and overfitted errors that agree, as a fraction of all test rows


class Synthetic(Experiment):
    """[B18]'s Synthetic 1 and 2 with 0, 1, 10% label noise, interpolated and overfitted, both kernels."""

    name = "synthetic"
    title = "Synthetic 1 and 2: test error and RKHS norm against n under label noise, beside the Bayes error"
    source = f"{B18} section 4, Synthetic 1 and Synthetic 2"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """An exact solve for each draw, a run for each draw and noise; the largest n at other bandwidths too."""
        found = [point for kind in KINDS for kernel in kernels(kind) for point in fits(setting, kind, kernel)]
        return found + list(at_factors(setting))

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure for each set: error above and norm below, a column for each kernel."""
        found = {kind: fits_table(setting, results, kind) for kind in KINDS}
        factors = factors_table(setting, results)
        largest = sizes(setting)[-1]
        unfitted = sum((~each["fitted"].astype(bool)).sum() for each in found.values())
        bandwidths = " and ".join(f"{BANDWIDTH[kind]:g} on Synthetic {kind}" for kind in KINDS)
        columns = "data kernel bandwidth way noise bayes_error n rkhs_norm test_error"
        return Presentation(
            figures={f"synthetic{kind}": figure(kind, found[kind]) for kind in KINDS},
            rows=[row for each in found.values() for row in rows_of(each[each["rkhs_norm"].notna()], columns)],
            comparisons=[optimal_error()],
            claims=[claim for kind in KINDS for claim in claims_of(kind, found[kind], largest)],
            tables=[*(summary(kind, found[kind], largest) for kind in KINDS), factor_summary(factors)],
            sentences=[
                f"Bandwidths: {bandwidths}, the median distance at n=2000, fixed for all n; those of the paper are not "
                f"known to us. {len(seeds(setting))} draws of each n; the levels of noise are 0, 1 and 10% on both "
                f"sets.",
                "Errors are against test labels noised like the training labels, and so is the Bayes error. Norms are "
                "of two outputs with one-hot targets: for targets of +1 and -1 a norm that noise has made large is "
                "larger by the square root of 2, ratios of such norms are the same.",
                factor_sentence(factors),
            ]
            + [f"{unfitted} runs did not fit their training labels in {EPOCHS} epochs and are left out."]
            * bool(unfitted),
        )


def sizes(setting: Setting) -> tuple[int, ...]:
    """The values of n."""
    return setting.choose(tiny=(50, 100), quick=(200, 500, 1200), full=(200, 500, 1500, 4000, 10_000))


def seeds(setting: Setting) -> range:
    """The seeds of the draws."""
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
    """Both kernels at a multiple of the bandwidth."""
    return gaussian(factor * BANDWIDTH[kind]), laplacian(factor * BANDWIDTH[kind])


def interpolated(draw: Sample, kernel: KernelSpec) -> Exact:
    """The exact interpolants at all levels of noise."""
    return Exact(sample=draw, kernel=kernel, noises=NOISES)


def fits(setting: Setting, kind: int, kernel: KernelSpec) -> list[Point]:
    """Every draw interpolated, and overfitted at each level of noise."""
    found: list[Point] = [interpolated(draw, kernel) for draw in draws(setting, kind)]
    return found + [overfitted(draw, kernel, noise, EPOCHS) for noise in NOISES for draw in draws(setting, kind)]


def at_factors(setting: Setting) -> dict[Exact, tuple[int, float]]:
    """The interpolants of the largest n at each multiple of the bandwidth, with the kind and the multiple."""
    return {
        interpolated(draws(setting, kind)[-1], kernels(kind, factor)[i]): (kind, factor)
        for kind in KINDS
        for i in range(2)
        for factor in FACTORS
    }


def fits_table(setting: Setting, results: Results, kind: int) -> DataFrame:
    """The `both_ways` of a set; errors and bayes_error are against test labels noised like the training labels.

    A run with training errors left has no norm and no test error.
    """
    from datamodules import SyntheticDataModule

    bayes = {noise: SyntheticDataModule(kind=kind, label_noise=noise).noisy_bayes_error for noise in NOISES}
    found = [both_ways(fits(setting, kind, each), results).sort_values(["noise", "way"]) for each in kernels(kind)]
    return derived(
        stacked(found),
        bayes_error=lambda fit: bayes[fit["noise"]],
        rkhs_norm=lambda fit: fit["rkhs_norm"] if fit["fitted"] else None,
        test_error=lambda fit: fit["test_error_noisy"] if fit["fitted"] else None,
        bayes_line=lambda fit: fit["bayes_error"] if fit["way"] == WAYS[-1] else None,
    )


def figure(kind: int, fits: DataFrame) -> Figure:
    """Errors above, norms below, a column for each kernel."""
    shown, axes = panels(2, 2, width=3.4, height=2.4, sharex=True, sharey="row")
    for (upper, lower), own in zip(axes.T, groups(fits, "kernel"), strict=True):
        of, bayes = ["noise", "way"], Mark("bayes_line", "Bayes error, {noise:.0%} noise", ":")
        named: Style = {"label": "{way}, {noise:.0%} noise", "up": percent("test error (noised labels)")}
        panel(upper, own, "n", "test_error", of, way_look, band=True, mark=bayes, **named)
        upper.set_title(
            "Synthetic {}, {spec.title}, bandwidth {spec.bandwidth:g}".format(kind, spec=own["spec"].iat[0]), loc="left"
        )
        panel(lower, own, "n", "rkhs_norm", of, way_look, band=True, up=scale("RKHS norm", 10))
    axes[0, 0].set_ylim(bottom=min(0.0, axes[0, 0].get_ylim()[0]) if kind == 1 else None)
    finish(shown, columns=3)
    return shown


def optimal_error() -> Comparison:
    """The Bayes error of Synthetic 2, from its definition, compared with the published one; in percent."""
    from datamodules import SyntheticDataModule

    ours = SyntheticDataModule(kind=2).noisy_bayes_error
    return Comparison("Synthetic 2: optimal error", 100 * ours, 100 * SYNTHETIC_2_BAYES, SYNTHETIC_2_SOURCE, "%")


def summary(kind: int, fits: DataFrame, n: int) -> Table:
    """Norm and error at one n."""
    known = fits[(fits["n"] == n) & fits["rkhs_norm"].notna()]
    percents = known.assign(**{name: 100 * known[name] for name in ("test_error", "bayes_error")})
    found = percents.groupby(["spec", "noise", "way"], sort=False).agg(
        norm=("rkhs_norm", mean),
        norm_spread=("rkhs_norm", spread),
        error=("test_error", mean),
        error_spread=("test_error", spread),
        bayes=("bayes_error", "first"),
    )
    return Table.of(
        f"Synthetic {kind}, n={n}",
        found.reset_index(),
        ("", "{spec.title}, {noise:.0%} noise, {way}"),
        ("RKHS norm", "{norm:.4g} ± {norm_spread:.2g}"),
        ("test error, %", "{error:.2f} ± {error_spread:.2f}"),
        ("Bayes error, %", "{bayes:.2f}"),
    )


def factors_table(setting: Setting, results: Results) -> DataFrame:
    """A row for each kernel and multiple of the bandwidth: `norms` at NOISES, and their ratios `one` and `ten`."""
    points = at_factors(setting)
    return sweep_table(
        points,
        results,
        kind=lambda solve: points[solve["point"]][0],
        factor=lambda solve: points[solve["point"]][1],
        base=lambda solve: BANDWIDTH[solve["kind"]],
        norms=lambda solve: [level["rkhs_norm"] for level in solve["levels"]],
        one=lambda solve: solve["norms"][1] / solve["norms"][0],
        ten=lambda solve: solve["norms"][2] / solve["norms"][0],
    )


def factor_summary(factors: DataFrame) -> Table:
    """A row for each kernel and multiple."""
    return Table.of(
        "interpolated norm at other bandwidths, n={n}, seed {seed}",
        factors,
        ("", "Synthetic {kind}, {kernel}, {factor:g} x {base:g}"),
        *((f"{noise:.0%} noise", f"{{norms[{i}]:.3g}}") for i, noise in enumerate(NOISES)),
        ("1% / 0%", "{one:.2f}"),
        ("10% / 0%", "{ten:.2f}"),
        ("error at 10%", "{levels[2][test_error_noisy]:.1%}"),
    )


def factor_sentence(factors: DataFrame) -> str:
    """Whether another bandwidth would change the statements about the norm."""
    first, second = groups(factors, "kind")
    best = first.loc[first["one"].astype(float).idxmax()]
    worst = max(max(norms) / norms[0] for norms in second["norms"])
    found = "reached" if best["one"] > ORDER else "not reached"
    return (
        f"At half, once and double the bandwidth: the order of magnitude at 1% noise is {found} on Synthetic 1 (at "
        f"most {best['one']:.1f} times, {best['spec']}); on Synthetic 2 noise raises the norm at most {worst:.2f} "
        "times."
    )


# The claims of [B18]


def claims_of(kind: int, fits: DataFrame, n: int) -> list[Claim]:
    """The claims about one set, for each kernel, at n rows."""
    found = []
    for own in groups(fits[fits["n"] == n], "kernel"):
        means = own.dropna(subset="rkhs_norm").groupby(["noise", "way"])[["rkhs_norm", "test_error"]].agg(mean)
        norms, errors = (means[name].unstack("way").reindex(columns=WAYS) for name in means)
        title = f"Synthetic {kind}, {own['spec'].iat[0].title}"
        if kind == 2:
            found.append(hardly_changed(title, norms["interpolated"], n))
        else:
            found += [raised(title, way, norms[way].dropna(), n) for way in WAYS]
            found += [exceeds(title, norms, n), errors_agree(title, errors, n)]
    return found


def raised(title: str, way: str, norms: Series, n: int) -> Claim:
    """That 1% noise raises the norm more than tenfold; `norms` are by level of noise."""
    ratios = norms.drop(0.0) / norms[0.0] if 0.0 in norms else norms.iloc[:0]
    return Claim(
        f"{title}: 1% noise raises the {way} norm by more than an order of magnitude",
        bool(ratios[0.01] > ORDER) if 0.01 in ratios else None,
        f"n={n}: {times(ratios) or 'not fitted'} (ours goes to n={n}, at the median distance)",
        SYNTHETIC_1_SOURCE,
    )


def times(ratios: Series) -> str:
    """Ratios by their level of noise, on one line."""
    return ", ".join(f"{ratio:.2f} times at {noise:.0%}" for noise, ratio in ratios.items())


def exceeds(title: str, norms: DataFrame, n: int) -> Claim:
    """That the interpolant's norm exceeds the overfitted norm, at every level of noise."""
    return Claim(
        f"{title}: the interpolated norm exceeds the overfitted one, at every level of noise",
        everywhere(norms, norms["interpolated"] > norms["overfitted"]),
        f"n={n}: {against(norms, '.4g')}",
        SYNTHETIC_1_SOURCE,
    )


def errors_agree(title: str, errors: DataFrame, n: int) -> Claim:
    """That both ways have nearly the same test error, at every level of noise."""
    return Claim(
        f"{title}: interpolated and overfitted test errors agree (within {SAME_ERROR:.0%} of the test rows)",
        everywhere(errors, (errors["interpolated"] - errors["overfitted"]).abs() <= SAME_ERROR),
        f"n={n}: {against(errors, '.2%')}",
        SYNTHETIC_1_SOURCE,
    )


def hardly_changed(title: str, norms: Series, n: int) -> Claim:
    """That noise changes the norm by less than a factor of `HARDLY`."""
    ratios = norms.drop(0.0) / norms[0.0]
    return Claim(
        f"{title}: noise hardly changes the interpolated norm (by less than {HARDLY - 1:.0%})",
        bool(ratios.max() < HARDLY and ratios.min() > 1 / HARDLY),
        f"n={n}: {times(ratios)}",
        SYNTHETIC_2_SOURCE,
    )


def everywhere(values: DataFrame, holds: Series) -> bool | None:
    """Whether a claim holds at every level of noise; None if it holds at all known levels, but a value is missing."""
    known = values.notna().all(axis="columns")
    return False if not holds[known].all() else True if known.all() else None


def against(values: DataFrame, form: str) -> str:
    """Both ways at every level of noise, on one line."""
    said = values.map(lambda value: format(value, form) if value == value else "not fitted")
    return "; ".join(
        f"{noise:.0%} noise {' against '.join(pair)}" for noise, pair in zip(said.index, said.to_numpy(), strict=True)
    )
