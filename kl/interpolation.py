"""The exact limit of training: the minimum-norm interpolant, by a direct solve in float64."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from kl.engine import TILE, kernel_matmul, symmetric_kernel_matrix
from kl.errors import InputError, MemoryBudgetError, SingularKernelError
from kl.kernels.base import Kernel, check_not_negative
from kl.memory import format_memory, parse_memory
from kl.rows import Rows, check_finite_matrix

log = logging.getLogger(__name__)

RESIDUAL_WANTED = 1e-9  # refine while the relative residual is above this
RESIDUAL_ACCEPTED = 1e-6  # above this the factorisation counts as failed
EIGEN_LIMIT = 5000  # rows up to which a singular kernel matrix is solved by its eigen-decomposition

Solve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Interpolant:
    """f = sum_i alpha_i K(., x_i) with (K + ridge I) alpha = Y, and how well that was solved.

    Rows that are equal to the bit share one equation, whose target is the mean of theirs. Where their targets differ no
    function fits them all; the mean is then the least-squares limit, which gradient descent on all rows converges to
    and small batches move about.
    """

    alpha: Tensor
    """Weights in the order of the training rows, shape (n, c), float64."""
    fitted: Tensor
    """f(X) = K alpha, shape (n, c), float64."""
    relative_residual: float
    """|K alpha + ridge alpha - Y|_F / |Y|_F, recomputed from the kernel in float64 (Y: the means for equal rows)."""
    jitter: float
    """What was added to the diagonal beside the ridge; 0 unless the factorisation failed without it."""
    ridge: float
    rkhs_norm: float
    """|f|_H = sqrt(trace(alpha^T K alpha))."""
    rkhs_norm_per_class: Tensor
    """|f_k|_H, shape (c,), float64."""
    seconds: float
    solver: str
    """"direct" (Cholesky), or "eigen" where the matrix is singular: minimum-norm least squares."""
    iterations: int
    """Steps of iterative refinement."""


def interpolate(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    ridge: float = 0.0,
    memory: str | int = "auto",
) -> Interpolant:
    """Solve (K(X, X) + ridge I) alpha = Y for all outputs at once; with ridge = 0 the minimum-norm interpolant.

    Args:
        kernel: the kernel; `bandwidth="auto"` is resolved on x.
        x: training features, shape (n, d).
        y: targets, shape (n, c).
        ridge: lambda >= 0 (not multiplied by n).
        memory: budget in bytes, "8GB", or "auto" (half of what is free); the solve needs about 8 n^2 bytes.

    Returns:
        The weights with residual, jitter, norm and time.

    Raises:
        InputError: x or y is no finite float matrix, their lengths differ, or the ridge is negative or not finite.
        MemoryBudgetError: the kernel matrix does not fit the budget.
        SingularKernelError: no factorisation gave a solution; the message says what to do.

    Source: [B18] section 2; Cholesky in float64 with iterative refinement.

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> kl.interpolate(kl.Laplacian(1.0), x, y).fitted.round(decimals=6).flatten().tolist()
        [1.0, 2.0]
    """
    start = time.perf_counter()
    check_finite_matrix("x", x)
    check_finite_matrix("y", y)
    if len(x) != len(y):
        raise InputError(f"x and y must have one row per sample; got {len(x)} and {len(y)}")
    ridge = check_not_negative("ridge", ridge)
    kernel = kernel.resolve(x)
    first, group = _equal_rows(x)
    counts = torch.bincount(group).double()[:, None]
    rows = Rows.of(x[first]).double()
    means = torch.zeros(len(first), y.shape[1], dtype=torch.float64, device=y.device).index_add_(0, group, y.double())
    means /= counts
    if len(first) < len(x) and not torch.allclose(means[group], y.double()):
        log.warning(
            "%d training rows repeat others and some carry different targets; no function fits them all, so the "
            "exact limit fits their mean",
            len(x) - len(first),
        )
    _check_budget(len(rows), rows.data.shape[1], parse_memory(memory, x.device))
    # A row that stands k times weighs k times in the loss: (K + ridge/k) on its diagonal.
    solved = _solve(kernel, rows, means, ridge / counts.squeeze(1))
    alpha, fitted = (solved.alpha / counts)[group], solved.fitted[group]
    per_class = (alpha * fitted).sum(dim=0).clamp_(min=0)
    return replace(
        solved,
        alpha=alpha,
        fitted=fitted,
        ridge=ridge,
        rkhs_norm=float(per_class.sum().sqrt()),
        rkhs_norm_per_class=per_class.sqrt(),
        seconds=time.perf_counter() - start,
    )


def direct_memory(n: int, d: int) -> int:
    """Bytes of a direct solve: K in float64, factorised in place, the features in float32 and as codes, and tiles."""
    return 8 * n * n + 6 * n * d + 32 * min(TILE, n * n)


def _check_budget(n: int, d: int, budget: int) -> None:
    need = direct_memory(n, d)
    if need > budget:
        fits = n
        while fits > 1 and direct_memory(fits, d) > budget:
            fits = int(0.99 * fits)
        raise MemoryBudgetError(
            f"the exact solve of n={n} rows needs {format_memory(need)}, more than the budget of "
            f"{format_memory(budget)}: raise --memory, or use --train-size {fits} or less"
        )


def _equal_rows(
    x: Tensor,  # shape: (n, d)
) -> tuple[Tensor, Tensor]:
    """The first row of every group of bitwise equal rows, shape (u,), and each row's group, shape (n,)."""
    groups: dict[bytes, int] = {}
    first: list[int] = []
    group = np.empty(len(x), dtype=np.int64)
    # Adding 0 turns -0.0 into 0.0, which is equal but has other bytes.
    x = x.float() if x.dtype == torch.bfloat16 else x  # NumPy has no bfloat16
    for i, row in enumerate(np.ascontiguousarray((x + 0.0).cpu().numpy())):
        key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        group[i] = groups.setdefault(key, len(groups))
        if group[i] == len(first):
            first.append(i)
    return torch.tensor(first, device=x.device), torch.from_numpy(group).to(x.device)


