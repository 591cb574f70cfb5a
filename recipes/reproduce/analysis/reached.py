"""Epochs and seconds until a training run reaches a given training mse."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recipes.reproduce.sweep.point import Result


def epochs_to(mses: Sequence[float], target: float, first: float) -> float | None:
    """Epochs until the mse is `target`; None if it stays above.

    The mse is known at the ends of epochs; between them its logarithm is taken to be linear, so that runs of a few
    epochs can be told apart.

    Args:
        mses: training mse after epochs 1, 2, ...
        target: the mse to reach.
        first: mse before the first epoch.
    """
    before = first
    for whole, mse in enumerate(mses):
        if mse <= target:
            if before <= target:
                return float(whole)
            return whole + math.log(before / target) / math.log(before / max(mse, 1e-30))
        before = mse
    return None


def epochs_of(fit: Result, target: float) -> float | None:
    """Epochs of a `Fit` of one-hot targets until its training mse is `target`; the mse of f = 0 is 1/c."""
    return epochs_to(fit["curves"]["train/mse"], target, 1 / fit["c"])


def seconds_of(fit: Result, target: float) -> float | None:
    """Seconds of training steps until the training mse is `target`, without the set-up before them."""
    epochs = epochs_of(fit, target)
    return None if epochs is None else seconds_after(fit["seconds_per_epoch"], epochs)


def seconds_after(seconds_per_epoch: Sequence[float], epochs: float) -> float:
    """Seconds of a number of epochs, whose last epoch may be partial."""
    whole = int(epochs)
    part = (epochs - whole) * seconds_per_epoch[whole] if epochs > whole else 0.0
    return sum(seconds_per_epoch[:whole]) + part
