"""Probabilities from the outputs of least squares, and how good they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_calibration_error
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

LOWEST, HIGHEST = -8.0, 4.0  # of log T: beyond, probabilities are 0 and 1, or all equal
BISECTIONS = 60  # which leave 12 / 2^60 of the range of log T, less than rounding
BINS = 15  # of the expected calibration error, as in Guo et al. 2017

SCORES = ("balanced_accuracy", "roc_auc", "log_loss", "brier", "calibration_error", "rmse", "mae", "r2")
"""The names of `classification_scores` and `regression_scores`."""


def fit_temperature(
    outputs: Tensor,  # shape: (n, c)
    labels: Tensor,  # shape: (n,)
    weights: Tensor | None = None,  # shape: (n,)
) -> float:
    """T > 0 that minimises the weighted log loss -sum_i w_i log softmax(v_i / T)_{y_i}.

    The log loss is convex in 1 / T, so its derivative has one zero at most, which bisection finds to rounding.

    Args:
        outputs: v, of a function that has not seen its rows, such as leave-one-out outputs, shape (n, c).
        labels: the class of each row, 0 to c - 1, shape (n,).
        weights: of the rows, not all 0, shape (n,); None is 1 for every row.

    Returns:
        T, from e^-8, where every output is right, to e^4, where equal probabilities are best.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    v = outputs.double()
    share = torch.ones(len(v), dtype=torch.float64, device=v.device) if weights is None else weights.double()
    share = share / share.sum()
    away = v - v.gather(1, labels[:, None])  # from the output of the true class

    def slope(log_temperature: float) -> float:
        """The derivative of the log loss by 1 / T."""
        probabilities = (v * math.exp(-log_temperature)).softmax(dim=1)
        return float(share @ (probabilities * away).sum(dim=1))

    low, high = LOWEST, HIGHEST
    if slope(low) <= 0:
        return math.exp(low)
    if slope(high) >= 0:
        return math.exp(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def classification_scores(
    outputs: Tensor,  # shape: (n, c)
    labels: Tensor,  # shape: (n,)
    temperature: float | None = None,
) -> dict[str, float]:
    """Metrics of a classifier beside its error.

    Args:
        outputs: f(x), shape (n, c).
        labels: the class of each row, 0 to c - 1, shape (n,).
        temperature: T of the probabilities softmax(f(x) / T); None has no probabilities.

    Returns:
        balanced_accuracy, the mean over classes of the share that is found; roc_auc, the mean over classes of the area
        under the curve of one class against the rest (classes that have no row, or all rows, are left out; NaN where no
        class is left). With a temperature also log_loss, in nats; brier, the mean over rows of |p - y|^2, 0 to 2; and
        calibration_error, the expected calibration error in 15 bins, 0 to 1.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2 (expected calibration error).
    """
    v, c = outputs.double(), outputs.shape[1]
    counts = torch.bincount(labels, minlength=c)
    p = v.softmax(dim=1)
    areas = [float(binary_auroc(p[:, k], labels == k)) for k in range(c) if 0 < counts[k] < len(labels)]
    found = {
        "balanced_accuracy": float(multiclass_accuracy(v.argmax(dim=1), labels, c, average=None)[counts > 0].mean()),
        "roc_auc": sum(areas) / len(areas) if areas else math.nan,
    }
    if temperature is None:
        return found
    log_p = (v / temperature).log_softmax(dim=1)
    one_hot = torch.nn.functional.one_hot(labels, c).double()
    return {
        **found,
        "log_loss": -float(log_p.gather(1, labels[:, None]).mean()),
        "brier": float((log_p.exp() - one_hot).square().sum(dim=1).mean()),
        "calibration_error": float(multiclass_calibration_error(log_p.exp(), labels, c, n_bins=BINS)),
    }


def regression_scores(
    predictions: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> dict[str, float]:
    """Metrics of regression.

    Returns:
        rmse and mae, in the target's unit, over rows and outputs; r2, the mean over outputs of 1 - squared error over
        the targets' variance, NaN of fewer than two rows.
    """
    p, y = predictions.double(), y.double()
    return {
        "rmse": math.sqrt(float(mean_squared_error(p.flatten(), y.flatten()))),
        "mae": float(mean_absolute_error(p.flatten(), y.flatten())),
        "r2": float(r2_score(p, y)) if len(y) > 1 else math.nan,
    }
