"""The statements of `features`: are directions found, does that help, and is the interpolation of noise harmless?"""

from __future__ import annotations

from recipes.reproduce.page.presentation import Claim
from recipes.reproduce.published import B18
from recipes.reproduce.table import DataFrame, groups, mean

RFM = "arXiv:2212.13881"
FOUND = 0.1  # the sine below which directions count as found: 6 degrees
NEAR = 0.05  # an error counts as near to the Bayes error within five points
TITLES = {"single-index": "sin(2 u)", "product": "u v", "parity": "tanh(3u) tanh(3v) tanh(3w)"}
PLAIN, LEARNT, LAST = "plain kernel", "learnt metric", "metric of the last round"
WAYS = (PLAIN, LEARNT, LAST)
THEORY = f"{RFM}, of which it is no statement"


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


def harmless_claim(noisy: DataFrame, way: str) -> Claim:
    """That noise costs the interpolant of a way no more than the plain kernel's, on clean test labels."""
    errors = noisy.groupby(["noise", "way"])["test_error"].agg(mean).unstack("way")
    rises, last = errors - errors.loc[0.0], errors.index.max()
    return Claim(
        f"{way}: label noise costs the interpolant no more than that of the plain kernel, though both fit all labels",
        bool((rises[way] <= rises[PLAIN]).all()),
        f"error on clean test labels at 0 and {last:.0%} noise: "
        + ", ".join(f"{each} {errors.loc[0.0, each]:.1%} and {errors.loc[last, each]:.1%}" for each in (PLAIN, way))
        + f"; {kept(noisy[noisy['way'] == way])}",
        THEORY,
    )


def norm_claim(noisy: DataFrame, way: str) -> Claim:
    """That noise multiplies the RKHS norm of a way's interpolant by no more than that of the plain kernel's."""
    norms = noisy.groupby(["noise", "way"])["rkhs_norm"].agg(mean).unstack("way")
    growth, last = norms / norms.loc[0.0], norms.index.max()
    return Claim(
        f"{way}: label noise multiplies the interpolant's RKHS norm by no more than that of the plain kernel",
        bool((growth[way] <= growth[PLAIN]).all()),
        f"{last:.0%} noise: " + ", ".join(f"{each} {growth.loc[last, each]:.2f} times" for each in (PLAIN, way)),
        THEORY,
    )


def kept(runs: DataFrame) -> str:
    """In how many noisy runs the round is that of the plain kernel, as text."""
    there = runs[runs["noise"] > 0]
    return f"{(there['round'] == 0).sum()} of {len(there)} runs with noise are of the plain kernel"
