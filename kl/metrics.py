"""Mean squared error and classification error, as sums over batches (torchmetrics) or of all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MeanSquaredError
from torchmetrics.functional import mean_squared_error


class EvaluationMetrics(nn.Module):
    """mse over one pass's batches; of classifiers also error; and, if labels were noised, mse_noisy and error_noisy.

    Nothing is summed over ranks, because every rank that shares a machine sees all batches.

    Args:
        classifier: whether the outputs are scores of classes.
        scale: the unit of each output, shape (c,), in which its mse is given; None is 1.
    """

    scale: Tensor | None

    def __init__(self, classifier: bool, scale: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        # Sums are taken in float64, because 1 - accuracy in float32 would lose the digits of an error, a count over n.
        self.mse = MeanSquaredError(sync_on_compute=False).set_dtype(torch.float64)
        self.mse_noisy = MeanSquaredError(sync_on_compute=False).set_dtype(torch.float64)
        names = ("error", "error_noisy") if classifier else ()
        means = {name: MeanMetric(sync_on_compute=False).set_dtype(torch.float64) for name in names}
        self.errors = nn.ModuleDict(means)

    def update(
        self,
        scores: Tensor,  # shape: (m, c)
        y: Tensor,  # shape: (m, c)
        y_noisy: Tensor | None = None,  # shape: (m, c)
    ) -> None:
        """Add one batch.

        Args:
            scores: f(x), shape (m, c).
            y: targets, shape (m, c).
            y_noisy: targets with label noise, shape (m, c); None if there is no noise.
        """
        self.mse.update(_in_units(scores, self.scale).contiguous(), _in_units(y, self.scale))
        if y_noisy is not None:
            self.mse_noisy.update(_in_units(scores, self.scale).contiguous(), _in_units(y_noisy, self.scale))
        for (_, metric), targets in zip(self.errors.items(), (y, y_noisy), strict=False):
            if targets is not None:
                metric.update(_wrong(scores, targets))  # type: ignore[operator]

    def compute(self) -> dict[str, float]:
        """The values by name: mse in the square of the targets' units, errors as fractions in [0, 1]."""
        values = {"mse": float(self.mse.compute())}
        for name, metric in self.errors.items():
            if metric.update_called:
                values[name] = float(metric.compute())  # type: ignore[operator]
        if self.mse_noisy.update_called:
            values["mse_noisy"] = float(self.mse_noisy.compute())
        return values


def mse(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
    scale: Tensor | None = None,  # shape: (c,)
) -> float:
    """The mean of scale^2 (scores - y)^2 over samples and outputs: in the unit of the targets; None is a scale of 1."""
    return float(mean_squared_error(_in_units(scores, scale).flatten(), _in_units(y, scale).flatten()))


def error(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> float:
    """The fraction of rows whose largest score is not at the target class."""
    return float(_wrong(scores, y).mean())


def evaluate_scores(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
    y_noisy: Tensor | None,  # shape: (n, c)
    classifier: bool,
    scale: Tensor | None = None,  # shape: (c,)
) -> dict[str, float | None]:
    """mse, error and error_noisy, at once; an error is None of regression, error_noisy also without noisy targets."""
    return {
        "mse": mse(scores, y, scale),
        "error": error(scores, y) if classifier else None,
        "error_noisy": error(scores, y_noisy) if classifier and y_noisy is not None else None,
    }


def _in_units(values: Tensor, scale: Tensor | None) -> Tensor:
    return values.double() if scale is None else values.double() * scale.to(values.device)


def _wrong(scores: Tensor, y: Tensor) -> Tensor:
    return (scores.argmax(dim=1) != y.argmax(dim=1)).double()
