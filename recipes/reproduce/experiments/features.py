"""Recursive feature machines: the directions that they find, and what learning features costs under label noise."""

from __future__ import annotations

from matplotlib.figure import Figure

from callbacks.figures import BLACK
from recipes.reproduce.analysis.feature_claims import (
    LAST,
    LEARNT,
    PLAIN,
    RFM,
    TITLES,
    WAYS,
    better_claim,
    found_claim,
    harmless_claim,
    near_bayes_claim,
    norm_claim,
)
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, percent, scale, style_of
from recipes.reproduce.page.presentation import Presentation, Table
from recipes.reproduce.points.directions import RANK, Directions
from recipes.reproduce.points.learned import Learned
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Row, derived, groups, mean, rows_of, spread, sweep_table, table

KERNEL = KernelSpec(name="laplacian")  # the bandwidth is the median distance, anew in each round
RIDGE = 1e-3
ROUNDS = 5
CLASSES = 10


class Features(Experiment):
    """Functions of one to three directions, with a metric that is learnt and without; then digits with wrong labels."""

    name = "features"
    title = "Recursive feature machines: directions found against n, and interpolation of noisy labels"
    source = f"{RFM}; {B18} section 4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """Each target, n, d and seed; each level of noise and seed."""
        return [*directions(setting), *learned(setting)]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure and a table for each of both parts."""
        found = by_way(sweep_table(directions(setting), results))
        found = found[found["way"] != LAST]
        noisy = with_bayes_error(by_way(sweep_table(learned(setting), results)))
        runs = by_round(sweep_table(learned(setting), results))
        return Presentation(
            figures={"features-directions": draw_directions(found), "features-noise": draw_noise(noisy, runs)},
            rows=rows_of(found.assign(part="directions"), "part target n d seed way round test_error sine")
            + rows_of(noisy.assign(part="noise"), NOISE_COLUMNS),
            claims=[
                *(found_claim(own) for own in groups(found, "target")),
                *(better_claim(own) for own in groups(found, "target")),
                *(near_bayes_claim(noisy, way) for way in WAYS),
                *(harmless_claim(noisy, way) for way in WAYS[1:]),
                *(norm_claim(noisy, way) for way in WAYS[1:]),
            ],
            tables=[directions_table(found), noise_table(noisy)],
            sentences=[
                f"Directions: rows are normal in R^d; u, v, w are random orthonormal directions; ridge {RIDGE:g}, no "
                "noise. Errors are mean squared errors divided by the variance of the targets, so a constant has 1.",
                "All machines have the Laplacian kernel, whose bandwidth is the median distance in each round, and "
                f"{rounds(setting)} rounds; the learnt metric is that of the round that held-out rows choose. Round 0 "
                "is the plain kernel: where it is chosen nothing was learnt, and there is no angle.",
                "Noise: all machines interpolate the noisy labels of the same rows. Their norms are of different "
                "spaces, so only their growth with the noise is compared. The Bayes error is Prop. 1's, for which e is "
                "the least of the machines' errors without noise.",
                "A single draw, without a spread."
                if len(seeds(setting)) == 1
                else f"Means and standard deviations are over {len(seeds(setting))} draws.",
            ],
        )


NOISE_COLUMNS = "part set n noise seed way round train_error test_error test_error_noisy bayes_error rkhs_norm"


def seeds(setting: Setting) -> range:
    """The seeds of the draws."""
    return range(setting.choose(tiny=1, quick=2, full=3))


def rounds(setting: Setting) -> int:
    """Metrics that are learnt at most."""
    return int(setting.choose(tiny=2, quick=ROUNDS, full=ROUNDS))


def dimensions(setting: Setting, target: str) -> tuple[int, ...]:
    """The values of d; parity has an easy one too."""
    chosen: tuple[int, ...] = setting.choose(tiny=(), quick=(50,), full=(50, 100, 200))
    return ((10,) if target == "parity" or setting.scale == "tiny" else ()) + chosen


def directions(setting: Setting) -> list[Point]:
    """The points of the first part."""
    sizes = setting.choose(tiny=(100, 200), quick=(500, 1000, 2000, 4000), full=(500, 1000, 2000, 5000, 10_000))
    return [
        Directions(
            target=target,
            n=n,
            d=d,
            kernel=KERNEL,
            ridge=RIDGE,
            rounds=rounds(setting),
            seed=seed,
        )
        for target in RANK
        for d in dimensions(setting, target)
        for n in sizes
        for seed in seeds(setting)
    ]


def learned(setting: Setting) -> list[Point]:
    """The points of the second part, of which the first four fifths of the rows are fitted."""
    n = setting.choose(tiny=200, quick=1250, full=6250)
    test_size = setting.choose(tiny=None, quick=2000, full=None)
    return [
        Learned(
            sample=setting.sample("mnist", n, test_size, seed),
            kernel=KERNEL,
            noise=noise,
            rounds=rounds(setting),
        )
        for noise in setting.choose(tiny=(0.0, 0.2), quick=(0.0, 0.1, 0.2, 0.4), full=(0.0, 0.1, 0.2, 0.3, 0.4))
        for seed in seeds(setting)
    ]


