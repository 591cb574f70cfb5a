"""A preconditioner of low rank: randomly pivoted Cholesky, and a multiple of the identity for what it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, pad_columns
from kl.rows.rows import Rows

BLOCKS = 10  # rounds in which pivots are drawn
SLACK = 1e-6  # relative, for the pivots' own block: what float32 leaves of it may not be positive definite
ROUNDING = 4 * torch.finfo(torch.float32).eps
NEARLY = 1e-3  # of K's diagonal; where more is left, the rank of K is far above the number of pivots
SINGULAR = 5 * ROUNDING  # of K's diagonal; what is left below it may be the factor's own rounding error


def pivoted_cholesky(
    kernel: Kernel, rows: Rows, rank: int, seed: int = 0, ranks: Ranks | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """F with F^T F close to K(X, X) on its largest eigendirections, by randomly pivoted Cholesky.

    Pivots are drawn with probabilities proportional to the diagonal of what is left, K - F^T F, a block at a time.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n, on all ranks.
        rank: pivots to draw; fewer are where what is left is rounding error.
        seed: of the pivots.
        ranks: who has which columns of F.

    Returns:
        F, the columns of this rank, shape (k, n_r); the pivots, shape (k,), no row twice; the diagonal of K - F^T F,
        shape (n,), float64.

    Source: block randomly pivoted Cholesky, Chen, Epperly, Tropp, Webber 2022, Randomly pivoted Cholesky, algorithm 4;
    ours: drawn without replacement.
    """
    generator, n, ranks = torch.Generator().manual_seed(seed), len(rows), ranks or Ranks()
    diagonal, least = kernel.block_diag(rows).double(), _least(kernel, rows)
    own = rows if ranks.size == 1 else rows[ranks.positions(n, diagonal.device)]
    factor, k, chosen = rows.sq_norm.new_empty(rank, len(own)), 0, []
    while k < rank and float(diagonal.mean()) > least:
        m = min(max(1, rank // BLOCKS), rank - k, int((diagonal > 0).sum()))
        pivots = torch.multinomial(diagonal.cpu(), m, generator=generator).to(diagonal.device)
        block, mine = factor[k : k + m], pivots % ranks.size == ranks.rank
        kernel_matrix(kernel, rows[pivots], own, same=torch.where(mine, pivots // ranks.size, -1), out=block)
        block.addmm_(_columns(factor[:k], pivots, ranks).T, factor[:k], alpha=-1)
        corner = _columns(block, pivots, ranks).double()
        corner.diagonal().add_(least + SLACK * float(corner.diagonal().mean()))
        lower, info = torch.linalg.cholesky_ex(corner)
        if int(info):  # what is left is rounding error
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
    """Columns of the whole matrix, on all ranks, shape (k, m)."""
    if ranks.size == 1:
        return matrix[:, which]
    mine = which % ranks.size == ranks.rank
    out = matrix.new_zeros(len(matrix), len(which))
    out[:, mine] = matrix[:, which[mine] // ranks.size]
    return ranks.all_reduce_sum(out)


def _least(kernel: Kernel, rows: Rows) -> float:
    """Below the rounding error of a float32 matrix nothing is known, and dividing by less would amplify it."""
    return ROUNDING * len(rows) ** 0.5 * float(kernel.block_diag(rows).double().mean())


class LowRankPreconditioner:
    """M = F^T F + delta I, where F^T F is close to K(X, X) on its largest eigendirections.

    F is that of `pivoted_cholesky`, delta the mean of the diagonal of what it leaves plus that of the ridge. Two
    products with F give

        M^{-1} r = (r - F^T (delta I + F F^T)^{-1} F r) / delta

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n, with kernel values in float32.
        rank: pivots to draw, k.
        ridge: the mean of what is added to K's diagonal.
        seed: of the pivots.
        ranks: who has which columns of F.

    Attributes:
        left: the share of K's diagonal that F^T F leaves, 0 to 1.

    Source: delta is ours; with it MNIST took the fewest iterations (half of those at ten times less, two thirds of
    those at five times more).
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
        self.asked, self._n = rank, len(rows)
        self._factor, _, diagonal = pivoted_cholesky(kernel, rows, rank, seed, self._ranks)  # F, shape: (k, n_r)
        least = _least(kernel, rows)
        self.left = float(diagonal.mean()) / max(float(kernel.block_diag(rows).double().mean()), least)
        self.delta = max(float(diagonal.mean()), least) + ridge
        inner = self._ranks.all_reduce_sum(self._factor @ self._factor.T).double()
        inner.diagonal().add_(self.delta)
        self._inner = torch.linalg.cholesky(inner)

    @property
    def rank(self) -> int:
        """The pivots drawn, k."""
        return len(self._factor)

    @property
    def exhausted(self) -> bool:
        """Whether K has no more directions than were drawn, as float32 sees it."""
        return self.rank < min(self.asked, self._n) or self.left <= SINGULAR * self._n**0.5

    @property
    def nearly_exhausted(self) -> bool:
        """Whether so little is left that K may be of a rank that a factor of it can have."""
        return self.left <= NEARLY

    def solve(
        self,
        r: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """M^{-1} r, shape (n, c), float64, of which the products with F are taken in float32; the same on all ranks."""
        size, n = r.norm(dim=0), len(r)
        scaled = r / torch.where(size > 0, size, 1.0)
        own = scaled[self._ranks.local_rows(n)].to(self._factor.dtype)
        top = self._ranks.all_reduce_sum(self._factor @ pad_columns(own)).double()
        del own
        top = torch.cholesky_solve(top, self._inner).to(self._factor.dtype)
        bulk = self._ranks.all_gather_in_order((self._factor.T @ top)[:, : r.shape[1]], n)
        return scaled.sub_(bulk).mul_(size / self.delta)
