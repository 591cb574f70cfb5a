"""What `norm-growth` says: laws of growth, the paper's statements, and why a small bandwidth shows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.reproduce.analysis.growth import GROWTH_NOISES, grouped, interpolated
from recipes.reproduce.analysis.laws import Law, best_dimension, fit_exponential, fit_power
from recipes.reproduce.page.presentation import Claim, Table
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import B18
from recipes.reproduce.sweep.point import Result

SAME = 0.1  # curves count as coinciding within 10%


def fit_laws(
    kernels: tuple[KernelSpec, ...], records: list[dict[str, Any]], d: int
) -> tuple[list[tuple[str, ...]], dict[tuple[str, float], tuple[Law, Law]]]:
    """Rows of the table, and the two laws by kernel and noise."""
    rows: list[tuple[str, ...]] = []
    laws: dict[tuple[str, float], tuple[Law, Law]] = {}
    for kernel in kernels:
        for noise in GROWTH_NOISES:
            sizes, norms = interpolated(records, kernel, noise)
            power, exponential = fit_power(sizes, norms), fit_exponential(sizes, norms, d)
            best, least = best_dimension(sizes, norms, d)
            laws[kernel.name, noise] = power, exponential
            rows.append(
                (
                    f"{kernel}, {noise:.0%} noise",
                    f"{power.b:.3f}",
                    f"{power.residual:.4f}",
                    f"{exponential.b:.1f}",
                    f"{exponential.residual:.4f}",
                    str(best),
                    str(least),
                )
            )
    return rows, laws


def law_sentences(laws: dict[tuple[str, float], tuple[Law, Law]], sizes: list[int], d: int) -> list[str]:
    """What the laws can and cannot tell of growth from these n."""
    grid, far = np.geomspace(sizes[0], sizes[-1], 50), np.array([100.0 * sizes[-1]])
    apart, beyond = (max(distance(p, e, at) for p, e in laws.values()) for at in (grid, far))
    misfit = max(power.residual for power, _ in laws.values())
    seen = (
        f"n^(1/{d}) = 1 + (log n)/{d} + ..., so with d = {d} features A exp(B n^(1/{d})) is nearly a power of n: from "
        f"n={sizes[0]} to {sizes[-1]} the laws differ by at most {100 * apart:.2g}%, and the norms from the power law "
        f"by up to {100 * misfit:.2g}% (rms); at 100 times the largest n the laws would differ by {100 * beyond:.2g}%."
    )
    told = [
        f"{name} with {noise:.0%} noise grows more like the {'exponential' if e.residual < p.residual else 'power'} law"
        for (name, noise), (p, e) in laws.items()
        if distance(p, e, grid) >= min(p.residual, e.residual)  # the laws are further apart than the better one is off
    ]
    seen += (
        f" {'; '.join(told)}." if told else (" These data cannot tell growth like exp(B n^(1/d)) from a power of n.")
    )
    return [
        seen,
        "Best d: the dimension from 1 to d whose exponential law fits best; d from: the least that fits as well within "
        "5%. A law whose dimension is fitted, too, has a parameter more than the power law.",
    ]


def distance(power: Law, exponential: Law, n: np.ndarray) -> float:
    """How far two laws are apart at most, relatively."""
    return float(np.abs(exponential(n) / power(n) - 1).max())


def noise_raises(kernel: KernelSpec, records: list[dict[str, Any]]) -> Claim:
    """That 1% noise raises the norm significantly."""
    clean, noisy = (
        grouped(records, "rkhs_norm", kernel=kernel.name, noise=noise, way="interpolated") for noise in (0.0, 0.01)
    )
    ratios = [np.mean(b) / np.mean(a) for a, b in zip(clean[1], noisy[1], strict=True)]
    shifts = [
        abs(np.mean(b) - np.mean(a)) / max(np.hypot(np.std(a, ddof=1), np.std(b, ddof=1)), 1e-12)
        for a, b in zip(clean[1], noisy[1], strict=True)
        if len(a) > 1
    ]
    last = shifts[-1] if shifts else None
    holds = bool(ratios[-1] > 1.1 and (last is None or last > 2))
    spread = "" if last is None else f"; {last:.1f} standard deviations at the largest n with several seeds"
    return Claim(
        f"{kernel.title} {kernel.bandwidth:g}: 1% label noise raises the norm significantly",
        holds,
        f"by {ratios[0] - 1:.0%} at n={clean[0][0]}, by {ratios[-1] - 1:.0%} at n={clean[0][-1]}{spread}",
        f"{B18} Figure 4",
    )


def interpolated_exceeds(kernel: KernelSpec, records: list[dict[str, Any]]) -> Claim:
    """That the interpolant's norm exceeds that of the overfitted classifier on the same rows and labels."""
    norms: dict[str, dict[Any, float]] = {"interpolated": {}, "overfitted": {}}
    for record in records:
        if record["kernel"] == kernel.name and record["fitted"]:
            norms[record["way"]][record["n"], record["seed"], record["noise"]] = record["rkhs_norm"]
    ratios = {key: norms["interpolated"][key] / value for key, value in norms["overfitted"].items()}
    claim, source = (
        f"{kernel.title} {kernel.bandwidth:g}: the interpolated norm exceeds the overfitted one",
        f"{B18} section 4",
    )
    if not ratios:
        return Claim(claim, None, "no overfitted run was finished", source)
    least, most = min(ratios, key=lambda key: ratios[key]), max(ratios.values())
    seen = f"{ratios[least]:.2f} (n={least[0]}, {least[2]:.0%} noise) to {most:.2f} times it"
    return Claim(claim, ratios[least] > 1, seen, source)


