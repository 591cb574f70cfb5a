"""Kernel matrices of low rank: a float64 factor of the range of K solves the equations as far as they can be solved."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from kl.exact.cost import low_rank_affordable
from kl.exact.equations import Diagonals, Solved, System, warn_inconsistent
from kl.exact.refinement import RESIDUAL_WANTED, refine
from kl.products.blocks import kernel_matrix

log = logging.getLogger(__name__)

# Pivots of the first block and of the largest: each block has twice the pivots of the block before, so that a matrix of
# low rank ends early.
FIRST, LARGEST = 32, 512
RESOLVED = 1e-8  # share of a block's largest eigenvalue; directions below it are left to later pivots
ROUNDING = 4 * torch.finfo(torch.float64).eps  # relative error of a float64 kernel value


def range_factor(
    system: System,
    max_rank: int,
    seed: int = 0,
) -> Tensor | None:
    """F of shape (k, n), float64, with F^T F = K(X, X) up to rounding; None if the rank of K exceeds `max_rank`.

    Pivots are drawn as in `kl.products.low_rank.pivoted_cholesky`, a block of m at a time. Let R = K - F^T F at the
    pivots, shape (m, n), and C = V diag(w) V^T its corner at the pivots, shape (m, m). The rows diag(w)^(-1/2) V^T R of
    the resolved directions join F, so pivots that depend on one another do no harm.

    Args:
        system: the equations.
        max_rank: the most rows that F may have.
        seed: of the pivots.

    Source: Chen, Epperly, Tropp, Webber 2022, arXiv:2207.06503, algorithm 4; the corner's eigenvectors are ours.
    """
    kernel, rows = system.kernel, system.rows
    generator, n = torch.Generator().manual_seed(seed), len(rows)
    diagonal = kernel.block_diag(rows)
    least = ROUNDING * n**0.5 * float(diagonal.mean())
    factor, m = diagonal.new_empty(0, n), FIRST
    while float(diagonal.mean()) > least:
        m = min(m, n, int((diagonal > 0).sum()))
        pivots = torch.multinomial(diagonal.cpu(), m, generator=generator).to(diagonal.device)
        block = kernel_matrix(kernel, rows[pivots], rows, same=pivots)
        block.addmm_(factor[:, pivots].T, factor, alpha=-1)
        values, vectors = torch.linalg.eigh(block[:, pivots])
        keep = values > RESOLVED * values[-1]
        if not float(values[-1]) > least:  # the remainder is rounding error, or NaN
            break
        block = (vectors[:, keep] / values[keep].sqrt()).T @ block
        if len(factor) + len(block) > max_rank:
            return None
        diagonal = (diagonal - block.square().sum(dim=0)).clamp_(min=0)
        factor, m = torch.cat([factor, block]), min(2 * m, LARGEST)
    return factor


class LowRankSolver:
    """Solves (F^T F + diag(ridge)) alpha = r; with ridge 0 by the weighted least-squares solution of minimum norm.

    Let D = diag(ridge) with a ridge and D = diag(1/W) without, and D^(-1/2) F^T = B diag(s) V^T. The solution is

        D^(-1/2) B diag(s)^(-2) B^T D^(-1/2) r                          without a ridge
        D^(-1/2) (B diag(s^2 + 1)^(-1) B^T + I - B B^T) D^(-1/2) r      with a ridge

    Args:
        factor: F, shape (k, n), float64.
        ridge: 0 in every entry, or above 0 in every entry, shape (n,).
        weights: W of each equation, above 0, shape (n,); None is 1.
    """

    def __init__(self, factor: Tensor, ridge: Tensor, weights: Tensor | None = None) -> None:
        self._has_ridge, self._scale = bool((ridge > 0).all()), None
        if self._has_ridge:
            self._scale = ridge.rsqrt()[:, None]
        elif weights is not None and not bool((weights == weights[0]).all()):
            self._scale = (weights / weights.mean()).sqrt()[:, None]
        q, r = torch.linalg.qr(factor.T if self._scale is None else self._scale * factor.T)
        u, s, _ = torch.linalg.svd(r)
        values = s.square()
        keep = values > ridge.shape[0] * torch.finfo(torch.float64).eps * values[:1]
        self._basis, self._values = q @ u[:, keep], values[keep][:, None]

    @property
    def rank(self) -> int:
        """The number of directions that are solved for."""
        return len(self._values)

    def solve(
        self,
        r: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """alpha, shape (n, c), float64."""
        r = r if self._scale is None else self._scale * r
        top = self._basis.T @ r
        if not self._has_ridge:
            found = self._basis @ (top / self._values)
            return found if self._scale is None else self._scale * found
        return self._scale * (r + self._basis @ (top / (self._values + 1) - top))

    def diagonals(self) -> Diagonals:
        """The diagonals of the inverse or pseudo-inverse, and without a ridge of I - H, for leave-one-out."""
        squares, scale = self._basis.square(), 1.0 if self._scale is None else self._scale.flatten().square()
        if self._has_ridge:
            return Diagonals(scale * (1 - squares @ (self._values / (self._values + 1)).flatten()))
        left = (1 - squares.sum(dim=1)).clamp_(min=0)
        return Diagonals(scale * (squares @ (1 / self._values).flatten()), left)


def find_low_rank(system: System, budget: int, seed: int = 0) -> LowRankSolver | None:
    """The solver of a system whose kernel matrix has a rank that the budget can factorise; None for a higher rank."""
    (n, d), c = system.rows.data.shape, system.y.shape[1]
    factor = range_factor(system, low_rank_affordable(n, d, c, budget), seed)
    if factor is None or not len(factor):
        return None
    solver = LowRankSolver(factor, system.ridge, system.weights)
    log.info("the kernel matrix of %d rows has rank %d; solving by a factor of it", len(system), solver.rank)
    return solver


def solve_low_rank(system: System, tolerance: float, budget: int, diagonals: bool = False) -> Solved | None:
    """Solve by a factor of the range of K, refined by true residuals; None if the rank is too high for the budget.

    Targets outside the range cannot be fitted: a warning says so, and the solution is the least-squares one of minimum
    norm. With `diagonals` the solution has those of the solver.
    """
    solver = find_low_rank(system, budget)
    if solver is None:
        return None
    name = "low-rank" if solver.rank < len(system) else "pcg"
    solved = refine(system, solver.solve, min(RESIDUAL_WANTED, tolerance), solver=name)
    if solved.relative_residual > tolerance and solver.rank < len(system):
        warn_inconsistent(solved.relative_residual, f"the kernel matrix has rank {solver.rank}")
    return replace(solved, diagonals=solver.diagonals()) if diagonals else solved
