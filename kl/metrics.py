"""Mean squared error and classification error, as sums over batches (torchmetrics) or at once."""

from __future__ import annotations

from torch import Tensor, nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import multiclass_accuracy


class EvaluationMetrics(nn.Module):
    """mse, and for classifiers error and, where labels were noised, error_noisy, over the batches of one pass.

    Args:
        num_outputs: c.
        classifier: whether the outputs are scores of classes.
    """

    def __init__(self, num_outputs: int, classifier: bool) -> None:
        super().__init__()
        self.mse = MeanSquaredError()
        names = ("error", "error_noisy") if classifier else ()
        self.errors = nn.ModuleDict({name: MulticlassAccuracy(num_outputs, average="micro") for name in names})

    def update(
        self,
        scores: Tensor,  # shape: (m, c)
        y: Tensor,  # shape: (m, c)
        y_noisy: Tensor | None = None,  # shape: (m, c)
    ) -> None:
        """Add one batch."""
        self.mse.update(scores.float(), y.float())
        for (_, metric), targets in zip(self.errors.items(), (y, y_noisy), strict=False):
            if targets is not None:
                metric.update(scores, targets.argmax(dim=1))  # type: ignore[operator]

    def compute(self) -> dict[str, float]:
        """The values by name; errors are fractions in [0, 1]."""
        values = {"mse": float(self.mse.compute())}
        for name, metric in self.errors.items():
            if metric.update_called:
                values[name] = 1 - float(metric.compute())  # type: ignore[operator]
        return values


def mse(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> float:
    """The mean of (scores - y)^2 over samples and outputs."""
    return float(mean_squared_error(scores.double(), y.double()))


def error(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> float:
    """The fraction of rows whose largest score is not at the target class."""
    return 1 - float(multiclass_accuracy(scores, y.argmax(dim=1), num_classes=y.shape[1], average="micro"))
