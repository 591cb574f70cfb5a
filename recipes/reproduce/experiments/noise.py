"""Error and norm of interpolated and overfitted classifiers under label noise."""

from __future__ import annotations

from recipes.reproduce.analysis.growth import GROWTH_NOISES, growth_points, growth_rows, growth_table
from recipes.reproduce.analysis.norm_figures import draw_against_n
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, kernel_look, panel, panels, percent, scale
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import whole
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, by_level, derived, groups, mean, rows_of, sweep_table

CLASSES = 10
NEAR = 0.05  # an error counts as near to the Bayes error within five points


class Noise(Experiment):
    """MNIST: error and norm against n at 0, 1, 10% noise; error against noise up to 80%."""

    name = "noise"
    title = "Test error and RKHS norm, overfitted and interpolated, under label noise up to 80%"
    source = f"{B18} section 4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The points of `norm-growth` at the paper's bandwidths, and the interpolants of the whole set."""
        kernels = setting.kernels("mnist")
        points = [point for kernel in kernels for point in growth_points(setting, kernel)]
        return points + [whole(setting, "mnist", kernel) for kernel in kernels]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Two figures: against n, and against the noise."""
        kernels = setting.kernels("mnist")
        growth = growth_table(setting, results, *kernels)
        against_n, axes = panels(2, len(kernels), width=3.4, sharex="col")
        for (upper, lower), own in zip(axes.T, groups(growth, "kernel"), strict=True):
            draw_against_n(upper, own, "test_error_noisy", title="{set}, {spec.title} {bandwidth:g}")
            draw_against_n(lower, own, "rkhs_norm")
        finish(against_n, 3)

        levels = with_bayes_error(by_level(sweep_table([whole(setting, "mnist", each) for each in kernels], results)))
        sweep, ((noised, clean),) = panels(1, 2, width=3.4)
        scales: Style = {"across": scale("fraction of labels replaced"), "up": percent("test error")}
        for each, name, which in ((noised, "test_error_noisy", "noised"), (clean, "test_error", "clean")):
            named: Style = {"label": "{spec.title}, interpolated", "title": f"{{set}}, n={{n}}, {which} test labels"}
            panel(each, levels, "noise", name, "kernel", kernel_look, **named, **scales)
        last = groups(levels, "kernel")[-1]
        label = "Bayes error (Prop. 1, e of the {spec.title})"
        panel(noised, last, "noise", "bayes_error", label=label, color="black", marker=None, linestyle="--")
        finish(sweep, 3)
        missing = len(growth) - growth["fitted"].sum()
        columns = "n kernel noise test_error test_error_noisy rkhs_norm bayes_error part"
        return Presentation(
            figures={"noise-n": against_n, "noise-sweep": sweep},
            rows=rows_of(levels.assign(part="sweep"), columns)
            + [{**row, "part": "growth"} for row in growth_rows(growth)],
            claims=[
                *(near_bayes(own) for own in groups(levels, "kernel")),
                *(close_errors(own) for own in groups(growth, "kernel")),
            ],
            tables=[
                Table.of(
                    "{set}, n={n}: the exact interpolant",
                    levels,
                    ("label noise", "{spec}, {noise:.0%}"),
                    ("error, noised labels", "{test_error_noisy:.2%}"),
                    ("clean labels", "{test_error:.2%}"),
                    ("Bayes error", "{bayes_error:.2%}"),
                    ("norm", "{rkhs_norm:.1f}"),
                )
            ],
            sentences=[
                "The Bayes error is Prop. 1's, eps (c - 1)/c + (1 - eps) e, where e, the Bayes error without noise, is "
                "estimated by the interpolant's error there.",
                f"Bands are one standard deviation over draws of rows and noise; {draws(growth)}.",
            ]
            + [f"{missing} overfitted runs had training errors left after their last epoch and are left out."]
            * bool(missing),
        )


def with_bayes_error(levels: DataFrame) -> DataFrame:
    """The levels of noise with the Bayes error of each, which takes the kernel's error without noise for e."""
    from datamodules.noise import noisy_bayes_error

    clean = levels[levels["noise"] == 0].set_index("kernel")["test_error"]
    return derived(levels, bayes_error=lambda row: noisy_bayes_error(clean[row["kernel"]], row["noise"], CLASSES))


def draws(growth: DataFrame) -> str:
    """A text that names the ways and n of a single draw, which have no band."""
    same = growth[(growth["kernel"] == growth["kernel"].iat[0]) & (growth["noise"] == GROWTH_NOISES[0])]
    seeds = same.groupby(["way", "n"])["seed"].count()
    single = [f"{way} n={n}" for way, n in seeds.index[seeds == 1]]
    return f"single draws, without one: {', '.join(single)}" if single else "there are several of each"


def near_bayes(levels: DataFrame) -> Claim:
    """That noise of up to 80% leaves the error near the Bayes error of the noised problem; `levels` of one kernel."""
    levels = levels.set_index("noise")
    gaps = (levels["test_error_noisy"] - levels["bayes_error"]).astype(float)
    beyond = min(gaps.index[gaps > NEAR], default=1.0)
    within = max(gaps.index[gaps.index < beyond])  # not empty, because the gap without noise is 0
    return Claim(
        f"{levels['spec'].iat[0].title}: up to 80% noise the interpolant's error stays near the noised problem's Bayes "
        "error",
        bool(gaps.max() <= NEAR),
        f"n={levels['n'].iat[0]}: at most {100 * gaps.max():.1f} points above it, at {gaps.idxmax():.0%} noise; within "
        f"{100 * NEAR:.0f} points up to {within:.0%}",
        f"{B18} section 4",
    )


def close_errors(growth: DataFrame) -> Claim:
    """That interpolated and overfitted classifiers have the same error; `growth` is of one kernel."""
    kernel, source = growth["spec"].iat[0], f"{B18} section 4"
    fitted = growth[growth["fitted"].astype(bool)]
    errors = fitted.groupby(["n", "noise", "way"])["test_error_noisy"].agg(mean).unstack("way")
    if "overfitted" not in errors:
        return Claim(f"{kernel.title}: errors agree", None, "no overfitted run was finished", source)
    gaps = (errors["overfitted"] - errors["interpolated"]).dropna()
    n, noise = gaps.abs().idxmax()
    return Claim(
        f"{kernel.title}: overfitted and interpolated classifiers have nearly the same test error, noise or not",
        bool(gaps.abs().max() <= 0.02),
        f"the largest difference is {100 * gaps[n, noise]:+.2f} points, at n={n} and {noise:.0%} noise",
        source,
    )
