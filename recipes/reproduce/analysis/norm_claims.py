"""The statements of `norm-growth`: laws of growth, the paper's claims, and why a small bandwidth shows nothing."""

from __future__ import annotations

import numpy as np

from recipes.reproduce.analysis.growth import GROWTH_NOISES, norms_by_n
from recipes.reproduce.analysis.laws import Law, best_dimension, fit_exponential, fit_power
from recipes.reproduce.page.presentation import Claim, Table
from recipes.reproduce.published import B18
from recipes.reproduce.table import DataFrame, Row, derived, mean

SAME = 0.1  # curves count as coinciding within 10%


def fit_laws(growth: DataFrame, d: int) -> DataFrame:
    """A row for each kernel and level of noise: `n` and `norm`, lists, and both laws through them.

    `dimensions` is the pair of `best_dimension`.
    """
    solved = growth[growth["way"] == "interpolated"]
    found = solved.groupby(["kernel", "noise"]).first().reset_index()
    norms = {(row.kernel, row.noise): norms_by_n(growth, row.spec, row.noise) for row in found.itertuples()}
    return derived(
        found,
        n=lambda row: list(norms[row["kernel"], row["noise"]].index),
        norm=lambda row: list(norms[row["kernel"], row["noise"]]),
        power=lambda row: fit_power(row["n"], row["norm"]),
        exponential=lambda row: fit_exponential(row["n"], row["norm"], d),
        dimensions=lambda row: best_dimension(row["n"], row["norm"], d),
    )


def law_table(laws: DataFrame, d: int) -> Table:
    """Exponents and residuals of both laws."""
    return Table.of(
        "laws of the interpolated norm, {set}, least squares in log |f|",
        laws,
        ("", "{spec}, {noise:.0%} noise"),
        ("A n^b: b", "{power.b:.3f}"),
        ("rms residual", "{power.residual:.4f}"),
        (f"A exp(B n^(1/{d})): B", "{exponential.b:.1f}"),
        ("rms residual", "{exponential.residual:.4f}"),
        ("best d", "{dimensions[0]}"),
        ("d from", "{dimensions[1]}"),
    )


