"""Mean losses of left-out rows with their standard errors: squared error, classification error, log loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from kl.probabilities import fit_temperature, log_losses


@dataclass(frozen=True)
class Losses:
    """Means over rows, and the standard error of each mean; None where it does not apply."""

    mse: float
    mse_standard_error: float
    output_mse: tuple[float, ...]
    """The mean squared error of each output; their mean is `mse`."""
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
        squared = (scores - y).square()
        mse = (*mean_and_error(squared.mean(dim=1)), tuple(squared.mean(dim=0).tolist()))
        if not classes:
            return cls(*mse)
        wrong = (scores.argmax(dim=1) != y.argmax(dim=1)).double()
        labels = y.argmax(dim=1)
        logs = log_losses(scores, labels, fit_temperature(scores, labels))
        return cls(*mse, *mean_and_error(wrong), *mean_and_error(logs))

    def by(self, metric: str) -> tuple[float, float]:
        """The mean and the standard error of "mse", "error" or "log_loss"."""
        return getattr(self, metric), getattr(self, f"{metric}_standard_error")


def mean_and_error(
    losses: Tensor,  # shape: (n,)
) -> tuple[float, float]:
    """The mean, and its standard error s / sqrt(n); NaN for one row, of which nothing is known.

    >>> import torch
    >>> mean_and_error(torch.tensor([0.0, 2.0], dtype=torch.float64))
    (1.0, 1.0)
    """
    n = len(losses)
    return float(losses.mean()), float(losses.std() / n**0.5) if n > 1 else math.nan
