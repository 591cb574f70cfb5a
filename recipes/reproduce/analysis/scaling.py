"""How the cost of training scales with the batch size: slopes, and where larger batches stop to pay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipes.reproduce.points.sample import KernelSpec

BELOW, ABOVE = 1 / 4, 3.0  # what counts as well below and well above m*, in units of m*
RESOLVED = 1.5  # epochs: the first one takes most of the mse away, and what is within it is not resolved


@dataclass(frozen=True)
class Curve:
    """One kernel and rank q: what each batch size needed. Runs that did not come to the target are not in it."""

    kernel: KernelSpec
    q: int
    critical: int  # m*
    m: tuple[int, ...]
    epochs: tuple[float, ...]
    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    missed: tuple[int, ...]  # batch sizes that did not come to the target

    def slope(self, low: float, high: float) -> float | None:
        """d log(steps) / d log(m) over the batch sizes between `low` and `high`; None where two are not resolved."""
        chosen = [(m, steps) for m, steps in zip(self.m, self.steps, strict=True) if low <= m <= high]
        if len(chosen) < 2 or min(self.epochs) < RESOLVED:
            return None
        return log_slope(*zip(*chosen, strict=True))

    @property
    def below(self) -> float | None:
        """The slope well below m*."""
        return self.slope(0, BELOW * self.critical)

    @property
    def above(self) -> float | None:
        """The slope well above m*."""
        return self.slope(ABOVE * self.critical, math.inf)

    @property
    def quickest(self) -> tuple[float, int]:
        """The least seconds, and the batch size that took them."""
        return min(zip(self.seconds, self.m, strict=True))

    @property
    def knee(self) -> float | None:
        """The critical batch size as the runs show it; None where they end before 2 m*, or take too few epochs."""
        if len(self.m) < 3 or self.m[-1] < 2 * self.critical or min(self.epochs) < RESOLVED:
            return None
        return saturation(self.m, self.epochs)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent a of the power law y = b x^a that fits best on logarithmic axes."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def saturation(m: Sequence[float], epochs: Sequence[float]) -> float | None:
    """m_c of epochs = E (1 + m / m_c), least squares of the relative error; None where epochs do not grow with m.

    A step of m rows is worth as much as m/(1 + m/m_c) of them one by one: all of them well below m_c, half at m_c.
    """
    rows, values = np.asarray(m, float), np.asarray(epochs, float)
    design = np.stack([1 / values, rows / values], axis=1)
    constant, growth = np.linalg.lstsq(design, np.ones(len(rows)), rcond=None)[0]
    grows = growth * rows.max() > 1e-6 * constant > 0  # beyond rounding
    return float(constant / growth) if grows else None
