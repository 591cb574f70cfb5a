"""The figures of `norm-growth`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.reproduce.analysis.growth import GROWTH_NOISES, grouped, interpolated
from recipes.reproduce.analysis.laws import Law
from recipes.reproduce.page.drawing import (
    CYCLE,
    OF_KERNEL,
    band,
    curve,
    legend_below,
    log_axis,
    noise_style,
    panels,
    rows_axis,
)
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.sweep.point import Result


def draw_against_n(axes: Axes, records: list[dict[str, Any]], name: str) -> None:
    """A colour for each level of noise; dashed: interpolated, the exact limit; solid: overfitted."""
    for way, line in (("interpolated", "--"), ("overfitted", "-")):
        for i, noise in enumerate(GROWTH_NOISES):
            sizes, groups = grouped(records, name, way=way, noise=noise, fitted=True)
            if sizes:
                band(axes, sizes, groups, f"{way}, {noise:.0%} noise", linestyle=line, **noise_style(i))


def draw_norms(name: str, kernels: tuple[KernelSpec, ...], records: list[dict[str, Any]]) -> Figure:
    """Norm against n: the paper's bandwidths above, the small one below."""
    figure, axes = panels(2, 2, width=3.4)
    for panel, kernel in zip(axes.flat, kernels, strict=True):
        own = [r for r in records if (r["kernel"], r["bandwidth"]) == (kernel.name, kernel.bandwidth)]
        draw_against_n(panel, own, "rkhs_norm")
        log_axis(panel, r"RKHS norm $|f|_H$" if kernel.name == "gaussian" else "")
        panel.set_title(f"{name}, {kernel.title}, bandwidth {kernel.bandwidth:g}", loc="left")
        rows_axis(panel, [record["n"] for record in own])
    for panel in axes[1]:  # sqrt(n): the norm where K is the identity
        sizes = sorted({record["n"] for record in records if record["bandwidth"] == kernels[-1].bandwidth})
        panel.plot(sizes, np.sqrt(sizes), color="black", linestyle=":", label=r"$\sqrt{n}$ (K = I)")
        panel.legend(*[part[-1:] for part in panel.get_legend_handles_labels()], loc="upper left")
    legend_below(figure, 3)
    return figure


def draw_classes(name: str, kernels: tuple[KernelSpec, ...], records: list[dict[str, Any]]) -> Figure:
    """The norm of each class's output against n, interpolated: a row for each kernel, a column for each level."""
    figure, axes = panels(len(kernels), len(GROWTH_NOISES), sharex=True, sharey="row")
    classes = sum(name.startswith("rkhs_norm_class_") for name in records[0])
    for row, kernel in enumerate(kernels):
        for column, noise in enumerate(GROWTH_NOISES):
            panel = axes[row, column]
            own = {"kernel": kernel.name, "noise": noise, "way": "interpolated"}
            sizes, _ = grouped(records, "rkhs_norm", **own)
            for k in range(classes):
                _, values = grouped(records, f"rkhs_norm_class_{k}", **own)
                band(panel, sizes, values, f"class {k}", color=[*CYCLE, "#8c5a2b"][k])
            log_axis(panel, "" if column else r"norm of an output $|f_k|_H$")
            panel.set_title(f"{kernel.title}, {noise:.0%} noise", loc="left")
            rows_axis(panel, [sizes[0], sizes[len(sizes) // 2], sizes[-1]], "n, training rows" if row else "")
    legend_below(figure, 5)
    return figure


def draw_laws(
    name: str,
    kernels: tuple[KernelSpec, ...],
    records: list[dict[str, Any]],
    laws: dict[tuple[str, float], tuple[Law, Law]],
) -> Figure:
    """The norms, both laws through them (above), and what they leave (below)."""
    figure, axes = panels(2, len(kernels), width=3.4, sharex="col", height_ratios=(3, 2))
    for column, kernel in enumerate(kernels):
        upper, lower = axes[:, column]
        for i, noise in enumerate(GROWTH_NOISES):
            sizes, norms = interpolated(records, kernel, noise)
            grid = np.geomspace(sizes[0], sizes[-1], 100)
            power, exponential = laws[kernel.name, noise]
            style = noise_style(i)
            upper.plot(sizes, norms, linestyle="none", label=f"{noise:.0%} noise", **style)
            upper.plot(grid, power(grid), color=style["color"], linewidth=1)
            upper.plot(grid, exponential(grid), color="black", linestyle=":", linewidth=1.6)
            curve(lower, sizes, 100 * (np.array(norms) / power(sizes) - 1), **style, linewidth=0.8)
        upper.plot([], [], color="grey", linewidth=1, label=r"$A n^b$")
        upper.plot([], [], color="black", linestyle=":", label=r"$A\,\exp(B n^{1/d})$, d features")
        log_axis(upper, "" if column else r"RKHS norm $|f^*|_H$")
        upper.set_title(f"{name}, {kernel.title} {kernel.bandwidth:g}", loc="left")
        lower.axhline(0, color="black", linewidth=0.8)
        rows_axis(lower, sizes)
    axes[1, 0].set_ylabel("off the power law, %")
    legend_below(figure, 3)
    return figure


def draw_spectra(
    name: str, pairs: Sequence[tuple[KernelSpec, KernelSpec]], spectra: dict[KernelSpec, Result]
) -> Figure:
    """Eigenvalues of K, in order: a panel for each pair of bandwidths."""
    figure, (axes,) = panels(1, len(pairs), width=3.4, sharey=True)
    for panel, pair in zip(axes, pairs, strict=True):
        for kernel, style in zip(pair, ("-", "--"), strict=True):
            values = spectra[kernel]["eigenvalues"]
            label = f"bandwidth {kernel.bandwidth:g}"
            panel.plot(range(1, len(values) + 1), values, style, color=OF_KERNEL[kernel.name], label=label)
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":", label="K = I")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(f"{name}, n={len(values)}, {kernel.title}", loc="left")
        panel.set_xlabel("rank i")
        panel.legend(loc="lower left")
    axes[0].set_ylabel("eigenvalue i of K")
    return figure
