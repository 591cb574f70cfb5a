"""The optimizer of machines whose weights are computed as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class SetWeights(Optimizer):
    """Sets the weights to given ones, so that Lightning counts one step each time.

    Args:
        alpha: the weights, a parameter of shape (n, c).
    """

    def __init__(self, alpha: torch.nn.Parameter) -> None:
        super().__init__([alpha], {})

    @torch.no_grad()
    def step(self, closure: Any = None, *, alpha: Tensor) -> None:  # type: ignore[override]
        """Set the weights to `alpha`, shape (n, c)."""
        if closure is not None:  # Lightning passes one that only runs its hooks
            with torch.enable_grad():
                closure()
        self.param_groups[0]["params"][0].copy_(alpha)
