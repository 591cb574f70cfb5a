"""EigenPro's rule for the rank q: how many eigendirections of the kernel to damp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.eigenpro.preconditioner import DAMPING, power_of_two
from kl.eigenpro.rules import optimal_step_size
from kl.eigenpro.spectrum import Eigensystem

STEP_FLOPS = 5e7  # the fixed cost of a step (Python, Lightning), in flops of a 2-core CPU


@dataclass(frozen=True)
class Ridge:
    """A ridge (not multiplied by n): `value` is added to the diagonal of K, `shift` to the eigenvalues of K / n."""

    value: float
    n: int

    @property
    def shift(self) -> float:
        """ridge / n."""
        return self.value / self.n


NO_RIDGE = Ridge(0.0, 1)


@dataclass(frozen=True)
class RankCandidates:
    """Estimates of beta and lambda_1 of K_P for every rank q = 1, 2, ... that the subsample resolves."""

    beta: Tensor  # max_x K_P(x, x), shape: (q candidates,)
    lambda_1: Tensor  # lambda_1(K_P), shape: (q candidates,)

    @property
    def critical(self) -> Tensor:
        """m*, shape (q candidates,)."""
        return self.beta / self.lambda_1 + 1

    def largest_for(self, batch: int) -> int:
        """The largest q whose critical batch size is at most `batch`; 0 if that of q = 1 is already larger.

        At a gap of the spectrum the critical batch size may jump over `batch`. If that of q is below half of `batch`,
        most of the batch would be wasted, so the result is q + 1, the first rank beyond the gap.

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
        """The rank q <= `most` that reaches a given error in the least time with batches of `batch` rows.

        The number of steps is proportional to 1 / eta, because undamped directions converge at the rate eta lambda_i
        per step. A step takes step_flops + q rank_flops.

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

    With r = ridge / n and D_i = (1 - ((lambda_q + r) / (lambda_i + r))^a) / lambda_i,
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

    Smaller ones would allow steps so large that they amplify the rounding of the kernel values: the batch part and the
    subsample part of the update cancel, and the rest would be mostly error. Smooth kernels of few features have such
    small eigenvalues.
    """
    return eigenvalues[eigenvalues > torch.finfo(dtype).eps ** 0.5 * eigenvalues[0]]
