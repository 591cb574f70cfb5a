"""The two kernels of an infinitely wide, fully connected ReLU network.

The network of `depth` weight layers in NTK parametrisation, with weights drawn from N(0, 1) and biases b_k that start
at 0:

    h_1 = W_1 x + bias b_1,    h_{k+1} = sqrt(2 / width) W_{k+1} relu(h_k) + bias b_{k+1},    f(x) = h_depth

The sqrt(2 / width) keeps the scale: E[h_k(x)^2] = |x|^2 in every layer.

Sources: Cho and Saul 2009, Kernel methods for deep learning, eqs. 3 and 6 (the arc-cosine functions k0 and k1); Jacot,
Gabriel and Hongler 2018, Neural tangent kernel, arXiv:1806.07572, Theorem 1; Lee et al. 2018, Deep neural networks as
Gaussian processes, arXiv:1711.00165, eq. 5.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kl.checks import check_count, check_not_negative
from kl.compiled import code_for
from kl.compiled.kernel_values import relu
from kl.kernels.gram import GramKernel
from kl.kernels.kernel import defined_with
from kl.rows.pair import Pair

# Kernel values computed at a time on a CPU, so that the five temporaries of this size stay in the cache. For a tile of
# 2048 x 1024 this is three to four times faster than computing the whole tile at once, because the system must clear
# fresh pages for every large temporary (measured, AVX-512, one thread: 0.15 against 0.04 G elements/s).
_CACHED = 2**16


@dataclass(frozen=True)
class _ReluNetwork(GramKernel):
    _tangent: ClassVar[bool] = False  # whether compiled code takes the formula for that of the NTK, not of the NNGP

    depth: int = 3
    bias: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", check_count("depth", self.depth))
        object.__setattr__(self, "bias", check_not_negative("bias", self.bias))

    def _values(self, pair: Pair) -> Tensor:
        gram = pair.inner()
        if not pair.plain:
            if defined_with(type(self), "_tangent", "_recur", "_evaluate") and (code := code_for(gram)):
                return relu(code, gram, pair.x.sq_norm, pair.z.sq_norm, self.depth, self._tangent, self.bias)
            return self._evaluate(gram, pair.x.sq_norm[:, None], pair.z.sq_norm[None, :])
        self._recur(gram, (pair.x.sq_norm[:, None] * pair.z.sq_norm[None, :]).sqrt())
        return gram

    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        rows = max(1, _CACHED // gram.shape[1]) if gram.device.type == "cpu" else len(gram)
        z_sq = z_sq.expand_as(gram)
        for part, part_x_sq, part_z_sq in zip(gram.split(rows), x_sq.split(rows), z_sq.split(rows), strict=True):
            # The root of the product, not the product of the roots: sqrt(a * a) rounds to a exactly, so the cosine of a
            # row with itself is exactly 1. A cosine that is off by a rounding error e puts an error of sqrt(e) into k0.
            self._recur(part, (part_x_sq * part_z_sq).sqrt_())
        return gram

    def _slopes(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of K = g(u, w) with u = <x, z> / w and w = |x||z|: g_1 / w, and (w g_2 - u g_1) / (2 |x|^2).

        Parallel and opposite rows have no derivative of k0, which is taken as 0. At a zero row relu'(0) is 1/2.
        """
        rows = max(1, _CACHED // gram.shape[1]) if gram.device.type == "cpu" else len(gram)
        by_x_sq, x_sq, z_sq = torch.empty_like(gram), x_sq.expand_as(gram), z_sq.expand_as(gram)
        for inner, out, x_part, z_part in zip(*(each.split(rows) for each in (gram, by_x_sq, x_sq, z_sq)), strict=True):
            w = (x_part * z_part).sqrt_()
            is_zero, safe = w == 0, w.clamp(min=torch.finfo(w.dtype).tiny)
            u = inner.div_(safe).clamp_(-1, 1)
            by_u, by_w = self._derivatives(u, safe)
            torch.addcmul(by_w, by_u, u, value=-1, out=out).mul_(w).div_(2 * x_part).masked_fill_(is_zero, 0)
            inner.copy_(by_u).masked_fill_(is_zero, self._slope_at_zero)
        return gram, by_x_sq

    @property
    @abstractmethod
    def _slope_at_zero(self) -> float:
        """The derivative in <x, z> at zero rows."""

    @abstractmethod
    def _derivatives(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """(dg/du / w, dg/dw) of K = g(u, w), where u is the cosine and w = |x||z|, each of shape (m, p)."""

    @abstractmethod
    def _recur(self, gram: Tensor, norms: Tensor) -> None:
        """Replace <x_i, z_j> in `gram`, shape (m, p), by kernel values; `norms` is |x_i||z_j|."""


@dataclass(frozen=True)
class ReluNTK(_ReluNetwork):
    """N_depth, the neural tangent kernel: inner products of the gradients of f in all weights and biases.

        k0(u) = 1 - acos(u) / pi,    k1(u) = u k0(u) + sqrt(1 - u^2) / pi
        S_1 = <x, z>,                S_{k+1} = |x||z| k1(u_k)    with u_k = S_k / (|x||z|)
        N_1 = S_1 + bias^2,          N_{k+1} = N_k k0(u_k) + S_{k+1} + bias^2

    K(x, x) is depth (|x|^2 + bias^2). When x or z is 0, the angle is undefined and u_k is taken as 0, which amounts to
    relu'(0) = 1/2. The kernel is not smooth on the diagonal, so rounding moves the values of equal rows by the square
    root of the rounding error, unless `same` says which rows are equal.

    Args:
        depth: weight layers, 1 or above; depth 1 is the linear kernel <x, z> + bias^2.
        bias: multiplier of the biases, 0 (a network without biases) or above, in the units of |x|.

    Raises:
        InputError: a parameter is out of its range.

    Source: Jacot, Gabriel and Hongler 2018, arXiv:1806.07572, Theorem 1, with Cho and Saul 2009, Kernel methods for
    deep learning, eqs. 3 and 6.

    Example:
        >>> import torch
        >>> ReluNTK(depth=2)(torch.eye(2))
        tensor([[2.0000, 0.3183],
                [0.3183, 2.0000]])
    """

    name: ClassVar[str] = "relu-ntk"
    _tangent: ClassVar[bool] = True

    def _recur(self, gram: Tensor, norms: Tensor) -> None:
        layers = _layers(gram, norms, self.depth)
        if self.bias == 0:
            for k0, cosine in layers:
                gram.mul_(k0).addcmul_(norms, cosine)
            return
        gram.add_(self.bias**2)
        for k0, cosine in layers:
            gram.mul_(k0).addcmul_(norms, cosine).add_(self.bias**2)
        if self.depth > 1:
            # _layers gives zero rows the cosine k1(0) from the second layer on, although S_k / (|x||z|) is 0 / 0 in
            # every layer. With a cosine of 0 in every layer k0 is 1/2, and the recursion is N_{k+1} = N_k / 2 + bias^2.
            gram.masked_fill_(norms == 0, self.bias**2 * (2 - 2.0 ** (1 - self.depth)))

    @property
    def _slope_at_zero(self) -> float:
        return self.depth * 2.0 ** (1 - self.depth)

    def _derivatives(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        bias = self.bias**2 / w
        by_u, by_w, value = torch.ones_like(u), u.clone(), u + bias  # value is N_k / w
        for k0, k0_slope, path, cosine in _sloped_layers(u, self.depth):
            by_u.mul_(k0).addcmul_(value, k0_slope.mul_(path)).addcmul_(k0, path)
            by_w.mul_(k0).add_(cosine)
            value.mul_(k0).add_(cosine).add_(bias)
        return by_u, by_w


@dataclass(frozen=True)
class ReluNNGP(_ReluNetwork):
    """S_depth, the covariance of f(x) and f(z) over random weights: the kernel of training the last layer alone.

        k1(u) = u (1 - acos(u) / pi) + sqrt(1 - u^2) / pi
        S_1 = <x, z>,    S_{k+1} = |x||z| k1(S_k / (|x||z|))

    K(x, x) is |x|^2 at every depth.

    Args:
        depth: weight layers, 1 or above; depth 1 is the linear kernel <x, z>.
        bias: has no effect, because the biases start at 0. The parameter is accepted so that both kernels of one
            network can be made from the same parameters.

    Raises:
        InputError: a parameter is out of its range.

    Source: Lee et al. 2018, arXiv:1711.00165, eq. 5, with Cho and Saul 2009, Kernel methods for deep learning, eq. 6.

    Example:
        >>> import torch
        >>> ReluNNGP(depth=2)(torch.eye(2))
        tensor([[1.0000, 0.3183],
                [0.3183, 1.0000]])
    """

    name: ClassVar[str] = "relu-nngp"
    _tangent: ClassVar[bool] = False

    def _recur(self, gram: Tensor, norms: Tensor) -> None:
        for _, cosine in _layers(gram, norms, self.depth):
            torch.mul(norms, cosine, out=gram)

    @property
    def _slope_at_zero(self) -> float:
        return 2.0 ** (1 - self.depth)

    def _derivatives(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        by_u, by_w = torch.ones_like(u), u
        for k0, _, path, cosine in _sloped_layers(u, self.depth):
            by_u, by_w = k0 * path, cosine
        return by_u, by_w


def _layers(gram: Tensor, norms: Tensor, depth: int) -> Iterable[tuple[Tensor, Tensor]]:
    """(k0(u_k), u_{k+1}) for k = 1..depth-1. The next step overwrites both tensors, and no step reads `gram` again.

    The state is v = 1 - u: near u = 1 the angle theta is about sqrt(2 v), and u itself would have rounded v away. With
    u = cos(theta) the recursion is v_{k+1} = v_k - (sin(theta) - theta cos(theta)) / pi, and k0 = 1 - theta / pi.
    """
    if depth == 1:
        return ()
    # The clamp makes the cosine of zero rows 0 and does not change any other cosine.
    v = norms.clamp(min=torch.finfo(norms.dtype).tiny)
    torch.div(gram, v, out=v)
    return _iterate(torch.sub(1, v, out=v), depth)


def _iterate(v: Tensor, depth: int) -> Iterator[tuple[Tensor, Tensor]]:
    half, sine, cosine = torch.empty_like(v), torch.empty_like(v), 1 - v.clamp_(0, 2)
    for _ in range(depth - 1):
        v.clamp_(min=torch.finfo(v.dtype).tiny)  # so that the angle of equal rows is 0: no root of -1e-170, no 0 / 0
        torch.sub(2, v, out=sine).mul_(v).sqrt_()  # sqrt(1 - u^2), without its cancellation near u = 1
        # tan(theta / 2) = (1 - cos(theta)) / sin(theta), because atan2 takes three times the time of atan.
        torch.div(v, sine, out=half).atan_()
        v.sub_(sine.addcmul_(half, cosine, value=-2), alpha=1 / math.pi)
        yield torch.sub(1, half, alpha=2 / math.pi, out=half), torch.sub(1, v, out=cosine)


def _sloped_layers(u: Tensor, depth: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(k0(u_k), k0'(u_k), du_k/du_1, u_{k+1}) for k = 1..depth-1, where k1' = k0; the recursion of `_iterate`."""
    v, path = 1 - u, torch.ones_like(u)
    least = 32 * torch.finfo(u.dtype).eps  # of sin^2(theta); below it rounding hides the direction of z from x
    for _ in range(depth - 1):
        sine_sq, cosine = v * (2 - v), 1 - v
        sine = sine_sq.sqrt()
        theta = torch.atan2(sine, cosine)
        v = v - (sine - theta * cosine) / math.pi
        k0 = 1 - theta / math.pi
        yield k0, torch.where(sine_sq > least, 1 / (math.pi * sine), 0.0), path, 1 - v
        path = path * k0
