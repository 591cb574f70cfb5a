"""The measurements of the benchmark, the tasks that make them, and the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

SCALES = ("quick", "full")
PARTS = ("limit", "epochs", "exact", "peers", "growth", "memory", "general", "tune", "patches")

# The targets: the largest ratios that are wanted. Each row of the table names the reference of its ratio.
EPOCH, EPOCH_FLOATS, EPOCH_LARGE, LARGE_FROM = 1.5, 1.3, 1.25, 60_000  # to the roofline
NORM_AND_ERROR, LIGHTNING = 0.03, 0.03
GROWS_WITH_N, GROWS_WITH_C = 2.0, 1.0  # the largest exponents
EXACT, EXACT_FROM = 0.5, 10_000
MEMORY = 1.0
GENERAL, DELAYED, DELAYED_FROM = 1.3, 0.2, 10_000
TUNE, TUNE_FROM = 0.1, 5_000
EXTRACTION, EXTRACTION_WITH_UNITS, FEATURES = 1.2, 0.6, 0.35


@dataclass(frozen=True)
class Measurement:
    """One row of the table."""

    part: str
    name: str
    n: int | None = None
    d: int | None = None
    seconds: float | None = None
    ratio: float | None = None
    """The ratio to the reference that `against` names."""
    against: str | None = None
    target: float | None = None
    """The ratio should be at most this; None without a target at this size."""
    error: str | None = None
    """Why there is no number, on one line."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Further measurements, and the parameters."""
    mm_ratio: float | None = None
    """Where the reference is another, the ratio to a plain float32 product of the same flops."""

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without a target or a ratio."""
        return None if self.target is None or self.ratio is None else self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        """The fields, and whether the target was reached."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Task:
    """A piece of work that gives measurements."""

    part: str
    name: str
    seconds: float
    """A first guess of how long it takes; the estimates shown are corrected by the tasks done before."""
    run: Callable[[], list[Measurement]]


def one_line(error: BaseException) -> str:
    """The kind and the first line of an exception's message, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")[:200]
