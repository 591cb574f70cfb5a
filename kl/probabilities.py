"""Probabilities from the outputs of least squares, and how good they are.

Scores import torchmetrics, which takes seconds, where they are computed: predicting and tuning need none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

STEPS = 100  # of the search for 1/T, which takes about ten
STEEPEST = 1e4  # the largest 1/T, in units of one over the largest spread of a row's outputs
FLATTEST = 1e8  # the largest T, in units of that spread
BINS = 15  # of the expected calibration error, as in Guo et al. 2017

SCORES = ("balanced_accuracy", "roc_auc", "log_loss", "brier", "calibration_error", "rmse", "mae", "r2")
"""The names of `classification_scores` and `regression_scores`."""


def fit_temperature(
    outputs: Tensor,  # shape: (n, c)
    labels: Tensor,  # shape: (n,)
    weights: Tensor | None = None,  # shape: (n,)
) -> float:
    """T > 0 that minimises the weighted log loss -sum_i w_i log softmax(v_i / T)_{y_i}.

    The log loss is convex in 1/T, which Newton steps find, with bisection where a step leaves the bracket.

    Args:
        outputs: v, of a function that has not seen its rows, such as leave-one-out outputs, shape (n, c).
        labels: the class of each row, 0 to c - 1, shape (n,).
        weights: of the rows, not all 0, shape (n,); None is 1 for every row.

    Returns:
        T; 1e-4 times the largest spread of a row's outputs if every row is right, because the loss then falls for ever,
        and 1e8 times, which makes all probabilities equal, if the outputs do not help at all.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.

    >>> import torch
    >>> outputs = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    >>> round(1 / fit_temperature(outputs, torch.tensor([0, 0, 0, 1])), 6)  # log 3, because three of four are right
    1.098612
    """
    below = outputs.double()
    below = below - below.amax(dim=1, keepdim=True)  # at most 0, so that exp(b below) cannot overflow
    share = torch.ones(len(below), dtype=torch.float64, device=below.device) if weights is None else weights.double()
    share, spread = share / share.sum(), -float(below.min())
    if spread == 0:  # probabilities are equal, whatever T is
        return 1.0
    right = float(share @ below.gather(1, labels[:, None]).squeeze(1))

    def slopes(b: float) -> tuple[float, float]:  # the first and the second derivative of the loss by b = 1/T
        odds = (below * b).exp_()
        total = odds.sum(dim=1)
        mean = (odds * below).sum(dim=1) / total
        square = odds.mul_(below).mul_(below).sum(dim=1) / total
        return float(share @ mean) - right, float(share @ (square - mean.square()))

    low, high, b = 0.0, STEEPEST / spread, 1 / spread
    if slopes(low)[0] >= 0:
        return FLATTEST * spread
    if slopes(high)[0] <= 0:
        return 1 / high
    for _ in range(STEPS):
        slope, curvature = slopes(b)
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else math.inf
        new = min(step, 4 * b) if low < step < high else (low + high) / 2
        if abs(new - b) <= 1e-12 * b:
            return 1 / new
        b = new
    return 1 / b


def probabilities(
    outputs: Tensor,  # shape: (n, c)
    temperature: float,
) -> Tensor:
    """softmax(v / T), shape (n, c), float64."""
    return (outputs.double() / temperature).softmax(dim=1)


def log_losses(
    outputs: Tensor,  # shape: (n, c)
    labels: Tensor,  # shape: (n,)
    temperature: float,
) -> Tensor:
    """-log softmax(v_i / T)_{y_i} of every row, in nats, shape (n,), float64."""
    return cross_entropy(outputs.double() / temperature, labels, reduction="none")


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
        under the curve of one class against the rest by softmax(f(x)), whatever the temperature, which changes the
        order of rows where there are three classes or more (classes that have no row, or all rows, are left out; NaN
        where no class is left). With a temperature also log_loss, in nats; brier, the mean over rows of |p - y|^2, 0 to
        2; and calibration_error, the expected calibration error in 15 bins, 0 to 1.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2 (expected calibration error).
    """
    from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_calibration_error

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
    p = probabilities(outputs, temperature)
    true = one_hot(labels, c).double()
    return {
        **found,
        "log_loss": float(log_losses(outputs, labels, temperature).mean()),
        "brier": float((p - true).square().sum(dim=1).mean()),
        "calibration_error": float(multiclass_calibration_error(p, labels, c, n_bins=BINS)),
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
    from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

    y = y.double()
    mean = y.mean(dim=0)
    p, y = predictions.double() - mean, y - mean  # r2_score subtracts squares, which lose all digits far from 0
    return {
        "rmse": math.sqrt(float(mean_squared_error(p.flatten(), y.flatten()))),
        "mae": float(mean_absolute_error(p.flatten(), y.flatten())),
        "r2": float(r2_score(p, y)) if len(y) > 1 else math.nan,
    }
