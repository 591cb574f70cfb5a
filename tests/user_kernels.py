"""Kernels as a user would write them, for `module:Class`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.checks import check_positive
from kl.kernels import Kernel, RadialKernel
from kl.rows.rows import Rows


@dataclass(frozen=True)
class Cauchy(RadialKernel):
    """1 / (1 + r^2 / bandwidth^2)."""

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.div_(self.bandwidth**2).add_(1).reciprocal_()


@dataclass(frozen=True)
class ManhattanLaplacian(Kernel):
    """exp(-|x - z|_1 / width): no function of inner products."""

    width: float

    def __post_init__(self) -> None:
        check_positive("width", self.width)

    def _block(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.cdist(x, z, p=1).mul_(-1 / self.width).exp_()

    def _diag(self, x: Rows) -> Tensor:
        return torch.ones_like(x.sq_norm)


@dataclass(frozen=True)
class Unfinished(RadialKernel):
    """Defines no formula."""


class NotAKernel:
    """Something else."""
