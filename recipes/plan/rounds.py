"""The seconds of the rounds of a recursive feature machine, which `kl plan` predicts without making them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kl import Kernel
    from kl.features.learning import FeatureLearning
    from kl.features.options import FeatureOptions
    from kl.solve import Problem

TIMED_ROWS = 64  # whose gradients are timed, and scaled to the sample


@dataclass(frozen=True)
class RoundsForecast:
    """How long a round takes, if it is made."""

    solver: str
    """What solves: "direct", "pcg" or "eigenpro"."""
    chains: int
    """Fits in a round."""
    each: float | None
    """Seconds of a round; None for EigenPro, which is not predicted."""
    last: float | None
    """Seconds of the solve on all rows that ends the rounds of `kl.RecursiveFeatureMachine`."""


def forecast_rounds(
    learning: FeatureLearning,
    options: FeatureOptions,
    kernel: Kernel,
    origin: Tensor,  # shape: (d,)
    memory: int,
) -> RoundsForecast:
    """The seconds of a solve on the rows of each chain, and of the gradients of its function.

    Args:
        learning: the rounds, none of which has been made.
        options: those of the rounds.
        kernel: the kernel; its bandwidth must be resolved.
        origin: what is subtracted from rows.
        memory: bytes of the budget.
    """
    from kl.solve import chosen_solver

    solver = chosen_solver(learning.whole, options.round_solver, memory, leave_one_out=False)
    chains = [chain.problem for chain in learning.chains]
    if solver == "eigenpro":
        return RoundsForecast(solver, len(chains), None, None)

    def seconds(rows: Problem) -> float:
        return seconds_of(rows, options.sample, kernel, origin, solver, memory)

    return RoundsForecast(solver, len(chains), sum(map(seconds, chains)), seconds(learning.whole))


def seconds_of(rows: Problem, sample: int | None, kernel: Kernel, origin: Tensor, solver: str, memory: int) -> float:
    """Seconds of a fit and of the metric that it gives."""
    import torch

    from kl.exact.cost import estimate_seconds
    from kl.products.gradients import gradient_matmul
    from kl.rows.rows import Rows

    n, c = rows.y.shape
    sample = min(n, sample or n)
    timed = min(TIMED_ROWS, sample)
    placed, weights = Rows.of(rows.x - origin.to(rows.x)), torch.ones(n, c, dtype=torch.float64)
    start = time.perf_counter()
    gradient_matmul(kernel, placed[:timed], placed, weights.to(rows.x.device))
    gradients = (time.perf_counter() - start) * sample / timed
    return estimate_seconds(kernel, rows.x, solver, memory, c) + gradients
