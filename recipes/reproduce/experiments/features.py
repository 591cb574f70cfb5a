"""Recursive feature machines: the directions that they find, and what learning features costs under label noise."""

from __future__ import annotations

from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, percent, scale, style_of
from recipes.reproduce.page.presentation import Claim, Presentation, Table
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
FOUND = 0.1  # the sine below which directions count as found: 6 degrees
NEAR = 0.05  # an error counts as near to the Bayes error within five points, as in `noise`
TITLES = {"single-index": "sin(2 u)", "product": "u v", "parity": "tanh(3u) tanh(3v) tanh(3w)"}
PLAIN, LEARNT = "plain kernel", "learnt metric"
WAYS = (PLAIN, LEARNT)
CLASSES = 10
RFM = "arXiv:2212.13881"
THEORY = f"{RFM}, of which it is no statement"


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
                harmless_claim(noisy),
                norm_claim(noisy),
            ],
            tables=[directions_table(found), noise_table(noisy)],
            sentences=[
                f"Directions: rows are normal in R^d; u, v, w are random orthonormal directions; ridge {RIDGE:g}, no "
                "noise. Errors are mean squared errors divided by the variance of the targets, so a constant has 1.",
                "All machines have the Laplacian kernel, whose bandwidth is the median distance in each round, and "
                f"{rounds(setting)} rounds at most; held-out rows choose one. Round 0 is the plain kernel: where it is "
                "chosen nothing was learnt, and there is no angle.",
                "Noise: both machines interpolate the noisy labels of the same rows. Their norms are of two spaces, so "
                "only their growth with the noise is compared.",
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
        for d in setting.choose(tiny=(10,), quick=(50,), full=(50, 100, 200))
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
        {**run, **each, "round": i} for run in runs.to_dict("records") for i, each in enumerate(run.pop("rounds"))
    )


def by_way(runs: DataFrame) -> DataFrame:
    """Two rows for each run: the plain kernel, which is round 0, and the round that was chosen."""
    each = by_round(runs)
    plain, learnt = each[each["round"] == 0], each[each["round"] == each["chosen"]]
    rows = [{**row, "way": way} for way, own in ((PLAIN, plain), (LEARNT, learnt)) for row in rows_of(own)]
    return table(rows)


def with_bayes_error(noisy: DataFrame) -> DataFrame:
    """The runs with the Bayes error of the noised problem, which takes a way's error without noise for its own."""
    from datamodules.noise import noisy_bayes_error

    clean = noisy[noisy["noise"] == 0].groupby("way")["test_error"].agg(mean)
    return derived(noisy, bayes_error=lambda row: noisy_bayes_error(clean[row["way"]], row["noise"], CLASSES))


# Figures


def look(row: Row) -> Style:
    """A colour for each way."""
    return style_of(WAYS.index(row["way"]))


def draw_directions(found: DataFrame) -> Figure:
    """A column for each target and d: the sine of the angle above, the error below."""
    columns = groups(found, ["target", "d"])
    figure, axes = panels(2, len(columns), sharex="col", sharey="row")
    for (upper, lower), own in zip(axes.T, columns, strict=True):
        learnt = own[own["way"] == LEARNT].assign(title=TITLES[own["target"].iat[0]])
        title, up = "{title}, d={d}", log("sine of the largest angle")
        panel(upper, learnt, "n", "sine", "way", look, label="{way}", band=True, title=title, up=up)
        named: Style = {"label": "{way}", "band": True, "up": log("test error / variance")}
        panel(lower, own, "n", "test_error", "way", look, **named)
    finish(figure, 2)
    return figure


def draw_noise(noisy: DataFrame, runs: DataFrame) -> Figure:
    """Error against noise, norm against noise, and error by round."""
    figure, ((errors, norms, by_number),) = panels(1, 3, width=3.2, height=2.9)
    across = scale("fraction of labels replaced")
    title = "{set}, n={n}, interpolated"
    named: Style = {"label": "{way}", "band": True, "across": across}
    panel(errors, noisy, "noise", "test_error_noisy", "way", look, title=title, **named)
    dashed: Style = {"linestyle": "--", "marker": None, "label": "Bayes error (Prop. 1, e of the {way})"}
    panel(errors, noisy, "noise", "bayes_error", "way", look, band=True, across=across, **dashed)
    panel(norms, noisy, "noise", "rkhs_norm", "way", look, **named)
    up = percent("test error, clean labels")
    for i, own in enumerate(groups(runs, "noise")):
        style = style_of(3 + i)
        panel(by_number, own, "round", "test_error", label="{noise:.0%} noise", band=True, up=up, **style)
    by_number.set_xlabel("round")
    by_number.set_xticks(sorted(set(runs["round"])))
    finish(figure, 3)
    return figure


# Claims


