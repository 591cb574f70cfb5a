"""Steps, epochs and seconds to a fixed training mse against the batch size, below and above the critical one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from recipes.reproduce.analysis.reached import epochs_of, seconds_of
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Mark, Style, finish, panel, panels, scale
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import MB19
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, groups, rows_of, sweep_table, table

SOURCE = f"{MB19} section 2"
# If epochs are E (1 + m/m_c), the slope of steps against m is -1/(1 + m/m_c): -0.8 at m*/4, -0.25 at 3 m*.
LINEAR, SATURATED = -0.75, -1 / 3
BELOW, ABOVE = 1 / 4, 3.0  # what counts as well below and well above m*, in units of m*
CRITICAL = Mark("critical_batch_size", line=":", upright=True)
RESOLVED = 1.5  # epochs; the first epoch removes most of the mse, and progress within it is not resolved


class BatchSize(Experiment):
    """EigenPro 2 at fixed ranks q over batch sizes m, both kernels."""

    name = "batch-size"
    title = "Steps, epochs and seconds to a training mse against batch size, below and above the critical one"
    source = SOURCE

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run for each kernel, q and m."""
        return [
            make_fit(setting, kernel, q, m)
            for kernel in kernels(setting)
            for q, sizes in ladder(setting)
            for m in sizes
        ]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A row of panels for each kernel: steps, epochs, seconds."""
        runs = runs_table(self.points(setting, results), results, target(setting))
        figure, axes = panels(runs["kernel"].nunique(), 3, width=2.5, height=2.3, sharex=True)
        for row, own in zip(axes, groups(runs, "kernel"), strict=True):
            for each, name in zip(row, ("steps", "epochs", "seconds"), strict=True):
                scales: Style = {"across": scale("batch size m", 2), "up": scale(name, 10)}
                panel(each, own, "m", name, "q", label="q = {q}", mark=CRITICAL, **scales)
            row[0].set_title(f"{own['spec'].iat[0].title} kernel", loc="left")
        axes[0, 1].set_title("dotted: critical batch size m*", loc="center", color="#555555")
        finish(figure)
        curves = curves_table(runs)
        columns = "data n kernel bandwidth q m critical_batch_size step_size target_mse epochs steps seconds epochs_run"
        return Presentation(
            figures={"batch-size": figure},
            rows=rows_of(runs, columns),
            claims=[
                linear_claim(curves),
                saturated_claim(curves),
                *(rank_claim(own) for own in groups(curves, "spec")),
            ],
            tables=[
                Table.of(
                    "to training mse {target_mse:g}, {set}, n={n}",
                    curves,
                    ("", "{spec}, q={q}"),
                    ("m*", "{critical}"),
                    ("m_c of the runs", "{knee:.0f}"),
                    ("slope below", "{below:.2f}"),
                    ("slope above", "{above:.2f}"),
                    ("epochs, smallest m", "{epochs:.1f}"),
                    ("least seconds", "{seconds:.2f}"),
                    ("at m", "{m}"),
                )
            ],
            sentences=sentences(curves, cap(setting)),
        )


def kernels(setting: Setting) -> tuple[KernelSpec, ...]:
    """Both kernels; the Gaussian one alone at the tiny scale."""
    return setting.kernels("mnist")[: setting.choose(tiny=1, quick=2, full=2)]


def ladder(setting: Setting) -> list[tuple[int, tuple[int, ...]]]:
    """Ranks q, each with the batch sizes that lie around its critical one."""
    return setting.choose(
        tiny=[(0, (2, 8, 32)), (20, (8, 32, 256))],
        quick=[(0, powers(1, 128)), (20, powers(8, 1024)), (80, powers(8, 1024))],
        full=[(0, powers(1, 512)), (20, powers(8, 4096)), (100, powers(8, 4096)), (300, powers(8, 4096))],
    )


def powers(low: int, high: int) -> tuple[int, ...]:
    """The powers of 2 from `low` to `high`."""
    return tuple(2**i for i in range(low.bit_length() - 1, high.bit_length()))


def target(setting: Setting) -> float:
    """The training mse to reach."""
    return setting.choose(tiny=1e-3, quick=3e-4, full=1e-3)


def cap(setting: Setting) -> int:
    """Epochs after which a run is given up."""
    return setting.choose(tiny=20, quick=100, full=500)


def make_fit(setting: Setting, kernel: KernelSpec, q: int, m: int) -> Fit:
    """Training to the target."""
    n = setting.choose(tiny=256, quick=1024, full=4096)
    sample = setting.sample("mnist", n, setting.choose(tiny=None, quick=500, full=1000))
    return Fit(
        sample=sample,
        kernel=kernel,
        epochs=cap(setting),
        until_mse=target(setting),
        test_every=0,
        batch_size=m,
        top_q=q,
    )


def runs_table(points: Iterable[Point], results: Results, goal: float) -> DataFrame:
    """A row for each run: epochs, steps and seconds to the target, None if the run did not reach it."""
    return sweep_table(
        points,
        results,
        target_mse=lambda run: goal,
        epochs_run=lambda run: run["epochs"],
        epochs=lambda run: epochs_of(run, goal),
        steps=lambda run: run["epochs"] and run["epochs"] * math.ceil(run["n"] / run["m"]),
        seconds=lambda run: seconds_of(run, goal),
    )


def curves_table(runs: DataFrame) -> DataFrame:
    """A row for each kernel and rank q.

    It has `critical` (m*), the slopes `below` and `above` it, the `knee` that fits the runs, the `epochs` of the
    smallest batch, the least `seconds` and their `m`, and `missed`, the batch sizes that did not reach the target. The
    other values leave those out.
    """
    found = []
    for own in groups(runs, ["spec", "q"]):
        known, critical = own.dropna(subset="epochs"), own["critical_batch_size"].iat[0]
        seconds, m = min(zip(known["seconds"], known["m"], strict=True), default=(None, None))
        found.append(
            {
                **own.iloc[0],
                "critical": critical,
                "knee": knee(known, critical),
                "below": slope(known, 0, BELOW * critical),
                "above": slope(known, ABOVE * critical, math.inf),
                "epochs": next(iter(known["epochs"]), None),
                "seconds": seconds,
                "m": m,
                "missed": list(own["m"][own["epochs"].isna()]),
            }
        )
    return table(found)


def slope(runs: DataFrame, low: float, high: float) -> float | None:
    """d log(steps) / d log(m) over batch sizes from `low` to `high`; None for fewer than two, or too few epochs."""
    chosen = runs[(runs["m"] >= low) & (runs["m"] <= high)]
    return log_slope(chosen["m"], chosen["steps"]) if len(chosen) > 1 and runs["epochs"].min() >= RESOLVED else None


def knee(runs: DataFrame, critical: float) -> float | None:
    """The critical batch size that fits the runs; None for fewer than 3 runs, none above 2 m*, or too few epochs."""
    if len(runs) < 3 or runs["m"].iat[-1] < 2 * critical or runs["epochs"].min() < RESOLVED:
        return None
    return saturation(runs["m"], runs["epochs"])


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent a of the power law y = b x^a that fits best on logarithmic axes."""
    return float(np.polyfit(np.log(np.asarray(x, float)), np.log(np.asarray(y, float)), 1)[0])


