"""The projection onto span{K(., z_1), ..., K(., z_p)}, in terms of weights.

The projection of a function g is sum_j theta_j K(., z_j) with K(Z, Z) theta = h; of g only h = g(Z) is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.options import EigenProOptions
from kl.eigenpro.plan import plan_eigenpro
from kl.errors import DivergenceError, InputError
from kl.kernels.kernel import Kernel
from kl.products.kept import KernelMatrix
from kl.products.triangle import LowerTriangle
from kl.rows.rows import Rows

DOUBLE_CENTERS = 2048  # with at most this many centres the factor is computed in float64
ROUNDING = 4.0  # the shift of a factor's diagonal in units of eps |K|
GROWTH, TRIES = 10.0, 6  # the shift grows by GROWTH until one of TRIES factorisations succeeds


class Projection(ABC):
    """Solves K(Z, Z) theta = h, exactly or approximately.

    If theta is linear in h, and 0 only for h = 0, an inexact solve does not change the limit of training, at which the
    h of an epoch add up to 0. The remainder h - K(Z, Z) theta must not be added to the next h: f has not moved by it,
    so the next residuals contain it again, and training would diverge if it counted twice.
    """

    @abstractmethod
    def solve(
        self,
        h: Tensor,  # shape: (p, c)
        start: Tensor,  # shape: (s, c)
    ) -> Tensor:
        """theta, shape (p, c), float64; an iterative solve starts at `start` on the first s centres, 0 elsewhere."""

    @abstractmethod
    def sq_norm(
        self,
        alpha: Tensor,  # shape: (p, c)
    ) -> Tensor:
        """alpha_k^T K(Z, Z) alpha_k for every output k, shape (c,), float64."""


class FactorProjection(Projection):
    """Projects by a Cholesky factor of K(Z, Z) + shift I, which keeps p^2 / 2 values; a solve takes 2 p^2 c flops.

    The shift is 4 eps |K|, with the eps of the kernel values that h is summed from, or more if the factorisation fails.
    It keeps the matrix positive definite despite rounding. If centres are (nearly) equal, it splits their weight
    between them and keeps the rounding error of h from being amplified.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        centers: z_1..z_p.

    Attributes:
        shift: what was added to the diagonal.

    Raises:
        InputError: the kernel is not finite on some pairs of centres, or not positive semi-definite.
    """

    def __init__(self, kernel: Kernel, centers: Rows) -> None:
        rows = centers.double() if len(centers) <= DOUBLE_CENTERS else centers
        self._triangle = LowerTriangle(kernel, rows)
        self._triangle.keep(len(self._triangle.columns))
        self.shift = ROUNDING * torch.finfo(centers.dtype).eps * _largest_eigenvalue(self._triangle)
        for _ in range(TRIES):
            if self._triangle.factorise(rows.sq_norm.new_full((len(rows),), self.shift)):
                return
            self.shift *= GROWTH
            self._triangle.panels.clear()  # frees the memory that `keep` takes again
            self._triangle.keep(len(self._triangle.columns))
        raise InputError(
            f"kernel {kernel} must be finite and positive semi-definite on the centres; K(Z, Z) is not: rescale the "
            "features, or correct a kernel of your own (see kl.testing.check_kernel)"
        )

    def solve(self, h: Tensor, start: Tensor) -> Tensor:
        """theta by the factor; `start` is not used."""
        return self._triangle.solve(h)

    def sq_norm(self, alpha: Tensor) -> Tensor:
        """alpha_k^T K(Z, Z) alpha_k = |L^T alpha_k|^2 - shift |alpha_k|^2, with the factor L."""
        squares = self._triangle.transposed_matmul(alpha).square_().sum(dim=0)
        return (squares - self.shift * alpha.double().square().sum(dim=0)).clamp_(min=0)


class FirstRankProjection(Projection):
    """Projects onto the centres of all ranks by a projection that only rank 0 holds.

    Args:
        projection: the projection of rank 0; None on the other ranks.
        p: centres of all ranks.
        ranks: the ranks that share the centres.
    """

    def __init__(self, projection: Projection | None, p: int, ranks: Ranks) -> None:
        self._projection, self._p, self._ranks = projection, p, ranks

    def solve(self, h: Tensor, start: Tensor) -> Tensor:
        """theta of this rank's centres, from h of this rank's centres."""
        h = self._ranks.all_gather_in_order(h.double(), self._p)
        theta = h if self._projection is None else self._projection.solve(h, start)
        return self._ranks.broadcast(theta)[self._ranks.local_rows(self._p)]

    def sq_norm(self, alpha: Tensor) -> Tensor:
        """alpha_k^T K(Z, Z) alpha_k over all centres; `alpha` holds this rank's weights."""
        alpha = self._ranks.all_gather_in_order(alpha.double(), self._p)
        found = alpha.new_empty(alpha.shape[1]) if self._projection is None else self._projection.sq_norm(alpha)
        return self._ranks.broadcast(found)


