"""A kernel expansion as a LightningModule that predicts and is evaluated, whichever solver finds its weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kl.machines.evaluated import EvaluatedModule
from kl.machines.function import KernelFunction


class KernelExpansion(KernelFunction, EvaluatedModule):
    """A `KernelFunction` with validation, test and predict steps. A subclass trains it.

    Attributes:
        eval_metrics: val/* or test/* of the last pass over validation or test data.
    """

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Scores f(x), shape (m, c), for a batch x or (x, ...), in the target's own unit (`in_target_units`)."""
        return self.in_target_units(self(batch if isinstance(batch, Tensor) else batch[0]))

    def outputs(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), shape (m, c)."""
        return self(x)
