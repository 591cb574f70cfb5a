"""The figures of `norm-growth`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.reproduce.analysis.growth import GROWTH_NOISES
from recipes.reproduce.page.drawing import (
    CYCLE,
    OF_KERNEL,
    Style,
    counts,
    finish,
    log,
    name_once,
    noise_look,
    panel,
    panels,
    scale,
    way_look,
)
from recipes.reproduce.table import DataFrame, Row, groups, table


def draw_against_n(axes: Axes, growth: DataFrame, name: str, **options: Any) -> None:
    """A curve for each way of fitting and level of noise."""
    fitted, label = growth[growth["fitted"].astype(bool)], "{way}, {noise:.0%} noise"
    panel(axes, fitted, "n", name, ["way", "noise"], way_look, label=label, band=True, **options)


def draw_norms(growth: DataFrame) -> Figure:
    """Norm against n: the paper's bandwidths above, the small one below."""
    figure, axes = panels(2, 2, width=3.4)
    for each, own in zip(axes.flat, groups(growth, "spec"), strict=True):
        draw_against_n(each, own, "rkhs_norm", title="{set}, {spec.title}, bandwidth {bandwidth:g}")
    sizes = sorted(set(own["n"]))
    for each in axes[1]:  # sqrt(n) is the norm if K is the identity
        each.plot(sizes, np.sqrt(sizes), color="black", linestyle=":", label=r"$\sqrt{n}$ (K = I)")
        each.legend(*[part[-1:] for part in each.get_legend_handles_labels()], loc="upper left")
    finish(figure, 3)
    return figure


def draw_classes(growth: DataFrame) -> Figure:
    """The norm of each class's output against n, interpolated: a row for each kernel, a column for each level."""

    def look(row: Row) -> Style:
        return {"color": [*CYCLE, "#8c5a2b"][row["class"]]}

    solved = growth[growth["way"] == "interpolated"].reset_index(drop=True)
    solved["class"] = [range(len(norms)) for norms in solved["rkhs_norm_per_class"]]
    outputs = solved.explode(["class", "rkhs_norm_per_class"])
    figure, axes = panels(outputs["kernel"].nunique(), len(GROWTH_NOISES), sharex=True, sharey="row")
    sizes = sorted(set(outputs["n"]))
    few = [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    scales: Style = {"across": counts(at=few), "up": log(r"norm of an output $|f_k|_H$")}
    for row, of_kernel in zip(axes, groups(outputs, "kernel"), strict=True):
        for each, own in zip(row, groups(of_kernel, "noise"), strict=True):
            named: Style = {"label": "class {class}", "title": "{spec.title}, {noise:.0%} noise"}
            panel(each, own, "n", "rkhs_norm_per_class", "class", look, band=True, **named, **scales)
    finish(figure, 5)
    return figure


def draw_laws(laws: DataFrame) -> Figure:
    """The norms with both laws (above), and their deviation from the power law (below)."""
    figure, axes = panels(2, laws["kernel"].nunique(), width=3.4, sharex="col", height_ratios=(3, 2))
    named: Style = {"label": "{noise:.0%} noise", "title": "{set}, {spec.title} {bandwidth:g}"}
    for (upper, lower), own in zip(axes.T, groups(laws, "kernel"), strict=True):
        for law in own.to_dict("records"):
            n, norm, power, exponential = (law[name] for name in ("n", "norm", "power", "exponential"))
            grid = np.geomspace(n[0], n[-1], 100)
            seen = table({**law, "n": at, "norm": each} for at, each in zip(n, norm, strict=True))
            seen["off"] = 100 * (np.array(norm) / power(n) - 1)
            colour = noise_look(law)["color"]
            panel(upper, seen, "n", "norm", None, noise_look, linestyle="none", **named)
            upper.plot(grid, power(grid), color=colour, linewidth=1)
            upper.plot(grid, exponential(grid), color="black", linestyle=":", linewidth=1.6)
            panel(lower, seen, "n", "off", None, noise_look, linewidth=0.8, up=scale("off the power law, %"))
        upper.plot([], [], color="grey", linewidth=1, label=r"$A n^b$")
        upper.plot([], [], color="black", linestyle=":", label=r"$A\,\exp(B n^{1/d})$, d features")
        log(r"RKHS norm $|f^*|_H$")(upper.yaxis)
        lower.axhline(0, color="black", linewidth=0.8)
    finish(figure, 3)
    return figure


def draw_spectra(spectra: DataFrame) -> Figure:
    """Eigenvalues of K, in order: a panel for each kernel; dashed: the small bandwidth."""

    def look(row: Row) -> Style:
        return {"color": OF_KERNEL[row["kernel"]], "linestyle": "--" if row["small"] else "-"}

    figure, (axes,) = panels(1, spectra["kernel"].nunique(), width=3.4, sharey=True)
    spectra = spectra.assign(rank=[range(1, len(values) + 1) for values in spectra["eigenvalues"]])
    for each, own in zip(axes, groups(spectra.explode(["rank", "eigenvalues"]), "kernel"), strict=True):
        named: Style = {"label": "bandwidth {bandwidth:g}", "title": "{set}, n={n}, {spec.title}"}
        scales: Style = {"across": scale("rank i", 10), "up": scale("eigenvalue i of K", 10)}
        panel(each, own, "rank", "eigenvalues", "bandwidth", look, **named, **scales)
        each.axhline(1, color="black", linewidth=0.8, linestyle=":", label="K = I")
        each.legend(loc="lower left")
    name_once(figure)
    return figure
