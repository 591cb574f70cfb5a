"""The seconds of the rounds of a recursive feature machine, which `kl plan` predicts without making them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kl import Kernel
    from kl.features.learning import FeatureLearning
    from kl.solve import Problem

TIMED_ROWS = 64  # whose gradients are timed, and scaled to the sample


@dataclass(frozen=True)
class RoundsForecast:
    """How long a round takes, if it is made."""

    solver: str
    """What solves: "direct", "pcg" or "eigenpro"."""
    chains: int
    """Fits in a round."""
    first: float
    """Seconds of the fits of round 0."""
    each: float
    """Seconds of a later round: the gradients, and fits that start from those of the round before."""
    last: float
    """Seconds of the solve on all rows that ends the rounds of `kl.RecursiveFeatureMachine`."""


def forecast_rounds(
    learning: FeatureLearning,
    kernel: Kernel,
    origin: Tensor,  # shape: (d,)
) -> RoundsForecast:
    """The seconds of a solve on the rows of each chain, and of the gradients of its function.

    Args:
        learning: the rounds, none of which has been made.
        kernel: the kernel; its bandwidth must be resolved.
        origin: what is subtracted from rows.
    """
    from kl.features.chain import WARM_EPOCHS

    solver = learning.solver
    chains = [chain.problem for chain in learning.chains]

    def solve(rows: Problem, share: float = 1.0) -> float:
        epochs = math.ceil(share * learning.epochs)
        return seconds_of_solve(rows, kernel, solver, epochs, learning.memory, learning.ranks.size)

    gradients = sum(seconds_of_gradients(rows, learning, kernel, origin) for rows in chains)
    each = gradients + sum(solve(rows, WARM_EPOCHS) for rows in chains)
    return RoundsForecast(solver, len(chains), sum(map(solve, chains)), each, solve(learning.whole))


def seconds_of_solve(
    rows: Problem, kernel: Kernel, solver: str, epochs: int, memory: int | str, ranks: int = 1
) -> float:
    """Seconds of a fit.

    An epoch of EigenPro computes the kernel values that are not kept twice, once for each order of a pair of rows, and
    an iteration of conjugate gradients once.
    """
    from kl.exact.cost import estimate_seconds, pcg_seconds

    c = rows.y.shape[1]
    if solver != "eigenpro":
        return estimate_seconds(kernel, rows.x, solver, memory, c)
    parts = pcg_seconds(kernel, rows.x, memory, c, ranks)
    return parts.setup + 2 * epochs * parts.iteration


def seconds_of_gradients(rows: Problem, learning: FeatureLearning, kernel: Kernel, origin: Tensor) -> float:
    """Seconds of the metric that a fit gives, scaled from a few rows to the sample."""
    import torch

    from kl.features.agop import agop
    from kl.rows.rows import Rows

    (n, c), options = rows.y.shape, learning.options
    sample = min(n, options.sample or n)
    placed, weights = Rows.of(rows.x - origin.to(rows.x)), torch.ones_like(rows.y)
    timed = placed[: min(TIMED_ROWS, sample)]
    start = time.perf_counter()
    agop(kernel, timed, placed, weights, metric=options.metric, sketch=options.signs(n, c))
    return (time.perf_counter() - start) * sample / len(timed) / learning.ranks.size
