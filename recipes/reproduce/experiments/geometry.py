"""How far one wrong target reaches: a sinusoid with an outlier, interpolated by both kernels."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from callbacks.figures import BLACK, GREY
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, kernel_look, panel, panels, scale
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.outlier import Outlier
from recipes.reproduce.points.sample import KernelSpec, gaussian, laplacian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Row, groups, rows_of, sweep_table, table

SPACING = 1 / (Outlier.n - 1)
# On regular points the condition number of the Gaussian is about exp(pi^2 c^2 / 2) / 2 at c spacings: 2e8 at 2,
# and 1e19, singular in float64, at 3.
SPACINGS = (0.5, 1.0, 2.0)
THRESHOLD = 0.05  # share of the outlier's size above which the interpolant counts as disturbed
NEAR, FAR = 1.0, 5.0  # spacings from the outlier
COLUMNS = (
    "kernel bandwidth bandwidth_in_spacings n size width disturbance_beyond_near disturbance_beyond_far "
    "error_beyond_near error_beyond_far clean_error_beyond_near clean_error_beyond_far rkhs_norm clean_rkhs_norm "
    "relative_residual"
)
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
        fits = rows_of(sweep_table(self.points(setting, results), results))
        found = table({**fit, **measure(fit)} for fit in fits)
        figure, axes = panels(2, len(SPACINGS), width=2.5, sharex=True, sharey="row")
        for (upper, lower), own in zip(axes.T, groups(found, "bandwidth_in_spacings"), strict=True):
            draw(upper, lower, own)
        finish(figure)
        return Presentation(
            figures={"geometry": figure},
            rows=rows_of(found, COLUMNS),
            claims=claims(found),
            tables=[
                Table.of(
                    f"one target of {Outlier.n} moved by {Outlier.size:g}; lengths in spacings of {SPACING:g}",
                    found.assign(width=found["width"] / SPACING),
                    ("", "{kernel}, bandwidth {bandwidth_in_spacings:g} spacings"),
                    (f"width above {THRESHOLD:.0%}", "{width:.2f}"),
                    (f"rms disturbance beyond {NEAR:g}", "{disturbance_beyond_near:.1e}"),
                    (f"beyond {FAR:g}", "{disturbance_beyond_far:.1e}"),
                    (f"rms error beyond {NEAR:g}", "{error_beyond_near:.1e}"),
                    (f"beyond {FAR:g}", "{error_beyond_far:.1e}"),
                    ("without outlier", "{clean_error_beyond_near:.1e}"),
                    ("norm", "{rkhs_norm:.2f}"),
                    ("without outlier", "{clean_rkhs_norm:.2f}"),
                    ("relative residual", "{relative_residual:.0e}"),
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
                f"solves are direct; the largest relative residual is {found['relative_residual'].max():.0e}.",
            ],
        )


def kernels(spacings: float) -> tuple[KernelSpec, KernelSpec]:
    """Both kernels with a bandwidth of this many spacings."""
    return gaussian(spacings * SPACING), laplacian(spacings * SPACING)


def disturbed_length(
    x: np.ndarray,  # shape: (m,)
    difference: np.ndarray,  # shape: (m,)
    threshold: float,
) -> float:
    """The length of {x : |f_outlier(x) - f_clean(x)| > threshold}: one step of the regular grid for each such point.

    If the difference oscillates, the set has gaps, which are not counted.
    """
    return float((np.abs(difference) > threshold).sum() * (x[1] - x[0]))


def rms_beyond(
    x: np.ndarray,  # shape: (m,)
    values: np.ndarray,  # shape: (m,)
    centre: float,
    distance: float,
) -> float:
    """The root of the mean of values^2 over |x - centre| > distance."""
    # The factor keeps a point exactly at the distance from counting as beyond it by rounding.
    return float(np.sqrt(np.mean(values[np.abs(x - centre) > distance * (1 + 1e-9)] ** 2)))


def measure(fit: Row) -> Row:
    """The numbers of one kernel and bandwidth, and `fitted` and `difference` on the grid."""
    x = np.array(fit["grid"])
    clean, fitted = (np.array(fit[name]["values"]) for name in ("clean", "outlier_fit"))
    truth, point = np.sin(2 * np.pi * x), fit["point"]
    row: Row = {
        "bandwidth_in_spacings": fit["bandwidth"] / SPACING,
        "n": point.n,
        "size": point.size,
        "width": disturbed_length(x, fitted - clean, THRESHOLD * point.size),
        "fitted": fitted,
        "difference": np.maximum(np.abs(fitted - clean), 1e-300),
    }
    for name, values in (("disturbance", fitted - clean), ("error", fitted - truth), ("clean_error", clean - truth)):
        for where, distance in (("near", NEAR), ("far", FAR)):
            row[f"{name}_beyond_{where}"] = rms_beyond(x, values, fit["outlier"], distance * SPACING)
    row["rkhs_norm"], row["clean_rkhs_norm"] = fit["outlier_fit"]["rkhs_norm"], fit["clean"]["rkhs_norm"]
    row["relative_residual"] = max(fit[name]["relative_residual"] for name in ("clean", "outlier_fit"))
    return row


def claims(found: DataFrame) -> list[Claim]:
    """That the Gaussian is disturbed widely, and the Laplacian only at the outlier."""
    of = {name: found[found["kernel"] == name] for name in ("gaussian", "laplacian")}
    widths = {name: list(own["width"] / SPACING) for name, own in of.items()}
    beyond = {name: list(own["disturbance_beyond_near"] / own["size"]) for name, own in of.items()}
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


def draw(upper: Axes, lower: Axes, found: DataFrame) -> None:
    """Draw each kernel's fit with the outlier, and below it the distance to the fit without it, with the threshold."""
    curves, first = found.explode(["grid", "fitted", "difference"]), found.iloc[0]
    plural = "" if first["bandwidth_in_spacings"] == 1 else "s"
    title = f"bandwidth {{bandwidth:g}} ({{bandwidth_in_spacings:g}} spacing{plural})"
    thin: Style = {"look": kernel_look, "marker": None, "linewidth": 1.2}
    panel(upper, curves, "grid", "fitted", "kernel", label="{spec.title}", title=title, up=scale("f(x)"), **thin)
    away = scale("|f with outlier - f without|", 10)
    panel(lower, curves, "grid", "difference", "kernel", across=scale("x"), up=away, **thin)
    x, y = np.array(first["x"]), np.array(first["outlier_fit"]["y"])
    is_outlier = np.isclose(x, first["outlier"])
    upper.plot(x[~is_outlier], y[~is_outlier], "o", color=BLACK, markersize=2, label="training points")
    upper.plot(x[is_outlier], y[is_outlier], "*", color=BLACK, markersize=8, label="outlier")
    lower.axhline(THRESHOLD * Outlier.size, color=GREY, linestyle=":", linewidth=1.2)
    lower.text(0.01, THRESHOLD * Outlier.size * 1.3, f"{THRESHOLD:.0%}", color=GREY, va="bottom", fontsize=8)
    lower.set_ylim(1e-6, 10)  # smaller values are rounding errors
