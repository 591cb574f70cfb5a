"""The options of EigenPro, each a number or "auto", read and checked in one place."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, TypeVar

from kl.checks import check_not_negative, check_positive, plain
from kl.errors import InputError
from kl.system.wording import counted

log = logging.getLogger(__name__)

PLAIN_SUBSAMPLE = 2000  # the step size of plain kernel SGD is estimated on at most this many rows
Auto = int | str
Size = TypeVar("Size", int, int | None)


@dataclass(frozen=True)
class EigenProOptions:
    """The parameters that the user asked for; None leaves the choice to the plan. `parse` reads and checks them.

    Attributes:
        batch_size: m, rows.
        step_size: eta.
        top_q: q, eigendirections to damp; 0 is plain kernel SGD.
        subsample: s, Nystrom rows.
        ridge: what training adds to the diagonal of K(X, X), not multiplied by n.
    """

    batch_size: int | None = None
    step_size: float | None = None
    top_q: int | None = None
    subsample: int | None = None
    ridge: float = 0.0

    @classmethod
    def parse(
        cls,
        batch_size: Auto = "auto",
        step_size: float | str = "auto",
        top_q: Auto = "auto",
        subsample: Auto = "auto",
        ridge: float = 0.0,
    ) -> EigenProOptions:
        """Read the options as users write them: "auto" or numbers, including those of NumPy and torch.

        Raises:
            InputError: an option is neither "auto" nor in its range.
        """
        step_size = plain(step_size)
        return cls(
            batch_size=parse_size("batch_size", batch_size, 1),
            step_size=None if step_size == "auto" else check_positive("step_size", step_size, 'or "auto"'),
            top_q=parse_size("top_q", top_q, 0),
            subsample=parse_size("subsample", subsample, 1),
            ridge=check_not_negative("ridge", plain(ridge)),
        )

    def subsample_of(self, n: int) -> int:
        """s for n centres, at most n.

        Plain SGD (q = 0) has no preconditioner, but its step size is estimated on a subsample.
        """
        s = default_subsample(n) if self.subsample is None else min(self.subsample, n)
        return min(s, PLAIN_SUBSAMPLE) if self.top_q == 0 else s


def default_subsample(n: int) -> int:
    """s: 2000 rows for n up to 10^5 (Ma, Belkin 2019), 5000 beyond, never more than n."""
    return min(n, 2000 if n <= 100_000 else 5000)


def parse_size(name: str, value: Any, low: int) -> int | None:
    """A whole number of at least `low`; None if the value is "auto".

    Raises:
        InputError: the value is neither.
    """
    value = plain(value)
    if isinstance(value, str) and value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{name} must be auto or an integer of at least {low}; got {value!r}")
    return value


def at_most(name: str, value: Size, high: int, row: str) -> Size:
    """`value`, clipped to `high` with a message; None stays None.

    Args:
        name: what the message calls the value.
        value: rows, or another number that is at most that of rows.
        high: how many rows there are.
        row: what the message calls one of them.
    """
    if value is None or value <= high:
        return value
    log.warning("%s %d is more than the %s; using %d", name, value, counted(high, row), high)
    return high
