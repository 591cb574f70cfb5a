"""Bounds on the size and time of an exact limit that a run can do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kl.checks import check_count, check_positive
from kl.errors import KLError
from kl.exact.equations import Progress, duration
from kl.system.wording import counted

MAX_ROWS = 100_000
MAX_SECONDS = 1800.0


@dataclass(frozen=True)
class Patience:
    """The most rows and seconds for an exact limit that a run can do without; with it, the solve logs its seconds.

    Raises:
        InputError: a value is out of its range.
    """

    max_rows: int = MAX_ROWS
    """The n above which no interpolant is solved for."""
    max_seconds: float = MAX_SECONDS
    """Seconds after which conjugate gradients are ended; least squares end once their estimate is longer."""

    def __post_init__(self) -> None:
        check_count("max_rows", self.max_rows)
        check_positive("max_seconds", self.max_seconds)

    def require_rows(self, n: int) -> None:
        """Check that there are not too many rows.

        Raises:
            KLError: there are more than `max_rows`.
        """
        if n > self.max_rows:
            raise KLError(
                f"n={n} training rows are more than max_rows={self.max_rows} (the time grows as n^2 at least): use "
                f"{self.max_rows} rows or less, or ExactInterpolation(max_rows={n}) from Python"
            )

    def ends(self, solver: str, seconds: float) -> bool:
        """Whether a solve is ended because it takes these seconds; a direct solve, once it has begun, is not."""
        return solver == "pcg" and seconds > self.max_seconds

    def listener(self) -> Callable[[Progress], None]:
        """A listener of `Progress` that raises a KLError if the solve takes too long, counted from now."""
        start = time.monotonic()

        def listen(progress: Progress) -> None:
            if progress.solver == "least squares" and progress.seconds_left > self.max_seconds:
                raise KLError(
                    f"least squares would take about {duration(progress.seconds_left)}, more than "
                    f"max_seconds={self.max_seconds:g}: use fewer centers"
                )
            if self.ends(progress.solver, time.monotonic() - start):
                raise KLError(
                    f"conjugate gradients took more than max_seconds={self.max_seconds:g} (relative residual "
                    f"{progress.relative_residual:.1e} after {counted(int(progress.done), 'iteration')}): go on with "
                    "`kl interpolate` and the same options, or give a ridge"
                )

        return listen