class EigenProProjection(Projection):
    """Projects by a few epochs of EigenPro 2 on the centres: little memory, p^2 kernel values an epoch.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        centers: the centres of this rank.
        head: the first centres of all ranks, `kl.eigenpro.plan.head_rows` of them; the first s are the subsample.
        p: centres of all ranks.
        num_outputs: c.
        subsample: s, the subsample of EigenPro 2 and the rows of `start`.
        memory: bytes that a step may use.
        epochs: epochs of EigenPro 2 in a solve.
        ranks: the ranks that share the centres.

    Source: Abedsoltan, Belkin, Pandit 2023, arXiv:2302.02605, and Abedsoltan, Ma, Pandit, Belkin 2024,
    arXiv:2411.16658, who project by EigenPro 2.
    """

    def __init__(
        self,
        kernel: Kernel,
        centers: Rows,
        head: Rows,
        p: int,
        num_outputs: int,
        subsample: int,
        memory: int,
        epochs: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        ranks, device = ranks or Ranks(), centers.data.device
        options = EigenProOptions(subsample=subsample)
        self.plan, preconditioner, _ = plan_eigenpro(kernel, head, p, num_outputs, memory, options, ranks=ranks)
        fitted = FittedValues(p, subsample, num_outputs, ranks).to(device)
        fitted.attach(KernelMatrix(kernel, centers, p, ranks), head[:subsample], None)
        theta = torch.zeros(ranks.count(p), num_outputs, dtype=torch.float64, device=device)
        self._iteration = EigenProIteration(self.plan, preconditioner, fitted, theta)
        self._zero = fitted.snapshot()
        order = torch.randperm(p, generator=torch.Generator().manual_seed(0)).to(device)
        self._batches = order.split(self.plan.batch_size) * epochs

    def solve(self, h: Tensor, start: Tensor) -> Tensor:
        """theta of this rank's centres; all solves use the same batches, so that theta is linear in h and start.

        Raises:
            DivergenceError: theta is not finite.
        """
        iteration, fitted, theta = self._iteration, self._iteration.fitted, self._iteration.alpha
        fitted.load_state_dict(self._zero)
        fitted.pending += start
        theta.zero_()
        theta[: fitted.ranks.count(len(start))] = start[fitted.ranks.local_rows(len(start))]
        iteration.targets = h
        for rows in self._batches:
            iteration.step(rows)
        if not bool(torch.isfinite(fitted.ranks.all_reduce_sum(theta.sum()))):
            raise DivergenceError(
                f"the projection onto {fitted.n} centres diverged at step size {self.plan.step_size:.3g}: raise "
                "memory= so that a factor of K(Z, Z) fits, or look for extreme values in the features"
            )
        return theta.clone()

    def sq_norm(self, alpha: Tensor) -> Tensor:
        """alpha_k^T K(Z, Z) alpha_k by a product with K(Z, Z); `alpha` holds this rank's weights."""
        fitted = self._iteration.fitted
        return fitted.ranks.all_reduce_sum((alpha.double() * fitted.matrix.matmul(alpha)).sum(dim=0)).clamp_(min=0)


def make_projection(
    kernel: Kernel,
    centers: Rows,  # of this rank
    head: Rows,  # the first of all ranks' centres
    p: int,
    c: int,
    s: int,
    budget: int,
    keep_factor: bool,
    ranks: Ranks,
) -> Projection:
    """The projection by a factor of K(Z, Z), which rank 0 holds, or by EigenPro 2 in a quarter of the budget."""
    if not keep_factor:
        return EigenProProjection(kernel, centers, head, p, c, s, budget // 4, ranks=ranks)
    if ranks.size == 1:
        return FactorProjection(kernel, centers)
    every = ranks.gather_in_order(centers.data, p).to(centers.data)
    made: list[Projection] = []

    def make() -> None:
        made.append(FactorProjection(kernel, Rows.of(every, like=head)))

    ranks.broadcast_result(make)
    return FirstRankProjection(made[0] if made else None, p, ranks)


def _largest_eigenvalue(triangle: LowerTriangle, iterations: int = 8) -> float:
    """An estimate of |K|, by power iteration."""
    v = torch.ones(len(triangle), 1, dtype=torch.float64, device=triangle.rows.data.device)
    size = 0.0
    for _ in range(iterations):
        v = triangle.matmul(v / v.norm())
        size = float(v.norm())
    return size
