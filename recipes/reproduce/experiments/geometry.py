"""How far one wrong target reaches: a sinusoid with an outlier, interpolated by both kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from callbacks.figures import BLACK, GREY
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, legend_below, panels
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.outlier import Outlier
from recipes.reproduce.points.sample import KernelSpec, gaussian, laplacian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Result, Results

SPACING = 1 / (Outlier.n - 1)
# On regular points the condition number of the Gaussian is about exp(pi^2 c^2 / 2) / 2 at c spacings: 2e8 at 2,
# and 1e19, singular in float64, at 3.
SPACINGS = (0.5, 1.0, 2.0)
THRESHOLD = 0.05  # of the outlier's size: what counts as disturbed
NEAR, FAR = 1.0, 5.0  # spacings from the outlier
REPORTS = "two student reports"


class Geometry(Experiment):
    """The reports' picture of an outlier in one dimension, and its numbers."""

    name = "geometry"
    title = "A sinusoid with one outlier: how far each kernel's interpolant is disturbed"
    source = REPORTS

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """Both kernels at each bandwidth; the same at every scale."""
        return [Outlier(kernel=kernel) for spacings in SPACINGS for kernel in kernels(spacings)]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A column for each bandwidth: the fits above, the disturbance below."""
        figure, axes = panels(2, len(SPACINGS), width=2.5, sharex=True, sharey="row")
        rows = []
        for column, spacings in enumerate(SPACINGS):
            upper, lower = axes[:, column]
            for kernel in kernels(spacings):
                point = Outlier(kernel=kernel)
                draw(upper, lower, kernel, results[point])
                rows.append(measure(point, spacings, results[point]))
            finish(upper, lower, results[point])
            plural = "" if spacings == 1 else "s"
            upper.set_title(f"bandwidth {kernel.bandwidth:g} ({spacings:g} spacing{plural})", loc="left")
        axes[0, 0].set_ylabel("f(x)")
        axes[1, 0].set_ylabel("|f with outlier - f without|")
        legend_below(figure)
        worst = max(row["relative_residual"] for row in rows)
        return Presentation(
            figures={"geometry": figure},
            rows=rows,
            claims=claims(rows),
            tables=[
                Table(
                    f"one target of {Outlier.n} moved by {Outlier.size:g}; lengths in spacings of {SPACING:g}",
                    (
                        "",
                        f"width above {THRESHOLD:.0%}",
                        f"rms disturbance beyond {NEAR:g}",
                        f"beyond {FAR:g}",
                        f"rms error beyond {NEAR:g}",
                        f"beyond {FAR:g}",
                        "without outlier",
                        "norm",
                        "without outlier",
                        "relative residual",
                    ),
                    [cells(row) for row in rows],
                )
            ],
            sentences=[
                "In one dimension this is as local as it can be: between two training points the Laplacian's "
                "interpolant depends on these two alone (it is the mean of a Markov process), so that an outlier "
                "reaches its "
                "neighbours and no further, at every bandwidth. In more dimensions it reaches further.",
                "The error beyond a distance is against the sinusoid. It holds the interpolant's own error between "
                "clean points, which is the larger part of the Laplacian's; the disturbance is what the outlier adds.",
                f"Bandwidths are at most {max(SPACINGS):g} spacings: wider Gaussians are singular in float64. All "
                f"solves are direct; the largest relative residual is {worst:.0e}.",
            ],
        )


def kernels(spacings: float) -> tuple[KernelSpec, KernelSpec]:
    """Both kernels with a bandwidth of so many spacings."""
    return gaussian(spacings * SPACING), laplacian(spacings * SPACING)


def disturbed_length(
    x: np.ndarray,  # shape: (m,)
    difference: np.ndarray,  # shape: (m,)
    threshold: float,
) -> float:
    """The length of {x : |f_outlier(x) - f_clean(x)| > threshold}, on a regular grid: a step for each such point.

    The set is not an interval where the difference oscillates; its gaps are not counted.
    """
    return float((np.abs(difference) > threshold).sum() * (x[1] - x[0]))


def rms_beyond(
    x: np.ndarray,  # shape: (m,)
    values: np.ndarray,  # shape: (m,)
    centre: float,
    distance: float,
) -> float:
    """The root of the mean of values^2 over |x - centre| > distance."""
    # A point that is at the distance itself is not beyond it, whatever the rounding says.
    return float(np.sqrt(np.mean(values[np.abs(x - centre) > distance * (1 + 1e-9)] ** 2)))


def measure(point: Outlier, spacings: float, result: Result) -> dict[str, Any]:
    """The numbers of one kernel and bandwidth."""
    x, centre = np.array(result["grid"]), result["outlier"]
    clean, fitted = (np.array(result[name]["values"]) for name in ("clean", "outlier_fit"))
    truth = np.sin(2 * np.pi * x)
    row: dict[str, Any] = {
        "kernel": point.kernel.name,
        "bandwidth": point.kernel.bandwidth,
        "bandwidth_in_spacings": spacings,
        "n": point.n,
        "size": point.size,
        "width": disturbed_length(x, fitted - clean, THRESHOLD * point.size),
    }
    for name, values in (("disturbance", fitted - clean), ("error", fitted - truth), ("clean_error", clean - truth)):
        for where, distance in (("near", NEAR), ("far", FAR)):
            row[f"{name}_beyond_{where}"] = rms_beyond(x, values, centre, distance * SPACING)
    row["rkhs_norm"], row["clean_rkhs_norm"] = result["outlier_fit"]["rkhs_norm"], result["clean"]["rkhs_norm"]
    row["relative_residual"] = max(result[name]["relative_residual"] for name in ("clean", "outlier_fit"))
    return row


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The row of the table."""
    errors = ("disturbance_beyond_near", "disturbance_beyond_far", "error_beyond_near", "error_beyond_far")
    return (
        f"{row['kernel']}, bandwidth {row['bandwidth_in_spacings']:g} spacings",
        f"{row['width'] / SPACING:.2f}",
        *(f"{row[name]:.1e}" for name in (*errors, "clean_error_beyond_near")),
        f"{row['rkhs_norm']:.2f}",
        f"{row['clean_rkhs_norm']:.2f}",
        f"{row['relative_residual']:.0e}",
    )


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """That the Gaussian is disturbed widely, and the Laplacian at the outlier alone."""
    of = {name: [row for row in rows if row["kernel"] == name] for name in ("gaussian", "laplacian")}
    widths = {name: [row["width"] / SPACING for row in own] for name, own in of.items()}
    beyond = {name: [row["disturbance_beyond_near"] / row["size"] for row in own] for name, own in of.items()}
    at = ", ".join(f"{spacings:g}" for spacings in SPACINGS)
    said = {name: ", ".join(f"{value:.1f}" for value in values) for name, values in widths.items()}
    return [
        Claim(
            "The Gaussian distorts a wider neighbourhood of the outlier than the Laplacian, at every bandwidth",
            all(wide > narrow for wide, narrow in zip(widths["gaussian"], widths["laplacian"], strict=True)),
            f"at bandwidths of {at} spacings {said['gaussian']} spacings against {said['laplacian']}",
            REPORTS,
        ),
        Claim(
            f"The Laplacian spikes locally: beyond {NEAR:g} spacing it is not disturbed, the Gaussian is",
            max(beyond["laplacian"]) < 1e-6 < min(beyond["gaussian"]),
            f"rms there, of the outlier's size: Laplacian at most {max(beyond['laplacian']):.0e}, "
            f"Gaussian {min(beyond['gaussian']):.1%} to {max(beyond['gaussian']):.1%}",
            REPORTS,
        ),
    ]