def saturation(m: Sequence[float], epochs: Sequence[float]) -> float | None:
    """m_c of epochs = E (1 + m / m_c), by least squares of the relative error; None if epochs do not grow with m.

    A step of m rows is worth as much as m/(1 + m/m_c) steps of one row: nearly m well below m_c, and m/2 at m_c.
    """
    rows, values = np.asarray(m, float), np.asarray(epochs, float)
    design = np.stack([1 / values, rows / values], axis=1)
    constant, growth = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    grows = growth * rows.max() > 1e-6 * constant > 0  # beyond rounding
    return float(constant / growth) if grows else None


def linear_claim(curves: DataFrame) -> Claim:
    """That steps scale linearly below m*."""
    slopes = curves.dropna(subset="below")
    return Claim(
        "well below m* (m <= m*/4) the number of steps falls in proportion to 1/m (slope -1)",
        bool(((slopes["below"] + 1).abs() <= 1 + LINEAR).all()) if len(slopes) else None,
        seen(slopes, "below", f"log-log slopes, to be within {1 + LINEAR:g} of -1"),
        SOURCE,
    )


def saturated_claim(curves: DataFrame) -> Claim:
    """That larger batches save nothing above m*."""
    slopes = curves.dropna(subset="above")
    return Claim(
        "well above m* (m >= 3 m*) a larger batch hardly saves steps",
        bool((slopes["above"] >= SATURATED).all()) if len(slopes) else None,
        seen(slopes, "above", f"log-log slopes, to be at least {SATURATED:.2f}"),
        SOURCE,
    )


def rank_claim(curves: DataFrame) -> Claim:
    """That a larger q makes larger batches useful; `curves` are of one kernel."""
    known = curves.dropna(subset="knee")
    grows = all(a < b for a, b in pairwise(known["knee"]))
    close = (known["knee"] / known["critical"]).astype(float).between(1 / 3, 3).all()
    said = ", ".join(f"q={row.q}: {row.knee:.0f} (m* {row.critical})" for row in known.itertuples()) or "none is known"
    return Claim(
        f"{curves['spec'].iat[0].title}: damping more eigenvectors makes larger batches useful, up to about m*",
        bool(grows and close) if len(known) > 1 else None,
        f"batch size at which a row is worth half as much, from the runs: {said}; to be within a factor 3 of m*",
        SOURCE,
    )


def seen(curves: DataFrame, name: str, what: str) -> str:
    """Slopes on one line."""
    said = [
        f"{spec.title} q={q} {slope:.2f}"
        for spec, q, slope in zip(curves["spec"], curves["q"], curves[name], strict=True)
    ]
    return f"{what}: {', '.join(said) or 'none'}"


def sentences(curves: DataFrame, epochs: int) -> list[str]:
    """What the results say, and what they cannot say."""
    quickest = [
        f"m = {row['m']} ({row['spec'].title} q={row['q']}, m* {row['critical']})"
        for row in rows_of(curves[curves["m"].notna()])
    ]
    missed = [
        f"{row['spec'].title} q={row['q']} at m = {', '.join(map(str, row['missed']))}"
        for row in rows_of(curves)
        if row["missed"]
    ]
    return [
        "Epochs are whole and a part: between the ends of two epochs the logarithm of the mse is taken to be linear. "
        "Steps are epochs times ceil(n/m); seconds are of training steps with K kept in memory.",
        "The step size is the smaller of m/beta, which holds below m*, and 0.9 times 2m/(beta + (m-1) lambda_1): at m* "
        "it has half of its limit, so that steps still halve between m* and n.",
        f"Seconds are least at {', '.join(quickest)}; [MB19] on a GPU have them least at m*. Where an epoch takes the "
        "same time whatever m, as on a CPU, larger batches save no more than the fixed cost of a step.",
        *([f"Not reached in {epochs} epochs: {'; '.join(missed)}."] if missed else []),
    ]
