"""The equations of the exact limit, their solution, and the progress of a solver."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import LONG_SIDE
from kl.products.triangle import SIDE_ON_GPU, LowerTriangle
from kl.rows.rows import Rows
from kl.rows.workspace import spans
from kl.system.progress import LOG_SECONDS

log = logging.getLogger(__name__)

DOT_VALUES = 2**20  # values that are multiplied at a time: 8 MB in float64


@dataclass(frozen=True)
class System:
    """(K(X, X) + diag(ridge)) alpha = Y, in float64."""

    kernel: Kernel
    rows: Rows  # x_1..x_n, no two of them equal, with kernel values in float64
    y: Tensor  # float64, shape: (n, c)
    ridge: Tensor  # float64, shape: (n,)
    weights: Tensor | None = None
    """W of each equation, shape (n,), float64, which count where a singular K cannot fit all targets; None is 1."""
    ranks: Ranks = field(default_factory=Ranks)
    """The ranks share the products with K; each rank has all rows, targets and weights."""
    _product: LowerTriangle = field(init=False)

    def __post_init__(self) -> None:
        side = SIDE_ON_GPU if self.y.is_cuda else LONG_SIDE
        object.__setattr__(self, "_product", LowerTriangle(self.kernel, self.rows, side, self.ranks))

    def __len__(self) -> int:
        return len(self.rows)

    def single(self) -> Rows:
        """The same rows, for kernel values in float32."""
        rows, dtype = self.rows, torch.float32
        if rows.codes is not None:
            return replace(rows, sq_norm=rows.codes.sq_norm(rows.data.shape[1], dtype))
        return replace(rows, sq_norm=rows.sq_norm.to(dtype))

    def check(
        self,
        alpha: Tensor,  # shape: (n, c)
    ) -> tuple[Tensor, Tensor, float]:
        """K alpha and Y - K alpha - ridge alpha, both (n, c), from the kernel in float64, and |residual| / |Y|."""
        fitted = self._product.matmul(alpha)
        residual = (self.y - fitted).addcmul_(self.ridge[:, None], alpha, value=-1)
        return fitted, residual, self.relative(residual)

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """(K + diag(ridge)) v, shape (n, c), from the kernel in float64."""
        return self._product.matmul(v).addcmul_(self.ridge[:, None], v)

    def relative(self, residual: Tensor) -> float:
        """|residual|_F / |Y|_F; infinity if it is not finite."""
        relative = float(residual.norm()) / max(float(self.y.norm()), torch.finfo(torch.float64).tiny)
        return relative if math.isfinite(relative) else math.inf


def dot_columns(
    a: Tensor,  # shape: (n, c)
    b: Tensor,  # shape: (n, c)
) -> Tensor:
    """<a_k, b_k> of every column, shape (c,), without a temporary of the size of a."""
    parts = (a[rows] * b[rows] for rows in spans(len(a), max(1, DOT_VALUES // a.shape[1])))
    return torch.stack([part.sum(dim=0) for part in parts]).sum(dim=0)


def least_residual_scale(
    product: Tensor,  # shape: (n_r, c)
    y: Tensor,  # shape: (n_r, c)
    ranks: Ranks | None = None,
) -> Tensor:
    """The t_k that make |y_k - t_k product_k| least for each output k, shape (c,); 0 where the product is 0.

    Weights that solve similar equations are a start for a solver; t makes of them one that is never worse than 0.

    Args:
        product: (K + diag(ridge)) alpha, of the rows of this rank, float64.
        y: targets of the same rows.
        ranks: the ranks that share the rows; None is one rank.
    """
    both = torch.stack([dot_columns(product, y.to(product)), dot_columns(product, product)])
    inner, square = (ranks or Ranks()).all_reduce_sum(both)
    return torch.where(square > 0, inner / square, 0.0)


@dataclass(frozen=True)
class Diagonals:
    """The diagonals of G^{-1} and of I - H, with G = K + diag(ridge) and H = K G^{-1}, which takes Y to f(X)."""

    inverse: Tensor  # (G^{-1})_gg, or of the pseudo-inverse, shape: (u,)
    left: Tensor | None = None
    """1 - H_gg, shape (u,), where G is singular and there is no ridge; else it is ridge (G^{-1})_gg / W_g."""
    samples: Tensor | None = None
    """Independent estimates of `inverse`, which is their mean, shape (u, p); None where it is exact up to rounding."""
    least: Tensor | None = None
    """A lower bound of the true `inverse`, shape (u,), of estimates."""


@dataclass(frozen=True)
class Solved:
    """Weights and how well they solve a `System`."""

    alpha: Tensor  # shape: (n, c)
    fitted: Tensor  # K alpha, shape: (n, c)
    relative_residual: float
    solver: str
    iterations: int
    jitter: float = 0.0
    diagonals: Diagonals | None = None
    """For leave-one-out predictions; None if they were not asked for, or cannot be had."""


@dataclass(frozen=True)
class Progress:
    """How far a solver has come."""

    solver: str
    done: float
    """The share of the work that is done, 0 to 1; for conjugate gradients the number of iterations."""
    relative_residual: float | None
    """The residual in the recursion of conjugate gradients; None for other solvers."""
    seconds_left: float
    """An estimate; infinite as long as nothing is known."""

    def __str__(self) -> str:
        left = f", about {duration(self.seconds_left)} left" if math.isfinite(self.seconds_left) else ""
        if self.relative_residual is None:
            return f"{self.solver}: {self.done:.0%} done{left}"
        return f"{self.solver}: iteration {self.done:.0f}, relative residual {self.relative_residual:.1e}{left}"


class Reporter:
    """Passes every report to `listener`, and logs one every few seconds."""

    def __init__(self, listener: Callable[[Progress], object] | None = None) -> None:
        self._listener, self._logged = listener, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Pass a report on; an exception of the listener ends the solve."""
        if time.monotonic() - self._logged >= LOG_SECONDS:
            log.info("%s", progress)
            self._logged = time.monotonic()
        if self._listener is not None:
            self._listener(progress)


def warn_inconsistent(relative: float, cause: str) -> None:
    """Warn that the targets cannot all be fitted, and say what the solution is instead."""
    log.warning(
        "%s, so the targets cannot all be fitted (relative residual %.1e); the exact limit is the least-squares "
        "solution of minimum norm. A ridge or a kernel of full rank avoids this",
        cause,
        relative,
    )


def duration(seconds: float) -> str:
    """Seconds in words, as "1.5 s" or "3 min"."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
