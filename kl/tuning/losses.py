"""Mean losses of left-out rows with their standard errors: squared error, classification error, log loss."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

STEPS = 100  # of the search for 1/T, which takes about ten
STEEPEST = 1e4  # the largest 1/T, in units of one over the largest spread of a row's outputs


@dataclass(frozen=True)
class Losses:
    """Means over rows, and the standard error of each mean; None where it does not apply."""

    mse: float
    mse_standard_error: float
    error: float | None = None
    error_standard_error: float | None = None
    log_loss: float | None = None
    log_loss_standard_error: float | None = None

    @classmethod
    def of(
        cls,
        scores: Tensor,  # f(x), shape: (n, c)
        y: Tensor,  # shape: (n, c)
        classes: bool,
    ) -> Losses:
        """The losses of the outputs; `classes` says whether the targets are one-hot rows."""
        squared = (scores - y).square().mean(dim=1)
        if not classes:
            return cls(*mean_and_error(squared))
        wrong = (scores.argmax(dim=1) != y.argmax(dim=1)).double()
        logs = log_losses(scores, y, inverse_temperature(scores, y))
        return cls(*mean_and_error(squared), *mean_and_error(wrong), *mean_and_error(logs))

    def by(self, metric: str) -> tuple[float, float]:
        """The mean and the standard error of "mse", "error" or "log_loss"."""
        values = asdict(self)
        return values[metric], values[f"{metric}_standard_error"]


def mean_and_error(
    losses: Tensor,  # shape: (n,)
) -> tuple[float, float]:
    """The mean, and its standard error s / sqrt(n); NaN for one row, of which nothing is known.

    >>> mean_and_error(torch.tensor([0.0, 2.0], dtype=torch.float64))
    (1.0, 1.0)
    """
    n = len(losses)
    return float(losses.mean()), float(losses.std() / n**0.5) if n > 1 else math.nan


def log_losses(
    scores: Tensor,  # f(x), shape: (n, c)
    y: Tensor,  # one-hot, shape: (n, c)
    inverse: float,
) -> Tensor:
    """-log softmax(f(x_i) / T) at the class of row i, shape (n,), with 1/T = `inverse`."""
    return -(torch.log_softmax(scores * inverse, dim=1) * y).sum(dim=1)


def inverse_temperature(
    scores: Tensor,  # f(x), float64, shape: (n, c)
    y: Tensor,  # one-hot, shape: (n, c)
) -> float:
    """The b = 1/T >= 0 that minimises the mean of `log_losses`, which is convex in b.

    Newton steps, with bisection where a step leaves the bracket. If every row is right, the loss falls for ever, and b
    is the upper end of the bracket; if the outputs do not help at all, b is 0.

    Source: Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, section 4.2.

    >>> y = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1]]
    >>> scores = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2)
    >>> round(inverse_temperature(scores, y), 6)  # log 3, because three of four are right: p = 3/4
    1.098612
    """
    below = scores - scores.amax(dim=1, keepdim=True)  # at most 0, so that exp(b below) cannot overflow
    spread = -float(below.min())
    if spread == 0:
        return 0.0
    right = float((below * y).sum(dim=1).mean())

    def slopes(b: float) -> tuple[float, float]:  # the first and the second derivative of the loss
        odds = (below * b).exp_()
        total = odds.sum(dim=1)
        mean = (odds * below).sum(dim=1) / total
        square = (odds.mul_(below).mul_(below)).sum(dim=1) / total
        return float(mean.mean()) - right, float((square - mean.square()).mean())

    low, high, b = 0.0, STEEPEST / spread, 1 / spread
    if slopes(low)[0] >= 0:
        return low
    if slopes(high)[0] <= 0:
        return high
    for _ in range(STEPS):
        slope, curvature = slopes(b)
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else math.inf
        new = min(step, 4 * b) if low < step < high else (low + high) / 2
        if abs(new - b) <= 1e-10 * b:
            return new
        b = new
    return b
