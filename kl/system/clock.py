"""Seconds of work on a device, and the seam through which a benchmark measures the parts of a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch

Clock: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Is called with the name of a part of the work, and is entered for as long as that part lasts."""

_NOTHING = nullcontext()


def untimed(part: str) -> AbstractContextManager[object]:
    """The clock that measures nothing."""
    return _NOTHING


def now(device: torch.device | str = "cpu") -> float:
    """Seconds on a clock, after a GPU has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device | str = "cpu") -> list[float]:
    """Seconds of each of `repeats` runs."""
    times = []
    for _ in range(repeats):
        start = now(device)
        work()
        times.append(now(device) - start)
    return times


def fastest(work: Callable[[], object], repeats: int, device: torch.device | str = "cpu") -> float:
    """Seconds of the fastest of `repeats` runs: what else the machine does only adds to them.

    >>> fastest(lambda: None, 3) >= 0
    True
    """
    return min(seconds_of(work, repeats, device))