def _solve(
    kernel: Kernel,
    rows: Rows,
    y: Tensor,  # shape: (n, c)
    ridge: Tensor,  # shape: (n,)
) -> Interpolant:
    """Factorise with as little jitter as it takes, then refine with true residuals."""
    scale = float(kernel.diag(rows.data).mean())
    if not math.isfinite(scale):
        raise InputError(
            f"kernel {kernel} is not finite on the training rows, whose values are too large or too small for their "
            "float type: rescale the features"
        )
    if scale <= 0:
        raise SingularKernelError(
            f"kernel {kernel} is zero on every training row: choose another kernel, or give it a bias"
        )
    floor = scale * max(len(rows) * torch.finfo(torch.float64).eps, 1e-14)
    best = None
    for jitter in (0.0, floor, 1e2 * floor, 1e4 * floor):
        solve = None  # lets go of the factor before, which is as large as the next
        solve = _cholesky(kernel, rows, ridge + jitter)
        if solve is not None:
            result = _refine(kernel, rows, y, ridge, solve, jitter)
            if best is None or result.relative_residual < best.relative_residual:
                best = result
            if best.relative_residual <= RESIDUAL_ACCEPTED:
                break
    solve = None
    if best is None or best.relative_residual > RESIDUAL_ACCEPTED:
        if len(rows) > EIGEN_LIMIT:
            raise SingularKernelError(
                f"the kernel matrix of n={len(rows)} rows is singular to working precision and its system could not be "
                "solved: give a small ridge (--ridge 1e-6), a smaller bandwidth, or fewer rows (--train-size)"
            )
        best = _refine(kernel, rows, y, ridge, _eigen(kernel, rows, ridge), 0.0, "eigen")
        if not math.isfinite(best.relative_residual):
            raise InputError(f"kernel {kernel} is not finite on some pairs of training rows: rescale the features")
        log.warning(
            "the kernel matrix is singular, so the targets cannot all be fitted (relative residual %.1e); the exact "
            "limit is the least-squares solution of minimum norm. A ridge or a kernel of full rank avoids this",
            best.relative_residual,
        )
    elif best.jitter > 0:
        log.warning(
            "the kernel matrix is not positive definite in float64; added jitter %.1e to its diagonal (relative "
            "residual %.1e)",
            best.jitter,
            best.relative_residual,
        )
    return best


def _refine(
    kernel: Kernel, rows: Rows, y: Tensor, ridge: Tensor, solve: Solve, jitter: float, solver: str = "direct"
) -> Interpolant:
    """Iterative refinement: correct alpha by the solve of its true residual while that helps."""
    same = torch.arange(len(rows), device=y.device)
    size = max(float(y.norm()), torch.finfo(torch.float64).tiny)
    alpha, best, iterations = solve(y), None, 0
    while True:
        fitted = kernel_matmul(kernel, rows, rows, alpha, same=same)
        residual = y - fitted - ridge[:, None] * alpha
        relative = float(residual.norm()) / size
        if best is not None and not relative < best.relative_residual:
            return best
        best = Interpolant(
            alpha=alpha,
            fitted=fitted,
            relative_residual=relative if math.isfinite(relative) else math.inf,
            jitter=jitter,
            ridge=0.0,
            rkhs_norm=0.0,
            rkhs_norm_per_class=y.new_zeros(y.shape[1]),
            seconds=0.0,
            solver=solver,
            iterations=iterations,
        )
        if solver != "direct" or relative <= RESIDUAL_WANTED or iterations == 5 or not math.isfinite(relative):
            return best
        alpha, iterations = alpha + solve(residual), iterations + 1


def _cholesky(kernel: Kernel, rows: Rows, shift: Tensor) -> Solve | None:
    """Factorise K + diag(shift) in place; None where it is not positive definite."""
    matrix = symmetric_kernel_matrix(kernel, rows, lower_only=True)
    matrix.diagonal().add_(shift)
    if matrix.is_cuda:
        factor, info = torch.linalg.cholesky_ex(matrix)
        return None if int(info) else lambda rhs: torch.cholesky_solve(rhs, factor)
    try:
        # The transpose is the same memory in the column order that LAPACK overwrites.
        upper = scipy.linalg.cho_factor(matrix.numpy().T, lower=False, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return lambda rhs: torch.from_numpy(scipy.linalg.cho_solve(upper, rhs.numpy(), check_finite=False)).contiguous()


def _eigen(kernel: Kernel, rows: Rows, shift: Tensor) -> Solve:
    """Pseudo-inverse of K + diag(shift): directions below the rounding error of the largest are left out."""
    matrix = symmetric_kernel_matrix(kernel, rows, lower_only=True)
    matrix.diagonal().add_(shift)
    values, vectors = torch.linalg.eigh(matrix, UPLO="L")
    keep = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    return lambda rhs: vectors @ ((vectors.T @ rhs) / values[:, None])
