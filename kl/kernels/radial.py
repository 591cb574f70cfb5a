"""Kernels of the distance r = |x - z|: each is its formula and a docstring.

[RW06] is Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapter 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kl.errors import InputError
from kl.kernels.base import RadialKernel, check_positive


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """exp(-r^2 / (2 bandwidth^2)).

    Source: [B18] section 2; [RW06] eq. 4.9.

    Example:
        >>> import torch
        >>> Gaussian(bandwidth=1.0)(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    name: ClassVar[str] = "gaussian"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(-0.5 / self._bandwidth**2).exp_()


@dataclass(frozen=True)
class Laplacian(RadialKernel):
    """exp(-r / bandwidth), with the Euclidean r and not the L1 distance.

    Source: [B18] section 2; [RW06] eq. 4.18 with gamma = 1.

    Example:
        >>> import torch
        >>> Laplacian(bandwidth=5.0)(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    name: ClassVar[str] = "laplacian"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.sqrt_().mul_(-1 / self._bandwidth).exp_()


@dataclass(frozen=True)
class ExponentialPower(RadialKernel):
    """exp(-(r / bandwidth)^power), also called the dispersal or gamma-exponential kernel.

    Power 1 is the Laplacian, power 2 a Gaussian whose bandwidth is this one over sqrt(2). The public EigenPro
    code's `dispersal(bandwidth, gamma)` is exp(-r^gamma / bandwidth): there, write bandwidth^(1/gamma) for
    this bandwidth.

    Args:
        power: above 0 and at most 2; beyond 2 the function is not positive semi-definite.

    Source: [RW06] eq. 4.18.

    Example:
        >>> import torch
        >>> ExponentialPower(bandwidth=1.0, power=0.5)(torch.tensor([[0.0], [4.0]]))
        tensor([[1.0000, 0.1353],
                [0.1353, 1.0000]])
    """

    name: ClassVar[str] = "exponential-power"

    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        power = check_positive("power", self.power, "and at most 2")
        if power > 2:
            raise InputError(f"power must be a finite number above 0 and at most 2; got {self.power!r}")
        object.__setattr__(self, "power", power)

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(self._bandwidth**-2).pow_(self.power / 2).neg_().exp_()


@dataclass(frozen=True)
class Matern32(RadialKernel):
    """(1 + t) exp(-t) with t = sqrt(3) r / bandwidth: the Matern kernel of smoothness 3/2.

    Source: [RW06] eq. 4.17.

    Example:
        >>> import torch
        >>> Matern32(bandwidth=3**0.5)(torch.tensor([[0.0], [1.0]]))
        tensor([[1.0000, 0.7358],
                [0.7358, 1.0000]])
    """

    name: ClassVar[str] = "matern32"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.sqrt_().mul_(math.sqrt(3) / self._bandwidth)
        decay = t.neg().exp_()
        return t.add_(1).mul_(decay)


@dataclass(frozen=True)
class Matern52(RadialKernel):
    """(1 + t + t^2 / 3) exp(-t) with t = sqrt(5) r / bandwidth: the Matern kernel of smoothness 5/2.

    Source: [RW06] eq. 4.17.

    Example:
        >>> import torch
        >>> Matern52(bandwidth=5**0.5)(torch.tensor([[0.0], [1.0]]))
        tensor([[1.0000, 0.8584],
                [0.8584, 1.0000]])
    """

    name: ClassVar[str] = "matern52"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.sqrt_().mul_(math.sqrt(5) / self._bandwidth)
        decay = t.neg().exp_()
        # 1 + t + t^2/3 = (t + 3/2)^2 / 3 + 1/4 needs no second temporary, and is exactly 1 at t = 0.
        return t.add_(1.5).square_().div_(3).add_(0.25).mul_(decay)


@dataclass(frozen=True)
class InverseMultiquadric(RadialKernel):
    """(1 + r^2 / bandwidth^2)^(-1/2).

    Source: [RW06] eq. 4.19 with alpha = 1/2; Theorem 1 of [B18] covers it beside the Gaussian.

    Example:
        >>> import torch
        >>> InverseMultiquadric(bandwidth=1.0)(torch.tensor([[0.0], [3**0.5]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    name: ClassVar[str] = "inverse-multiquadric"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(self._bandwidth**-2).add_(1).rsqrt_()
