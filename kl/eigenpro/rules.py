"""EigenPro's rules for the batch and the step size that a kernel's beta and lambda_1 allow."""

from __future__ import annotations

STEP_MARGIN = 0.9  # the step size is at most this share of the edge of stability
SMALLEST_BATCH = 32  # rows; kernels of low rank have a critical batch of a few rows, but every step has a fixed cost
BATCH_MULTIPLE = 16  # matrix units work in blocks of rows


def critical_batch_size(beta: float, lambda_1: float) -> int:
    """m* = beta(K_P) / lambda_1(K_P) + 1; up to m*, larger batches save steps in proportion, and beyond m* hardly any.

    Source: Ma, Belkin 2019, arXiv:1806.06144, m*(k) = beta(K)/lambda_1(K) + 1, from the convergence bound of Ma,
    Bassily, Belkin 2018, The power of interpolation.
    """
    return max(1, int(beta / lambda_1) + 1) if lambda_1 > 0 else 2**31


def optimal_step_size(m: int, beta: float, lambda_1: float, margin: float = STEP_MARGIN) -> float:
    """eta, the smaller of m / beta and `margin` times the edge of stability 2m / (beta + (m - 1) lambda_1).

    m / beta is the smaller one for batches well below the critical batch size.

    Source: Ma, Belkin 2019, arXiv:1806.06144, step 3 of its main algorithm; the margin is ours.
    """
    edge = 2 * m / (beta + (m - 1) * lambda_1)
    return min(m / beta, margin * edge)


def default_batch_size(critical: int, memory_batch: int, parallel: bool) -> int:
    """m* on a GPU (`parallel`), half of m* on a CPU; at least 32, a multiple of 16, and never above m_G.

    On a GPU a step of up to m_G rows takes about the same time, so m* is the fastest (arXiv:1806.06144). On a CPU an
    epoch takes the same time at any m, so a batch below m* is faster, because the convergence per epoch is proportional
    to 2 / (1 + m/m*).
    """
    wanted = max(SMALLEST_BATCH, critical if parallel else critical // 2)
    return min(memory_batch, wanted // BATCH_MULTIPLE * BATCH_MULTIPLE)
