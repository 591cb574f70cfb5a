"""Seconds of work on a device: of each of a few runs, and of the fastest."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


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
