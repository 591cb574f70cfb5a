"""Kernels of the inner product <x, z> alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kl.checks import check_count, check_not_negative, check_positive
from kl.kernels.gram import GramKernel


@dataclass(frozen=True)
class Polynomial(GramKernel):
    """(scale <x, z> + bias)^degree; degree 1 with bias 0 is the linear kernel.

    Args:
        degree: whole number, 1 or above.
        bias: 0 or above; with a negative bias the function is not positive semi-definite.
        scale: above 0; 1/d keeps the values near 1 for features of order 1.

    Raises:
        InputError: a parameter is out of its range.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, section 2.1.

    Example:
        >>> import torch
        >>> Polynomial(degree=2, bias=1.0)(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([[4., 4.],
                [4., 9.]])
    """

    name: ClassVar[str] = "polynomial"

    degree: int = 2
    bias: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "degree", check_count("degree", self.degree))
        object.__setattr__(self, "bias", check_not_negative("bias", self.bias))
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.mul_(self.scale).add_(self.bias).pow_(self.degree)

    def _slopes(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> tuple[Tensor, Tensor | None]:
        base = gram.mul_(self.scale).add_(self.bias)
        return base.pow_(self.degree - 1).mul_(self.degree * self.scale), None