def coincide(kernel: KernelSpec, records: list[dict[str, Any]]) -> Claim:
    """That at the small bandwidth the curves of all levels of noise coincide."""
    own = {noise: interpolated(records, kernel, noise) for noise in GROWTH_NOISES}
    sizes, clean = own[0.0]
    apart = max(abs(value / base - 1) for noise in own for value, base in zip(own[noise][1], clean, strict=True))
    return Claim(
        f"{kernel.title} {kernel.bandwidth:g}: the norms with 0, 1 and 10% noise are indistinguishable",
        apart <= SAME,
        f"at most {100 * apart:.1f}% apart from n={sizes[0]} to {sizes[-1]}",
        "two student reports",
    )


def identity_table(spectra: dict[KernelSpec, Result]) -> Table:
    """How near each K is to the identity."""
    rows = []
    for kernel, found in spectra.items():
        values = found["eigenvalues"]
        rows.append(
            (
                f"{kernel}, n={found['n']}",
                f"{values[0]:.1f}",
                f"{values[len(values) // 2]:.3g}",
                f"{values[-1]:.2g}",
                f"{share_near_one(values):.0%}",
                f"{found['mean_off_diagonal']:.2g}",
            )
        )
    header = ("eigenvalues of K", "largest", "median", "least", "in 0.5 to 2", "mean K(x, z), x not z")
    return Table("how near K is to the identity", header, rows)


def share_near_one(values: list[float]) -> float:
    """The share of eigenvalues between 0.5 and 2."""
    return sum(0.5 < value < 2 for value in values) / len(values)


def identity_sentence(kernel: KernelSpec, records: list[dict[str, Any]], spectrum: Result) -> str:
    """Why nothing shows at a small bandwidth, where it is so."""
    sizes, norms = interpolated(records, kernel, max(GROWTH_NOISES))
    near = share_near_one(spectrum["eigenvalues"])
    seen = (
        f"{kernel.title} at bandwidth {kernel.bandwidth:g}: {near:.0%} of K's eigenvalues at n={spectrum['n']} "
        f"lie between 0.5 and 2; at n={sizes[-1]} with {max(GROWTH_NOISES):.0%} noise |f*|^2 / n = "
        f"{norms[-1] ** 2 / sizes[-1]:.2f}"
    )
    if near < 0.9:
        return f"{seen}. K is not close to the identity there."
    return (
        f"{seen}. The nearer K is to the identity, the nearer alpha* is to Y and |f*|^2 to n, whatever the labels are."
    )
