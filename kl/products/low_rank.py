"""A preconditioner of low rank: randomly pivoted Cholesky, and a multiple of the identity for the remainder of K."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, thin_matmul
from kl.rows.rows import Rows
from kl.rows.workspace import spans

BLOCKS = 10  # rounds in which the pivots are drawn; fewer rounds would draw worse pivots, more would be slower
# Relative shift of the diagonal of a block's corner, because float32 may leave the corner indefinite.
SLACK = 1e-6
ROUNDING = 4 * torch.finfo(torch.float32).eps  # relative error of a float32 kernel value
NEARLY = 1e-3  # share of K's diagonal; with a larger remainder the rank of K is far above the number of pivots
SINGULAR = 5 * ROUNDING  # share of K's diagonal; a smaller remainder may be the factor's own rounding error


def pivoted_cholesky(
    kernel: Kernel, rows: Rows, rank: int, seed: int = 0, ranks: Ranks | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """F with F^T F close to K(X, X) on its largest eigendirections, by randomly pivoted Cholesky.

    Pivots are drawn a block at a time, with probabilities proportional to the diagonal of the remainder K - F^T F.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n, on all ranks.
        rank: pivots to draw; fewer are drawn if the remainder falls to the rounding error before.
        seed: of the pivots.
        ranks: the ranks that share the columns of F; None is one rank.

    Returns:
        F, the columns of this rank, shape (k, n_r); the pivots, shape (k,), no row twice; the diagonal of K - F^T F,
        shape (n,), float64.

    Source: block randomly pivoted Cholesky, Chen, Epperly, Tropp, Webber 2022, arXiv:2207.06503, algorithm 4; drawing
    without replacement is ours.
    """
    generator, n, ranks = torch.Generator().manual_seed(seed), len(rows), ranks or Ranks()
    diagonal, floor = kernel.block_diag(rows).double(), _rounding_floor(kernel, rows)
    local = rows if ranks.size == 1 else rows[ranks.positions(n, diagonal.device)]
    factor, k, chosen = rows.sq_norm.new_empty(rank, len(local)), 0, []
    while k < rank and float(diagonal.mean()) > floor:
        m = min(max(1, rank // BLOCKS), rank - k, int((diagonal > 0).sum()))
        pivots = torch.multinomial(diagonal.cpu(), m, generator=generator).to(diagonal.device)
        block, is_local = factor[k : k + m], pivots % ranks.size == ranks.rank
        kernel_matrix(kernel, rows[pivots], local, same=torch.where(is_local, pivots // ranks.size, -1), out=block)
        block.addmm_(_columns(factor[:k], pivots, ranks).T, factor[:k], alpha=-1)
        corner = _columns(block, pivots, ranks).double()
        corner.diagonal().add_(floor + SLACK * float(corner.diagonal().mean()))
        lower, info = torch.linalg.cholesky_ex(corner)
        if int(info):  # the remainder is rounding error
            break
        block.copy_(torch.linalg.solve_triangular(lower.to(block.dtype), block, upper=False))
        diagonal = (diagonal - ranks.all_gather_in_order(block.double().square().sum(dim=0), n)).clamp_(min=0)
        chosen.append(pivots)
        k += m
    pivots = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.long, device=diagonal.device)
    return factor[:k], pivots, diagonal


def _columns(
    matrix: Tensor,  # this rank's columns, shape: (k, n_r)
    which: Tensor,  # shape: (m,)
    ranks: Ranks,
) -> Tensor:
    """Columns of the matrix of all ranks, on all ranks, shape (k, m).

    Args:
        matrix: the columns of this rank, shape (k, n_r).
        which: the indices of the columns among all n, shape (m,).
        ranks: the ranks that share the columns.
    """
    if ranks.size == 1:
        return matrix[:, which]
    is_local = which % ranks.size == ranks.rank
    out = matrix.new_zeros(len(matrix), len(which))
    out[:, is_local] = matrix[:, which[is_local] // ranks.size]
    return ranks.all_reduce_sum(out)


def _rounding_floor(kernel: Kernel, rows: Rows) -> float:
    """The rounding error of a float32 matrix with this diagonal; dividing by less would amplify that error."""
    return ROUNDING * len(rows) ** 0.5 * float(kernel.block_diag(rows).double().mean())


class LowRankPreconditioner:
    """M = F^T F + delta I, where F^T F is close to K(X, X) on its largest eigendirections.

    F comes from `pivoted_cholesky`. delta is the mean diagonal of the remainder K - F^T F plus the mean of the ridge.
    Two products with F give

        M^{-1} r = (r - F^T (delta I + F F^T)^{-1} F r) / delta

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n, with kernel values in float32.
        rank: k, pivots to draw.
        ridge: the mean of what is added to K's diagonal.
        seed: of the pivots.
        ranks: the ranks that share the columns of F; None is one rank.

    Attributes:
        remainder: the share of K's diagonal that K - F^T F still has, 0 to 1.

    Source: delta is ours; with it MNIST took the fewest iterations (half as many as with a tenth of this delta, two
    thirds as many as with five times this delta).
    """

    def __init__(
        self,
        kernel: Kernel,
        rows: Rows,
        rank: int,
        ridge: float = 0.0,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._requested, self._n = rank, len(rows)
        self._factor, _, diagonal = pivoted_cholesky(kernel, rows, rank, seed, self._ranks)  # F, shape: (k, n_r)
        floor = _rounding_floor(kernel, rows)
        self.remainder = float(diagonal.mean()) / max(float(kernel.block_diag(rows).double().mean()), floor)
        self.delta = max(float(diagonal.mean()), floor) + ridge
        inner = self._ranks.all_reduce_sum(self._factor @ self._factor.T).double()
        inner.diagonal().add_(self.delta)
        self._inner = torch.linalg.cholesky(inner)

    @property
    def rank(self) -> int:
        """k, the pivots that were drawn."""
        return len(self._factor)

    @property
    def exhausted(self) -> bool:
        """Whether K has, as far as float32 can tell, no more directions than were drawn."""
        return self.rank < min(self._requested, self._n) or self.remainder <= SINGULAR * self._n**0.5

    @property
    def nearly_exhausted(self) -> bool:
        """Whether the remainder is so small that a factor of the whole range of K may be affordable."""
        return self.remainder <= NEARLY

    def inverse_diagonal(self) -> Tensor:
        """The diagonal of M^{-1}, float64, of this rank's rows: n_r k^2 flops in float64."""
        parts = []
        for columns in spans(self._factor.shape[1], max(1, self.rank)):
            half = torch.linalg.solve_triangular(self._inner, self._factor[:, columns].double(), upper=False)
            parts.append((1 - half.square_().sum(dim=0)) / self.delta)
        return torch.cat(parts)

    def solve(
        self,
        r: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """M^{-1} r, shape (n, c), float64, the same on all ranks; the products with F are taken in float32."""
        size, n = r.norm(dim=0), len(r)
        scaled = r / torch.where(size > 0, size, 1.0)
        local = scaled[self._ranks.local_rows(n)].to(self._factor.dtype)
        top = self._ranks.all_reduce_sum(thin_matmul(self._factor, local)).double()
        del local
        top = torch.cholesky_solve(top, self._inner).to(self._factor.dtype)
        bulk = self._ranks.all_gather_in_order(thin_matmul(self._factor.T, top), n)
        return scaled.sub_(bulk).mul_(size / self.delta)
