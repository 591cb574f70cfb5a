"""Kernels of the distance r = |x - z|: each is its formula and a docstring.

Equation numbers of Rasmussen and Williams are those of their book of 2006, Gaussian Processes for Machine Learning.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kl.checks import check_positive
from kl.compiled import code_for
from kl.compiled.kernel_values import distances_of_few, of_distances
from kl.errors import InputError
from kl.kernels.gradients import Gradients, Spanned
from kl.kernels.gram import GramKernel
from kl.kernels.kernel import defined_with
from kl.rows.pair import Pair

Bandwidth = float | Literal["auto"]
"""A length scale in the units of the features, or "auto": the median pairwise distance of the data."""

# Features up to which distances are summed coordinate by coordinate: that is as fast as inner products, and has no
# cancellation, whose error smooth kernels of few features amplify.
DIRECT_FEATURES = 16


def check_bandwidth(bandwidth: Bandwidth) -> Bandwidth:
    """The bandwidth, if it is "auto" or a number above 0 whose square float32 can hold.

    Raises:
        InputError: it is anything else.
    """
    if bandwidth == "auto":
        return bandwidth
    number = check_positive("bandwidth", bandwidth, 'or "auto"')
    if not 1e-15 <= number <= 1e15:
        raise InputError(
            f"bandwidth must lie between 1e-15 and 1e15, so that float32 holds its square; "
            f"got {number!r}: rescale the features"
        )
    return number


@dataclass(frozen=True)
class RadialKernel(GramKernel):
    """A kernel phi(|x - z|^2) of the squared Euclidean distance. A subclass defines `_profile`, which is phi.

    A kernel that learns features also defines `_slope`, the derivative phi'. The gradient is 2 phi'(|x - z|^2) (x - z).

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is neither "auto" nor a number above 0 whose square float32 can hold.

    Example:
        >>> import dataclasses, torch, kl
        >>> @dataclasses.dataclass(frozen=True)
        ... class Cauchy(kl.RadialKernel):  # K(x, z) = 1 / (1 + |x - z|^2 / bandwidth^2)
        ...     def _profile(self, sq_dist):
        ...         return sq_dist.div_(self.bandwidth**2).add_(1).reciprocal_()
        ...     def _slope(self, sq_dist):
        ...         return self._profile(sq_dist).square_().div_(-self.bandwidth**2)
        >>> Cauchy(bandwidth=2.0)(torch.tensor([[0.0], [2.0]])).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """

    shift_invariant: ClassVar[bool] = True
    # What compiled code calls `_profile`, with the rate `_rate`; only a class that defines both is computed so.
    _formula: ClassVar[str] = ""

    bandwidth: Bandwidth = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", check_bandwidth(self.bandwidth))

    @property
    def _bandwidth(self) -> float:
        self._require_resolved()
        assert not isinstance(self.bandwidth, str)
        return self.bandwidth

    @abstractmethod
    def _profile(self, sq_dist: Tensor) -> Tensor:
        """Kernel values from squared distances of shape (m, p), which may be overwritten."""

    def _slope(self, sq_dist: Tensor) -> Tensor:
        """phi', the derivative of `_profile` in the squared distance; `sq_dist`, shape (m, p), may be overwritten.

        The result may be infinite at 0, as the Laplacian's; it is not used there.
        """
        raise InputError(self._without_gradients())

    @property
    def has_gradients(self) -> bool:
        """Whether the class defines `_slope`."""
        return defined_with(type(self), "_slope", "_profile")

    def _without_gradients(self, method: str = "_slope(self, sq_dist)", formula: str = "_profile") -> str:
        return super()._without_gradients(method, formula)

    def uses_products(self, d: int) -> int:
        """1, or 0 for few features, whose distances are summed coordinate by coordinate."""
        return int(d > DIRECT_FEATURES)

    def _values(self, pair: Pair) -> Tensor:
        if pair.plain:
            return self._plain_values(pair)
        has_formula = defined_with(type(self), "_formula", "_profile", "_sq_dist")
        if has_formula and self.uses_products(pair.x.data.shape[1]):
            return pair.of_distances(self._formula, self._rate, self._profile)
        sq_dist = self._sq_dist(pair)
        code = code_for(sq_dist) if has_formula else None
        return self._profile(sq_dist) if code is None else of_distances(code, self._formula, sq_dist, self._rate)

    @property
    def _rate(self) -> float:
        """The rate of `_formula`, from the bandwidth."""
        raise NotImplementedError

    def _sq_dist(self, pair: Pair) -> Tensor:
        x, z = pair.x, pair.z
        if self.uses_products(x.data.shape[1]):
            return pair.sq_dist()
        ours, others = x.data.to(x.dtype).contiguous(), z.data.to(x.dtype).contiguous()
        if code := code_for(ours, others):
            return distances_of_few(code, ours, others)
        return torch.cdist(ours, others, compute_mode="donot_use_mm_for_euclid_dist").square_()

    def _gradients(self, pair: Pair) -> Gradients:
        x, z = pair.x, pair.z
        sq_dist = self._sq_dist(pair)
        near = self._equal(pair, sq_dist)
        a = self._slope(sq_dist).mul_(-2)
        return Spanned(x.data.to(x.dtype), z.data.to(x.dtype), a if near is None else a.masked_fill_(near, 0))

    def _equal(self, pair: Pair, sq_dist: Tensor) -> Tensor | None:
        """Which rows x_i and z_j count as equal, shape (m, p); None is none.

        They are those of distance 0 if phi' is bounded, else those whose difference is hidden by rounding, because an
        unbounded phi' would turn the rounding error of equal rows, which no caller named as `same`, into a gradient.
        """
        x_sq, z_sq, share = pair.x.sq_norm[:, None], pair.z.sq_norm[None, :], 0.0
        if not bool(self._slope(torch.zeros(1, 1, dtype=torch.float64)).isfinite()):
            eps = torch.finfo(pair.x.dtype).eps
            by_products = self.uses_products(pair.x.data.shape[1]) and not pair.has_exact_distances
            share = 16 * eps if by_products else (16 * eps) ** 2
        # One pass without a temporary says for most tiles that there is none; on a GPU it would only make the CPU wait.
        if sq_dist.device.type == "cpu" and float(sq_dist.min()) > share * float(x_sq.max() + z_sq.max()):
            return None
        return sq_dist <= (share * (x_sq + z_sq) if share else 0.0)

    def _plain_values(self, pair: Pair) -> Tensor:
        if self.uses_products(pair.x.data.shape[1]):
            sq_dist = pair.sq_dist()
        else:
            columns = zip(pair.x.data.unbind(1), pair.z.data.unbind(1), strict=True)
            sq_dist = sum((x[:, None] - z[None, :]).square() for x, z in columns)  # type: ignore[assignment]
        # At distance 0 the root has an infinite slope, which would make the gradient NaN.
        apart = sq_dist > 0
        values = self._profile(torch.where(apart, sq_dist, 1.0))
        return torch.where(apart, values, self._profile(sq_dist.new_zeros(1, 1)))

    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return self._profile(gram.mul_(-2).add_(x_sq).add_(z_sq).clamp_(min=0))


@dataclass(frozen=True)
class Gaussian(RadialKernel):
    """exp(-r^2 / (2 bandwidth^2)) with r = |x - z|.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is out of its range.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 2; Rasmussen and Williams 2006, eq. 4.9.

    Example:
        >>> import torch
        >>> Gaussian(bandwidth=1.0)(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    name: ClassVar[str] = "gaussian"
    _formula: ClassVar[str] = "gaussian"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(-0.5 / self._bandwidth**2).exp_()

    @property
    def _rate(self) -> float:
        return 0.5 / self._bandwidth**2

    def _slope(self, sq_dist: Tensor) -> Tensor:
        return self._profile(sq_dist).mul_(-0.5 / self._bandwidth**2)


@dataclass(frozen=True)
class Laplacian(RadialKernel):
    """exp(-r / bandwidth) with the Euclidean distance r = |x - z|, not the L1 distance.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is out of its range.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 2; Rasmussen and Williams 2006, eq. 4.18 with gamma = 1.

    Example:
        >>> import torch
        >>> Laplacian(bandwidth=5.0)(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    name: ClassVar[str] = "laplacian"
    _formula: ClassVar[str] = "laplacian"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.sqrt_().mul_(-1 / self._bandwidth).exp_()

    @property
    def _rate(self) -> float:
        return 1 / self._bandwidth

    def _slope(self, sq_dist: Tensor) -> Tensor:
        r = sq_dist.sqrt_()
        return r.mul(-1 / self._bandwidth).exp_().div_(r).mul_(-0.5 / self._bandwidth)


@dataclass(frozen=True)
class ExponentialPower(RadialKernel):
    """exp(-(r / bandwidth)^power) with r = |x - z|, also called the dispersal or gamma-exponential kernel.

    Power 1 is the Laplacian; power 2 is a Gaussian of bandwidth `bandwidth` / sqrt(2). The public EigenPro code defines
    `dispersal(bandwidth, gamma)` as exp(-r^gamma / bandwidth), so its bandwidth is the gamma-th power of this one.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.
        power: above 0 and at most 2; above 2 the function is not positive semi-definite.

    Raises:
        InputError: a parameter is out of its range.

    Source: Rasmussen and Williams 2006, eq. 4.18.

    Example:
        >>> import torch
        >>> ExponentialPower(bandwidth=1.0, power=0.5)(torch.tensor([[0.0], [4.0]]))
        tensor([[1.0000, 0.1353],
                [0.1353, 1.0000]])
    """

    name: ClassVar[str] = "exponential-power"
    aliases: ClassVar[tuple[str, ...]] = ("dispersal",)

    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        power = check_positive("power", self.power, "and at most 2")
        if power > 2:
            raise InputError(f"power must be a finite number above 0 and at most 2; got {self.power!r}")
        object.__setattr__(self, "power", power)

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return power_(sq_dist.mul_(self._bandwidth**-2), self.power / 2).neg_().exp_()

    def _slope(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.mul_(self._bandwidth**-2)  # phi = exp(-t^(power / 2))
        decay = power_(t.clone(), self.power / 2).neg_().exp_()
        return power_(t, self.power / 2 - 1).mul_(decay).mul_(-self.power / 2 * self._bandwidth**-2)


@dataclass(frozen=True)
class Matern32(RadialKernel):
    """(1 + t) exp(-t) with t = sqrt(3) r / bandwidth and r = |x - z|: the Matern kernel of smoothness 3/2.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is out of its range.

    Source: Rasmussen and Williams 2006, eq. 4.17.

    Example:
        >>> import torch
        >>> Matern32(bandwidth=3**0.5)(torch.tensor([[0.0], [1.0]]))
        tensor([[1.0000, 0.7358],
                [0.7358, 1.0000]])
    """

    name: ClassVar[str] = "matern32"
    _formula: ClassVar[str] = "matern32"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.sqrt_().mul_(math.sqrt(3) / self._bandwidth)
        decay = t.neg().exp_()
        return t.add_(1).mul_(decay)

    @property
    def _rate(self) -> float:
        return math.sqrt(3) / self._bandwidth

    def _slope(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.sqrt_().mul_(-math.sqrt(3) / self._bandwidth).exp_().mul_(-1.5 * self._bandwidth**-2)


@dataclass(frozen=True)
class Matern52(RadialKernel):
    """(1 + t + t^2 / 3) exp(-t) with t = sqrt(5) r / bandwidth and r = |x - z|: the Matern kernel of smoothness 5/2.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is out of its range.

    Source: Rasmussen and Williams 2006, eq. 4.17.

    Example:
        >>> import torch
        >>> Matern52(bandwidth=5**0.5)(torch.tensor([[0.0], [1.0]]))
        tensor([[1.0000, 0.8584],
                [0.8584, 1.0000]])
    """

    name: ClassVar[str] = "matern52"
    _formula: ClassVar[str] = "matern52"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.sqrt_().mul_(math.sqrt(5) / self._bandwidth)
        decay = t.neg().exp_()
        # 1 + t + t^2/3 = (t + 3/2)^2 / 3 + 1/4 needs no second temporary, and is exactly 1 at t = 0.
        return t.add_(1.5).square_().div_(3).add_(0.25).mul_(decay)

    @property
    def _rate(self) -> float:
        return math.sqrt(5) / self._bandwidth

    def _slope(self, sq_dist: Tensor) -> Tensor:
        t = sq_dist.sqrt_().mul_(math.sqrt(5) / self._bandwidth)
        decay = t.neg().exp_()
        return t.add_(1).mul_(decay).mul_(-5 / 6 * self._bandwidth**-2)


@dataclass(frozen=True)
class InverseMultiquadric(RadialKernel):
    """(1 + r^2 / bandwidth^2)^(-1/2) with r = |x - z|.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the data.

    Raises:
        InputError: the bandwidth is out of its range.

    Source: Rasmussen and Williams 2006, eq. 4.19 with alpha = 1/2. Theorem 1 of Belkin, Ma, Mandal 2018,
    arXiv:1802.01396, covers this kernel beside the Gaussian.

    Example:
        >>> import torch
        >>> InverseMultiquadric(bandwidth=1.0)(torch.tensor([[0.0], [3**0.5]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    name: ClassVar[str] = "inverse-multiquadric"

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(self._bandwidth**-2).add_(1).rsqrt_()

    def _slope(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(self._bandwidth**-2).add_(1).pow_(-1.5).mul_(-0.5 * self._bandwidth**-2)


def power_(t: Tensor, power: float) -> Tensor:
    """t^power in place for t of 0 or above; 0^power is 0 for powers above 0, 1 for 0 and infinite below.

    It is exp(power log t), in a fifth of the time of pow (float32, AVX-512), to 2e-6 of the value for t from 1e-12 to
    1e12. Autograd cannot follow that, so where it does, pow is taken.
    """
    if power == 1:
        return t
    if power == 0:
        return t.fill_(1)
    if power == 0.5:
        return t.sqrt_()
    return t.pow_(power) if t.requires_grad else t.log_().mul_(power).exp_()