def law_sentences(laws: DataFrame, d: int) -> list[str]:
    """What the laws can and cannot tell of growth from these n."""
    sizes = sorted({n for each in laws["n"] for n in each})
    grid, far = np.geomspace(sizes[0], sizes[-1], 50), np.array([100.0 * sizes[-1]])
    pairs = list(zip(laws["power"], laws["exponential"], strict=True))
    apart, beyond = (max(distance(p, e, at) for p, e in pairs) for at in (grid, far))
    misfit = max(power.residual for power, _ in pairs)
    seen = (
        f"n^(1/{d}) = 1 + (log n)/{d} + ..., so with d = {d} features A exp(B n^(1/{d})) is nearly a power of n: from "
        f"n={sizes[0]} to {sizes[-1]} the laws differ by at most {100 * apart:.2g}%, and the norms from the power law "
        f"by up to {100 * misfit:.2g}% (rms); at 100 times the largest n the laws would differ by {100 * beyond:.2g}%."
    )
    told = [
        f"{name} with {noise:.0%} noise grows more like the {'exponential' if e.residual < p.residual else 'power'} law"
        for name, noise, (p, e) in zip(laws["kernel"], laws["noise"], pairs, strict=True)
        if distance(p, e, grid) >= min(p.residual, e.residual)  # they differ by more than the better law's residual
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
    """The largest relative difference between two laws."""
    return float(np.abs(exponential(n) / power(n) - 1).max())


def noise_raises(growth: DataFrame) -> Claim:
    """That 1% noise raises the norm significantly; `growth` is of one kernel."""
    solved = growth[growth["way"] == "interpolated"].astype({"rkhs_norm": float})
    found = solved.groupby(["noise", "n"])["rkhs_norm"].agg(["mean", "std"])  # std of a single seed is NaN
    clean, noisy = found.loc[0.0], found.loc[0.01]
    ratios = noisy["mean"] / clean["mean"]
    spreads = np.hypot(clean["std"], noisy["std"]).clip(lower=1e-12)
    shifts = ((noisy["mean"] - clean["mean"]).abs() / spreads).dropna()
    last = shifts.iat[-1] if len(shifts) else None
    spread = "" if last is None else f"; {last:.1f} standard deviations at the largest n with several seeds"
    kernel, sizes = growth["spec"].iat[0], ratios.index
    return Claim(
        f"{kernel.title} {kernel.bandwidth:g}: 1% label noise raises the norm significantly",
        bool(ratios.iat[-1] > 1.1 and (last is None or last > 2)),
        f"by {ratios.iat[0] - 1:.0%} at n={sizes[0]}, by {ratios.iat[-1] - 1:.0%} at n={sizes[-1]}{spread}",
        f"{B18} Figure 4",
    )


def interpolated_exceeds(growth: DataFrame) -> Claim:
    """That the interpolant's norm exceeds that of the overfitted classifier on the same rows and labels."""
    kernel, fitted = growth["spec"].iat[0], growth[growth["fitted"].astype(bool)]
    norms = fitted.pivot(index=["n", "seed", "noise"], columns="way", values="rkhs_norm").astype(float)
    claim, source = (
        f"{kernel.title} {kernel.bandwidth:g}: the interpolated norm exceeds the overfitted one",
        f"{B18} section 4",
    )
    if "overfitted" not in norms:
        return Claim(claim, None, "no overfitted run was finished", source)
    ratios = (norms["interpolated"] / norms["overfitted"]).dropna()
    n, _, noise = ratios.idxmin()
    seen = f"{ratios.min():.2f} (n={n}, {noise:.0%} noise) to {ratios.max():.2f} times it"
    return Claim(claim, bool(ratios.min() > 1), seen, source)


def coincide(growth: DataFrame) -> Claim:
    """That at the small bandwidth the curves of all levels of noise coincide."""
    kernel = growth["spec"].iat[0]
    norms = growth.groupby(["n", "noise"])["rkhs_norm"].agg(mean).unstack("noise")
    apart = float((norms.div(norms[0.0], axis="index") - 1).abs().max().max())
    return Claim(
        f"{kernel.title} {kernel.bandwidth:g}: the norms with 0, 1 and 10% noise are indistinguishable",
        apart <= SAME,
        f"at most {100 * apart:.1f}% apart from n={norms.index[0]} to {norms.index[-1]}",
        "two student reports",
    )


def identity_table(spectra: DataFrame) -> Table:
    """How near each K is to the identity."""
    return Table.of(
        "how near K is to the identity",
        derived(
            spectra,
            median=lambda row: row["eigenvalues"][len(row["eigenvalues"]) // 2],
            least=lambda row: row["eigenvalues"][-1],
            near=lambda row: share_near_one(row["eigenvalues"]),
        ),
        ("eigenvalues of K", "{spec}, n={n}"),
        ("largest", "{eigenvalues[0]:.1f}"),
        ("median", "{median:.3g}"),
        ("least", "{least:.2g}"),
        ("in 0.5 to 2", "{near:.0%}"),
        ("mean K(x, z), x not z", "{mean_off_diagonal:.2g}"),
    )


def share_near_one(values: list[float]) -> float:
    """The share of eigenvalues between 0.5 and 2."""
    return sum(0.5 < value < 2 for value in values) / len(values)


def identity_sentence(growth: DataFrame, spectrum: Row) -> str:
    """Whether K at a small bandwidth is so near to the identity that norms do not depend on the labels."""
    kernel = growth["spec"].iat[0]
    norms = norms_by_n(growth, kernel, max(GROWTH_NOISES))
    near = share_near_one(spectrum["eigenvalues"])
    seen = (
        f"{kernel.title} at bandwidth {kernel.bandwidth:g}: {near:.0%} of K's eigenvalues at n={spectrum['n']} "
        f"lie between 0.5 and 2; at n={norms.index[-1]} with {max(GROWTH_NOISES):.0%} noise |f*|^2 / n = "
        f"{norms.iat[-1] ** 2 / norms.index[-1]:.2f}"
    )
    if near < 0.9:
        return f"{seen}. K is not close to the identity there."
    return (
        f"{seen}. The nearer K is to the identity, the nearer alpha* is to Y and |f*|^2 to n, whatever the labels are."
    )