def draw(upper: Axes, lower: Axes, kernel: KernelSpec, result: Result) -> None:
    """One kernel's fit with the outlier, and how far it is from that without."""
    x = result["grid"]
    fitted, clean = np.array(result["outlier_fit"]["values"]), np.array(result["clean"]["values"])
    style: dict[str, Any] = {"color": OF_KERNEL[kernel.name], "linewidth": 1.2}
    upper.plot(x, fitted, label=kernel.title, **style)
    lower.semilogy(x, np.maximum(np.abs(fitted - clean), 1e-300), **style)


def finish(upper: Axes, lower: Axes, result: Result) -> None:
    """The data, the threshold and the limits."""
    x, y = np.array(result["x"]), np.array(result["outlier_fit"]["y"])
    is_outlier = np.isclose(x, result["outlier"])
    upper.plot(x[~is_outlier], y[~is_outlier], "o", color=BLACK, markersize=2, label="training points")
    upper.plot(x[is_outlier], y[is_outlier], "*", color=BLACK, markersize=8, label="outlier")
    lower.axhline(THRESHOLD * Outlier.size, color=GREY, linestyle=":", linewidth=1.2)
    lower.text(0.01, THRESHOLD * Outlier.size * 1.3, f"{THRESHOLD:.0%}", color=GREY, va="bottom", fontsize=8)
    lower.set_ylim(1e-6, 10)  # what is below is rounding
    lower.set_xlabel("x")