def by_round(runs: DataFrame) -> DataFrame:
    """A row for each round of each run, with the columns of both; `round` is its number."""
    return table(
        {**run, **each, "round": i, "last": len(rounds) - 1}
        for run in runs.to_dict("records")
        for rounds in (run.pop("rounds"),)
        for i, each in enumerate(rounds)
    )


def by_way(runs: DataFrame) -> DataFrame:
    """Three rows for each run: the plain kernel, which is round 0, the round that was chosen, and the last one."""
    found = rows_of(by_round(runs))
    numbers = {PLAIN: lambda row: 0, LEARNT: lambda row: row["chosen"], LAST: lambda row: row["last"]}
    return table({**row, "way": way} for way in WAYS for row in found if row["round"] == numbers[way](row))


def with_bayes_error(noisy: DataFrame) -> DataFrame:
    """The runs with the Bayes error of the noised problem, for which e is the least mean error without noise."""
    from datamodules.noise import noisy_bayes_error

    e = noisy[noisy["noise"] == 0].groupby("way")["test_error"].agg(mean).min()
    return derived(noisy, bayes_error=lambda row: noisy_bayes_error(e, row["noise"], CLASSES))


# Figures


def look(row: Row) -> Style:
    """A colour for each way."""
    return style_of(WAYS.index(row["way"]))


def draw_directions(found: DataFrame) -> Figure:
    """Two rows for each target, the sine of the angle and the error; a column for each d."""
    targets = [groups(of_target, "d") for of_target in groups(found, "target")]
    figure, axes = panels(2 * len(targets), max(map(len, targets)), height=1.9, sharex=True, sharey="row")
    for i, by_d in enumerate(targets):
        for j, own in enumerate(by_d):
            upper, lower = axes[2 * i : 2 * i + 2, j]
            learnt = own[own["way"] == LEARNT].assign(title=TITLES[own["target"].iat[0]])
            title, up = "{title}, d={d}", log("sine of the angle")
            panel(upper, learnt, "n", "sine", "way", look, label="{way}", band=True, title=title, up=up)
            named: Style = {"label": "{way}", "band": True, "up": scale("test error / variance", 10)}
            panel(lower, own, "n", "test_error", "way", look, **named)
        for unused in axes[2 * i : 2 * i + 2, len(by_d) :].flat:
            unused.remove()
    finish(figure, 2)
    return figure


def draw_noise(noisy: DataFrame, runs: DataFrame) -> Figure:
    """Error against noise, norm against noise, and error by round."""
    figure, ((errors, norms, by_number),) = panels(1, 3, width=3.2, height=2.9)
    across = scale("fraction of labels replaced")
    title = "{set}, n={n}, interpolated"
    named: Style = {"label": "{way}", "band": True, "across": across}
    panel(errors, noisy, "noise", "test_error_noisy", "way", look, title=title, **named)
    dashed: Style = {"linestyle": "--", "marker": None, "color": BLACK, "across": across}
    panel(errors, noisy, "noise", "bayes_error", label="Bayes error (Prop. 1)", band=True, **dashed)
    panel(norms, noisy, "noise", "rkhs_norm", "way", look, **named)
    up = percent("test error, clean labels")
    for i, own in enumerate(groups(runs, "noise")):
        style = style_of(3 + i)
        panel(by_number, own, "round", "test_error", label="{noise:.0%} noise", band=True, up=up, **style)
    by_number.set_xlabel("round")
    by_number.set_xticks(sorted(set(runs["round"])))
    finish(figure, 3)
    return figure


# Tables


def directions_table(found: DataFrame) -> Table:
    """A row for each target, d and n."""
    rows = []
    for own in groups(found, ["target", "d", "n"]):
        first, learnt = own.iloc[0], own[own["way"] == LEARNT]
        sines = [value for value in learnt["sine"] if value is not None and value == value]
        errors = {way: list(own[own["way"] == way]["test_error"]) for way in (PLAIN, LEARNT)}
        rows.append(
            (
                *(TITLES[first["target"]], str(first["d"]), str(first["n"])),
                f"{mean(sines):.3f} ± {spread(sines):.3f}" if sines else "",
                *(f"{mean(each):.3g} ± {spread(each):.2g}" for each in errors.values()),
                ", ".join(str(each) for each in learnt["round"]),
            )
        )
    header = ("function", "d", "n", "sine", *(f"error, {way}" for way in (PLAIN, LEARNT)), "rounds chosen")
    return Table("functions of a few directions", header, rows)


def noise_table(noisy: DataFrame) -> Table:
    """A row for each level of noise and way."""
    rows = []
    for own in groups(noisy.sort_values("noise", kind="stable"), ["noise", "way"]):
        first = own.iloc[0]
        errors = (f"{mean(own[name]):.2%}" for name in ("test_error_noisy", "test_error", "bayes_error", "train_error"))
        chosen = ", ".join(str(each) for each in own["round"])
        rows.append((f"{first['noise']:.0%}", first["way"], *errors, f"{mean(own['rkhs_norm']):.1f}", chosen))
    header = ("noise", "", "error, noised labels", "clean labels", "Bayes error", "training error", "norm", "rounds")
    return Table(f"{noisy['set'].iat[0]}, n={noisy['n'].iat[0]}: interpolants of noisy labels", header, rows)
