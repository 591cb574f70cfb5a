"""EigenPro's rule for the rank q: how many eigendirections of the kernel to damp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.eigenpro.preconditioner import DAMPING, power_of_two
from kl.eigenpro.rules import optimal_step_size
from kl.eigenpro.spectrum import Eigensystem

STEP_FLOPS = 5e7  # what a step costs beside its products (Python, Lightning), in flops of a 2-core CPU


@dataclass(frozen=True)
class Ridge:
    """A ridge (not multiplied by n): what it adds to the kernel's diagonal, and to its eigenvalues over n rows."""

    value: float
    n: int

    @property
    def shift(self) -> float:
        """ridge / n."""
        return self.value / self.n


NO_RIDGE = Ridge(0.0, 1)


@dataclass(frozen=True)
class RankCandidates:
    """What P would do at every rank q = 1, 2, ... that the subsample resolves, on probed rows."""

    beta: Tensor  # max_x K_P(x, x), shape: (q candidates,)
    lambda_1: Tensor  # lambda_1(K_P), shape: (q candidates,)

    @property
    def critical(self) -> Tensor:
        """m*, shape (q candidates,)."""
        return self.beta / self.lambda_1 + 1

    def largest_for(self, batch: int) -> int:
        """q: the largest whose critical batch size is at most `batch`, 0 where that of q = 1 is more already.

        Where the spectrum has a gap, that rank may leave most of the batch without use: where its critical batch size
        is below half of the batch, q is one more, the first beyond the gap.

        Source: Ma, Belkin 2019, arXiv:1806.06144, step 2 of its main algorithm, q = max {i : m*(k_P_i) <= m_G}; the gap
        is ours.
        """
        fits = (self.critical <= batch).nonzero()
        if not len(fits):
            return 0
        q = int(fits[-1]) + 1
        gap = q < len(self.critical) and float(self.critical[q - 1]) < batch / 2
        return q + gap

    def fastest_for(self, batch: int, most: int, step_flops: float, rank_flops: float) -> int:
        """q: of the ranks up to `most` the one that needs the least time to a given error with batches of `batch` rows.

        The number of steps falls as 1 / eta: directions that are not damped converge by eta lambda_i a step. The time
        of a step grows with q by `rank_flops`.

        Source: ours.
        """
        if not most:
            return 0
        pairs = zip(self.beta[:most].tolist(), self.lambda_1[:most].tolist(), strict=True)
        eta = torch.tensor([optimal_step_size(batch, *pair) for pair in pairs], dtype=torch.float64)
        ranks = torch.arange(1, most + 1, dtype=torch.float64)
        return int(torch.argmin((step_flops + ranks * rank_flops) / eta)) + 1


def rank_candidates(
    system: Eigensystem,
    diagonal: Tensor,  # K(x_i, x_i) of t rows, shape: (t,)
    block: Tensor,  # K(x, X_S) of the same rows, shape: (t, s)
    ridge: Ridge = NO_RIDGE,
    damping: float = DAMPING,
) -> RankCandidates:
    """The candidates q <= s/8.

    With r the ridge over n and D_i = (1 - ((lambda_q + r) / (lambda_i + r))^a) / lambda_i,
    lambda_1(K_P) + r = (lambda_1 + r)^(1-a) (lambda_q + r)^a and, with p_i(x) = K(x, X_S) V_i / sqrt(s),
    K_P(x, x) = K(x, x) - sum_{i<=q} D_i p_i(x)^2. Beyond s/8 the subsample does not resolve the eigendirections well
    enough to damp them.

    Source: Ma, Belkin 2019, arXiv:1806.06144; the bound s/8 and the ridge are ours.
    """
    s = len(system.eigenvectors)
    values = resolved_eigenvalues(system.eigenvalues, block.dtype)[: max(1, s // 8)]
    if not len(values):
        return RankCandidates(values, values)
    unit = power_of_two(float(diagonal.max()))
    vectors = system.eigenvectors[:, : len(values)] / s**0.5 / unit
    squares = (block @ vectors.to(block.dtype)).square_().double().mul_(unit**2)  # p_i(x)^2
    shifted = values + ridge.shift
    removed = (squares / values).cumsum(dim=1)
    kept = (squares / (values * shifted**damping)).cumsum(dim=1).mul_(shifted**damping)
    beta = (diagonal.double()[:, None] - removed + kept).amax(dim=0) + ridge.value
    return RankCandidates(beta, shifted[0] ** (1 - damping) * shifted**damping)


def resolved_eigenvalues(eigenvalues: Tensor, dtype: torch.dtype) -> Tensor:
    """The eigenvalues above sqrt(eps) times the largest, eps being the unit of rounding of the kernel values.

    A step as large as smaller ones allow would amplify the rounding of the kernel values: batch and subsample parts of
    the update cancel, and what is left of them would be mostly error. Smooth kernels of few features have such spectra.
    """
    return eigenvalues[eigenvalues > torch.finfo(dtype).eps ** 0.5 * eigenvalues[0]]
