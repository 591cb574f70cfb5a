"""How far a search has come, and how long it will still take."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from kl.exact.equations import duration
from kl.kernels.kernel import Kernel
from kl.system.progress import Reports

log = logging.getLogger(__name__)

# Work in units of a factorisation with the columns of its inverse, per n^3. On two cores, n = 1000 to 3000, an
# eigen-decomposition was measured to take 12 to 18 times as long.
EIGEN, FACTOR = 15.0, 1.0


@dataclass(frozen=True)
class TuningProgress:
    """A report after each kernel and bandwidth."""

    stage: str
    done: int
    total: int
    """Kernels and bandwidths of the stage."""
    kernel: Kernel
    """The one that was scored."""
    seconds_left: float
    """An estimate for all stages; infinite as long as nothing is known."""

    def __str__(self) -> str:
        left = f", about {duration(self.seconds_left)} left" if math.isfinite(self.seconds_left) else ""
        return f"tuning on {self.stage}: {self.done} of {self.total} kernels and bandwidths{left}"


class Clock:
    """Estimates the time left from the work done, and passes reports on.

    Args:
        listener: is called with each report; None logs one every few seconds.
    """

    def __init__(self, listener: Callable[[TuningProgress], object] | None) -> None:
        self._pass_on = Reports(listener, log)
        self._spent, self._worked, self._later = 0.0, 0.0, 0.0

    def plan(self, work: float) -> None:
        """Set the work that later stages will need."""
        self._later = work

    def add(self, seconds: float, work: float) -> None:
        """Count work that was done now, not read from a file."""
        self._spent, self._worked = self._spent + seconds, self._worked + work

    def report(self, stage: str, done: int, total: int, kernel: Kernel, work: float) -> None:
        """Report; `work` is what is left of this stage."""
        rate = self._spent / self._worked if self._worked else math.inf
        left = work + self._later
        self._pass_on(TuningProgress(stage, done, total, kernel, rate * left if left else 0.0))
