"""What [B18] says of Synthetic 1 and 2, judged by our curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recipes.reproduce.page.presentation import Claim, mean_and_spread
from recipes.reproduce.published import B18, SYNTHETIC_2_SOURCE

if TYPE_CHECKING:
    from recipes.reproduce.experiments.synthetic import Series

SYNTHETIC_1_SOURCE = f"{B18} section 4, Synthetic 1"
ORDER = 10.0  # of magnitude
HARDLY = 1.25  # a norm that noise raises by less than a quarter is hardly changed; the paper has no number
SAME_ERROR = 0.02  # interpolated and overfitted errors that agree, as a fraction of all test rows


def claims_of(kind: int, series: Sequence[Series], n: int) -> list[Claim]:
    """The claims about one set, for each kernel, at n rows."""
    return [claim for kernel in dict.fromkeys(s.kernel.name for s in series) for claim in _of(kind, kernel, series, n)]


def _of(kind: int, kernel: str, series: Sequence[Series], n: int) -> list[Claim]:
    own = {(s.way, s.noise): s for s in series if s.kernel.name == kernel}
    noises = sorted({noise for _, noise in own})
    norm = {key: mean_and_spread(s.norms[n])[0] for key, s in own.items() if n in s.norms}
    error = {key: mean_and_spread(s.errors[n])[0] for key, s in own.items() if n in s.errors}
    exact = {noise: norm["interpolated", noise] for noise in noises}
    title = f"Synthetic {kind}, {own['interpolated', 0.0].kernel.title}"
    if kind == 2:
        return [hardly_changed(title, exact, n)]
    paired = {noise: (exact[noise], norm.get(("overfitted", noise))) for noise in noises}
    errors = {noise: (error["interpolated", noise], error.get(("overfitted", noise))) for noise in noises}
    overfitted = {noise: norm["overfitted", noise] for noise in noises if ("overfitted", noise) in norm}
    return [
        raised(title, "interpolated", exact, n),
        raised(title, "overfitted", overfitted, n),
        exceeds(title, paired, n),
        errors_agree(title, errors, n),
    ]


def raised(title: str, way: str, norms: Mapping[float, float], n: int) -> Claim:
    """That 1% noise raises the norm more than tenfold."""
    ratios = {noise: norms[noise] / norms[0.0] for noise in norms if noise and 0.0 in norms}
    seen = ", ".join(f"{ratio:.2f} times at {noise:.0%}" for noise, ratio in ratios.items())
    return Claim(
        f"{title}: 1% noise raises the {way} norm by more than an order of magnitude",
        ratios[0.01] > ORDER if 0.01 in ratios else None,
        f"n={n}: {seen or 'not fitted'} (ours goes to n={n}, at the median distance)",
        SYNTHETIC_1_SOURCE,
    )


def exceeds(title: str, norms: Mapping[float, tuple[float, float | None]], n: int) -> Claim:
    """That the interpolant's norm is the larger, at every level of noise; levels are pairs (exact, overfitted)."""
    verdicts = [None if other is None else exact > other for exact, other in norms.values()]
    return Claim(
        f"{title}: the interpolated norm exceeds the overfitted one, at every level of noise",
        False if False in verdicts else None if None in verdicts else True,
        f"n={n}: " + "; ".join(f"{noise:.0%} noise {_pair(norms[noise])}" for noise in norms),
        SYNTHETIC_1_SOURCE,
    )


def errors_agree(title: str, errors: Mapping[float, tuple[float, float | None]], n: int) -> Claim:
    """That both err alike, at every level of noise."""
    verdicts = [None if other is None else abs(exact - other) <= SAME_ERROR for exact, other in errors.values()]
    said = "; ".join(f"{noise:.0%} noise {_pair(errors[noise], percent=True)}" for noise in errors)
    return Claim(
        f"{title}: interpolated and overfitted test errors agree (within {SAME_ERROR:.0%} of the test rows)",
        False if False in verdicts else None if None in verdicts else True,
        f"n={n}: {said}",
        SYNTHETIC_1_SOURCE,
    )


def hardly_changed(title: str, norms: Mapping[float, float], n: int) -> Claim:
    """That noise does not raise the norm by a quarter."""
    ratios = {noise: norms[noise] / norms[0.0] for noise in norms if noise}
    seen = ", ".join(f"{ratio:.2f} times at {noise:.0%}" for noise, ratio in ratios.items())
    return Claim(
        f"{title}: noise hardly changes the interpolated norm (by less than {HARDLY - 1:.0%})",
        max(ratios.values()) < HARDLY and min(ratios.values()) > 1 / HARDLY,
        f"n={n}: {seen}",
        SYNTHETIC_2_SOURCE,
    )


def factor_sentence(by_kind: Mapping[int, Sequence[tuple[str, Sequence[float]]]]) -> str:
    """Whether another bandwidth would change what is said of the norm; norms of 0, 1, 10% noise by kernel."""
    best, (clean, one, _) = max(by_kind[1], key=lambda each: each[1][1] / each[1][0])
    worst = max(max(values) / values[0] for _, values in by_kind[2])
    found = "reached" if one / clean > ORDER else "not reached"
    return (
        f"At half, once and double the bandwidth: the order of magnitude at 1% noise is {found} on Synthetic 1 (at "
        f"most {one / clean:.1f} times, {best}); on Synthetic 2 noise raises the norm at most {worst:.2f} times."
    )


def _pair(values: tuple[float, float | None], percent: bool = False) -> str:
    said = ["not fitted" if v is None else f"{v:.2%}" if percent else f"{v:.4g}" for v in values]
    return " against ".join(said)
