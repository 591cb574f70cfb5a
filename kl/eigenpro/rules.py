"""EigenPro's rules for the batch and the step size that a kernel's beta and lambda_1 allow."""

from __future__ import annotations

STEP_MARGIN = 0.9  # the step stays this far below the edge of stability
SMALLEST_BATCH = 32  # kernels of low rank have a critical batch of a few rows, and a step has a cost of its own
BATCH_MULTIPLE = 16  # matrix units work in blocks of rows


def critical_batch_size(beta: float, lambda_1: float) -> int:
    """m* = beta(K_P) / lambda_1(K_P) + 1: up to it time falls linearly with the batch, beyond it hardly.

    Source: Ma, Belkin 2019, arXiv:1806.06144, m*(k) = beta(K)/lambda_1(K) + 1, from the convergence bound of Ma,
    Bassily, Belkin 2018, The power of interpolation.
    """
    return max(1, int(beta / lambda_1) + 1) if lambda_1 > 0 else 2**31


def optimal_step_size(m: int, beta: float, lambda_1: float, margin: float = STEP_MARGIN) -> float:
    """eta = m / beta below the critical batch size, 2m / (beta + (m - 1) lambda_1) above it.

    The second is the edge of stability; the step is kept below `margin` times it on both sides.

    Source: Ma, Belkin 2019, arXiv:1806.06144, step 3 of its main algorithm; the margin is ours.
    """
    edge = 2 * m / (beta + (m - 1) * lambda_1)
    return min(m / beta, margin * edge)


def default_batch_size(critical: int, memory_batch: int, parallel: bool) -> int:
    """min(m*, m_G) on a parallel device; half of m* on a CPU; at least 32 where memory allows, and a multiple of 16.

    On a GPU a step of up to m_G rows takes about the same time, so m* is the fastest (arXiv:1806.06144). On a CPU an
    epoch takes the same time at any m, and convergence per epoch, proportional to 2 / (1 + m/m*), still gains below m*.
    """
    wanted = max(SMALLEST_BATCH, critical if parallel else critical // 2)
    return min(memory_batch, wanted // BATCH_MULTIPLE * BATCH_MULTIPLE)
