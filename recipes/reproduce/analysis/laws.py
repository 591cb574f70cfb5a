"""Laws of growth fitted to norms: A exp(B n^(1/d)) and a power law. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Law:
    """log |f|_H = a + b u(n), fitted by least squares.

    u(n) = n^(1/d) is [B18] Theorem 1's bound A exp(B n^(1/d)) with A = exp(a) and B = b; u(n) = log n is the power law
    A n^b.
    """

    name: str
    a: float
    b: float
    exponent: float | None
    """1/d; None for the power law."""
    residual: float
    """Root mean square of the residuals of log |f|_H."""

    def __call__(self, n: Sequence[float] | np.ndarray) -> np.ndarray:
        """|f|_H at n."""
        return np.exp(self.a + self.b * _scale(np.asarray(n, dtype=float), self.exponent))


def fit_power(n: Sequence[float], norms: Sequence[float]) -> Law:
    """The law A n^b."""
    return _fit("A n^b", n, norms, None)


def fit_exponential(n: Sequence[float], norms: Sequence[float], d: float) -> Law:
    """The law A exp(B n^(1/d))."""
    return _fit(f"A exp(B n^(1/{d:g}))", n, norms, 1 / d)


def best_dimension(n: Sequence[float], norms: Sequence[float], largest: int) -> tuple[int, int]:
    """The d from 1 to `largest` whose exponential law fits best, and the least d whose fit is as good within 5%.

    If the second is far below the first, the data does not determine d.
    """
    residuals = [fit_exponential(n, norms, d).residual for d in range(1, largest + 1)]
    best = int(np.argmin(residuals))
    least = next(i for i, value in enumerate(residuals) if value <= 1.05 * residuals[best] + 1e-12)
    return best + 1, least + 1


def _fit(name: str, n: Sequence[float], norms: Sequence[float], exponent: float | None) -> Law:
    u, y = _scale(np.asarray(n, dtype=float), exponent), np.log(np.asarray(norms, dtype=float))
    # Centred, because n^(1/d) is close to 1 for a large d, so b and a would cancel.
    centre = u.mean()
    b = float(((u - centre) * y).sum() / ((u - centre) ** 2).sum())
    a = float(y.mean() - b * centre)
    residual = y - y.mean() - b * (u - centre)
    return Law(name, a, b, exponent, float(np.sqrt(np.mean(residual**2))))


def _scale(n: np.ndarray, exponent: float | None) -> np.ndarray:
    return np.log(n) if exponent is None else n**exponent