def found_claim(found: DataFrame) -> Claim:
    """That the metric finds the directions at the largest n; `found` is of one target."""
    target, learnt = found["target"].iat[0], found[found["way"] == LEARNT]
    largest = learnt[learnt["n"] == learnt["n"].max()]
    seen = []
    for own in groups(largest, "d"):
        sines = [value for value in own["sine"] if value is not None and value == value]
        missing = len(own) - len(sines)
        said = f"sine {mean(sines):.3f}" if sines else ""
        nothing = f"nothing learnt in {missing} of {len(own)} draws" * bool(missing)
        seen.append(f"d={own['d'].iat[0]}: {', '.join(each for each in (said, nothing) if each)}")
    return Claim(
        f"{TITLES[target]}: the leading eigenvectors of the metric are the directions of the function, to a sine of "
        f"{FOUND:g}",
        bool((largest["sine"].fillna(1.0).astype(float) <= FOUND).all()),
        f"n={largest['n'].iat[0]}: {'; '.join(seen)}",
        THEORY,
    )


def better_claim(found: DataFrame) -> Claim:
    """That the learnt metric has a smaller test error at every n; `found` is of one target."""
    errors = found.groupby(["d", "n", "way"])["test_error"].agg(mean).unstack("way")
    ratios = errors[LEARNT] / errors[PLAIN]
    (d, n), (best_d, best_n) = ratios.idxmax(), ratios.idxmin()
    return Claim(
        f"{TITLES[found['target'].iat[0]]}: learning the metric lowers the test error at every n",
        bool(ratios.max() < 1),
        f"learnt / plain: {ratios.max():.3g} at n={n}, d={d}, {ratios.min():.3g} at n={best_n}, d={best_d}",
        THEORY,
    )


def near_bayes_claim(noisy: DataFrame, way: str) -> Claim:
    """That a way's interpolant stays near the Bayes error of the noised problem."""
    own = noisy[noisy["way"] == way]
    means = own.groupby("noise")[["test_error_noisy", "bayes_error"]].agg(mean)
    gaps = (means["test_error_noisy"] - means["bayes_error"]).astype(float)
    return Claim(
        f"{way}: up to {max(gaps.index):.0%} noise the interpolant's error stays near the noised problem's Bayes error",
        bool(gaps.max() <= NEAR),
        f"n={own['n'].iat[0]}: at most {100 * gaps.max():.1f} points above it, at {gaps.idxmax():.0%} noise",
        f"{B18} section 4, of plain kernels",
    )


def harmless_claim(noisy: DataFrame) -> Claim:
    """That noise costs the learnt metric no more than the plain kernel, on clean test labels."""
    errors = noisy.groupby(["noise", "way"])["test_error"].agg(mean).unstack("way")
    rises = errors - errors.loc[0.0]
    last = rises.index.max()
    return Claim(
        "Noise costs the interpolant with a learnt metric no more than the plain one, though both fit all labels",
        bool((rises[LEARNT] <= rises[PLAIN]).all()),
        f"error on clean test labels at 0 and {last:.0%} noise: "
        + ", ".join(f"{way} {errors.loc[0.0, way]:.1%} and {errors.loc[last, way]:.1%}" for way in WAYS),
        THEORY,
    )


def norm_claim(noisy: DataFrame) -> Claim:
    """That noise multiplies the norm under the learnt metric by no more than that of the plain kernel."""
    norms = noisy.groupby(["noise", "way"])["rkhs_norm"].agg(mean).unstack("way")
    growth = norms / norms.loc[0.0]
    last = growth.index.max()
    return Claim(
        "Noise multiplies the RKHS norm of the interpolant with a learnt metric by no more than the plain one's",
        bool((growth[LEARNT] <= growth[PLAIN]).all()),
        f"{last:.0%} noise: " + ", ".join(f"{way} {growth.loc[last, way]:.2f} times" for way in WAYS),
        THEORY,
    )


# Tables


def directions_table(found: DataFrame) -> Table:
    """A row for each target, d and n."""
    rows = []
    for own in groups(found, ["target", "d", "n"]):
        first, learnt = own.iloc[0], own[own["way"] == LEARNT]
        sines = [value for value in learnt["sine"] if value is not None and value == value]
        errors = {way: list(own[own["way"] == way]["test_error"]) for way in WAYS}
        rows.append(
            (
                *(TITLES[first["target"]], str(first["d"]), str(first["n"])),
                f"{mean(sines):.3f} ± {spread(sines):.3f}" if sines else "",
                *(f"{mean(errors[way]):.3g} ± {spread(errors[way]):.2g}" for way in WAYS),
                ", ".join(str(each) for each in learnt["round"]),
            )
        )
    header = ("function", "d", "n", "sine", *(f"error, {way}" for way in WAYS), "rounds chosen")
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
