"""Steps, epochs and seconds to a fixed training mse against the batch size, below and above the critical one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes

from recipes.reproduce.analysis.reached import epochs_of, seconds_of
from recipes.reproduce.analysis.scaling import Curve
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import panels, style_of
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import MB19
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Result, Results

SOURCE = f"{MB19} section 2"
# Where epochs are E (1 + m/m_c), the slope of steps against m is -1/(1 + m/m_c): -0.8 at m*/4, -0.25 at 3 m*.
LINEAR, SATURATED = -0.75, -1 / 3


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
        shown = kernels(setting)
        curves = {
            kernel: [measured(setting, kernel, q, sizes, results) for q, sizes in ladder(setting)] for kernel in shown
        }
        figure, axes = panels(len(shown), 3, width=2.5, height=2.3, sharex=True)
        for row, kernel in zip(axes, shown, strict=True):
            draw(row, curves[kernel], first=kernel is shown[0], last=kernel is shown[-1])
            row[0].set_title(f"{kernel.title} kernel", loc="left")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        every = [curve for kernel in shown for curve in curves[kernel]]
        sample = make_fit(setting, shown[0], 0, 1).sample
        what = f"training mse {target(setting):g}, {title(sample.data)}, n={sample.rows}"
        return Presentation(
            figures={"batch-size": figure},
            rows=records(setting, results),
            claims=[linear_claim(every), saturated_claim(every), *(rank_claim(curves[kernel]) for kernel in shown)],
            tables=[summary(what, every)],
            sentences=sentences(every, cap(setting)),
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
    """The training mse to come to."""
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


def measured(setting: Setting, kernel: KernelSpec, q: int, sizes: Sequence[int], results: Results) -> Curve:
    """What the runs of one kernel and q needed."""
    fits = {m: results[make_fit(setting, kernel, q, m)] for m in sizes}
    goal = target(setting)
    found = {m: epochs for m, fit in fits.items() if (epochs := epochs_of(fit, goal)) is not None}
    return Curve(
        kernel=kernel,
        q=q,
        critical=fits[sizes[0]]["critical_batch_size"],
        m=tuple(found),
        epochs=tuple(found.values()),
        steps=tuple(epochs * steps_per_epoch(fits[m]) for m, epochs in found.items()),
        seconds=tuple(seconds_of(fits[m], goal) or 0.0 for m in found),
        missed=tuple(m for m in sizes if m not in found),
    )


def steps_per_epoch(fit: Result) -> int:
    """ceil(n/m)."""
    return math.ceil(fit["n"] / fit["batch_size"])


def draw(row: Sequence[Axes], curves: Sequence[Curve], first: bool, last: bool) -> None:
    """The panels of one kernel; a dotted vertical line is m*."""
    for i, curve in enumerate(curves):
        style = style_of(i)
        for axes, values in zip(row, (curve.steps, curve.epochs, curve.seconds), strict=True):
            axes.plot(curve.m, values, label=f"q = {curve.q}", **style)
            axes.axvline(curve.critical, color=style["color"], linestyle=":", linewidth=1.2)
    for axes, label in zip(row, ("steps", "epochs", "seconds"), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.set_xlabel("batch size m" if last else "")
    if first:
        row[1].set_title("dotted: critical batch size m*", loc="center", color="#555555")


def summary(what: str, curves: Sequence[Curve]) -> Table:
    """A line for each kernel and q."""
    header = ("", "m*", "m_c of the runs", "slope below", "slope above", "epochs, smallest m", "least seconds", "at m")
    rows = []
    for curve in curves:
        quickest = curve.quickest if curve.m else None
        rows.append(
            (
                f"{curve.kernel}, q={curve.q}",
                str(curve.critical),
                written(curve.knee, ".0f"),
                written(curve.below, ".2f"),
                written(curve.above, ".2f"),
                written(curve.epochs[0] if curve.epochs else None, ".1f"),
                written(quickest and quickest[0], ".2f"),
                "" if quickest is None else str(quickest[1]),
            )
        )
    return Table(f"to {what}", header, rows)


def written(value: float | None, form: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, form)


def records(setting: Setting, results: Results) -> list[dict[str, Any]]:
    """A record for each run."""
    rows = []
    for kernel in kernels(setting):
        for q, sizes in ladder(setting):
            for m in sizes:
                fit = results[make_fit(setting, kernel, q, m)]
                epochs = epochs_of(fit, target(setting))
                rows.append(
                    {
                        "data": fit["data_source"],
                        "n": fit["n"],
                        "kernel": kernel.name,
                        "bandwidth": kernel.bandwidth,
                        "q": fit["top_q"],
                        "m": fit["batch_size"],
                        "critical_batch_size": fit["critical_batch_size"],
                        "step_size": fit["step_size"],
                        "target_mse": target(setting),
                        "epochs": epochs,
                        "steps": None if epochs is None else epochs * steps_per_epoch(fit),
                        "seconds": seconds_of(fit, target(setting)),
                        "epochs_run": fit["epochs"],
                    }
                )
    return rows


def linear_claim(curves: Sequence[Curve]) -> Claim:
    """Linear scaling."""
    slopes = {label(curve): curve.below for curve in curves if curve.below is not None}
    return Claim(
        "well below m* (m <= m*/4) the number of steps falls in proportion to 1/m (slope -1)",
        all(abs(slope + 1) <= 1 + LINEAR for slope in slopes.values()) if slopes else None,
        seen(slopes, f"log-log slopes, to be within {1 + LINEAR:g} of -1"),
        SOURCE,
    )


def saturated_claim(curves: Sequence[Curve]) -> Claim:
    """Saturation."""
    slopes = {label(curve): curve.above for curve in curves if curve.above is not None}
    return Claim(
        "well above m* (m >= 3 m*) a larger batch hardly saves steps",
        all(slope >= SATURATED for slope in slopes.values()) if slopes else None,
        seen(slopes, f"log-log slopes, to be at least {SATURATED:.2f}"),
        SOURCE,
    )


def rank_claim(curves: Sequence[Curve]) -> Claim:
    """What q is for."""
    knees = [(curve, curve.knee) for curve in curves]
    known = [(curve, knee) for curve, knee in knees if knee is not None]
    grows = all(a < b for (_, a), (_, b) in pairwise(known))
    close = all(1 / 3 <= knee / curve.critical <= 3 for curve, knee in known)
    said = ", ".join(f"q={curve.q}: {knee:.0f} (m* {curve.critical})" for curve, knee in known) or "none is known"
    return Claim(
        f"{curves[0].kernel.title}: damping more eigenvectors makes larger batches useful, up to about m*",
        grows and close if len(known) > 1 else None,
        f"batch size at which a row is worth half as much, from the runs: {said}; to be within a factor 3 of m*",
        SOURCE,
    )


def quickest_seen(curve: Curve) -> str:
    """The batch size of the least seconds beside m*."""
    return f"m = {curve.quickest[1]} ({label(curve)}, m* {curve.critical})"


def label(curve: Curve) -> str:
    """The curve in a few letters."""
    return f"{curve.kernel.title} q={curve.q}"


def seen(slopes: dict[str, float], what: str) -> str:
    """Slopes on one line."""
    return f"{what}: " + (", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()) or "none")


def sentences(curves: Sequence[Curve], epochs: int) -> list[str]:
    """What the results say, and what they cannot say."""
    missed = [f"{label(curve)} at m = {', '.join(map(str, curve.missed))}" for curve in curves if curve.missed]
    return [
        "Epochs are whole and a part: between the ends of two epochs the logarithm of the mse is taken to be linear. "
        "Steps are epochs times ceil(n/m); seconds are of training steps with K kept in memory.",
        "The step size is the smaller of m/beta, which holds below m*, and 0.9 times 2m/(beta + (m-1) lambda_1): at m* "
        "it has half of its limit, so that steps still halve between m* and n.",
        f"Seconds are least at {', '.join(quickest_seen(curve) for curve in curves if curve.m)}; [MB19] on a GPU have "
        "them least at m*. Where an epoch takes the same time whatever m, as on a CPU, larger batches save no more "
        "than the fixed cost of a step.",
        *([f"Not reached in {epochs} epochs: {'; '.join(missed)}."] if missed else []),
    ]
