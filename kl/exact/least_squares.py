"""The exact limit of a general kernel model: least squares over the span of p centres, in float64."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from kl.checks import check_not_negative
from kl.errors import InputError, MemoryBudgetError, SingularKernelError
from kl.exact.equations import Progress, Reporter
from kl.exact.interpolate import Interpolant
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows.rows import Rows, check_finite_matrix
from kl.rows.workspace import spans
from kl.system.memory import format_memory, parse_memory

log = logging.getLogger(__name__)

CHUNK = 2048  # rows of data in a pass's block of K(X, Z)
REFINEMENTS = 3  # at most, because each is a pass over the data, n p kernel values
# Squared pivots of a Cholesky factor below this share of the mean diagonal are rounding errors, which solves amplify.
LEAST_PIVOT = 1e-10
LEAST_EIGENVALUE = 1e-11  # relative to the largest; smaller eigenvalues are rounding errors
# Added to the diagonal, relative to its mean, if there are too many centres for an eigen-decomposition.
JITTER = 1e-8
EIGEN_LIMIT = 5000  # centres up to which eigen-decompositions, far slower than factorisations, are affordable


def least_squares(
    kernel: Kernel,
    centers: Tensor,  # shape: (p, d)
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    ridge: float = 0.0,
    memory: int | str = "auto",
    progress: Callable[[Progress], object] | None = None,
) -> Interpolant:
    """The function of span{K(., z_1), ..., K(., z_p)} that minimises sum_i |f(x_i) - y_i|^2 + ridge |f|_H^2.

    With a W of W^T K(Z, Z) W = I and alpha = W u, so that |f|_H = |u|, the normal equations are

        (W^T K(Z, X) K(X, Z) W + ridge I) u = W^T K(Z, X) Y

    W is the inverse of a Cholesky factor of K(Z, Z); a second Cholesky factor solves the equations, and true residuals
    refine the solution. If centres repeat, or nearly repeat, or if many functions fit equally well (as with p > n),
    eigen-decompositions replace both factors, and the solution is the one of least norm.

    The solve costs 2 n p^2 + 4 p^3 flops and n p kernel values in float64, n p kernel values more for each refinement,
    and 4 p^2 numbers of memory.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        centers: z_1..z_p, shape (p, d).
        x: training features, shape (n, d).
        y: targets, shape (n, c).
        ridge: lambda >= 0 (not multiplied by n).
        memory: budget in bytes, "8GB", or "auto" (half of what is free).
        progress: called with a `Progress` now and then; an exception that it raises ends the solve.

    Returns:
        An `Interpolant` whose weights are on the centres, shape (p, c), with f(X), shape (n, c). Its relative residual
        is |W^T K(Z, X) (Y - f(X)) - ridge u| / |W^T K(Z, X) Y|, 0 at the minimum.

    Raises:
        InputError: a matrix is not finite, or the shapes do not fit together.
        MemoryBudgetError: 4 p^2 numbers do not fit the budget.
        SingularKernelError: the equations are singular, and there are too many centres for eigen-decompositions.

    Source: Abedsoltan, Belkin, Pandit 2023, arXiv:2302.02605, section 3, states the problem; the solution is linear
    algebra.

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [1.0], [1.0]])
        >>> kl.least_squares(kl.Gaussian(1.0), x[1:2], x, y).alpha.round(decimals=4).item()  # sum K / sum K^2
        1.275
    """
    start = time.perf_counter()
    for name, matrix in (("centers", centers), ("x", x), ("y", y)):
        check_finite_matrix(name, matrix)
    if len(x) != len(y) or centers.shape[1] != x.shape[1]:
        raise InputError(
            f"x and y must have one row per sample, and centers x's columns; got {tuple(x.shape)}, {tuple(y.shape)} "
            f"and {tuple(centers.shape)}"
        )
    ridge, budget = check_not_negative("ridge", ridge), parse_memory(memory, x.device)
    p = len(centers)
    if (need := least_squares_memory(p, len(x), x.shape[1], y.shape[1])) > budget:
        raise MemoryBudgetError(
            f"the exact limit of p={p} centres needs {format_memory(need)}, more than the budget of "
            f"{format_memory(budget)}: raise memory=, or use fewer centers"
        )
    problem = _Problem(kernel, centers, x, y, Reporter(progress))
    basis, jitter = _orthonormal(problem.gram_of_centers())
    covariance, moment = problem.normal_equations()
    whitened = basis.T @ (covariance @ basis)
    del covariance
    whitened.diagonal().add_(ridge)
    solve = _solver(whitened)
    b = basis.T @ moment
    size = max(float(b.norm()), torch.finfo(torch.float64).tiny)
    best: tuple[float, Tensor, Tensor, Tensor] | None = None
    u, step = torch.zeros_like(b), b
    for _ in range(REFINEMENTS + 1):
        u = u + solve(step)
        alpha = basis @ u
        fitted, moment = problem.residual_moment(alpha)
        step = basis.T @ moment - ridge * u
        relative = float(step.norm()) / size
        if best is not None and not relative < best[0]:
            break
        best = relative, u, alpha, fitted
    relative, u, alpha, fitted = best if best is not None else (math.inf, u, alpha, fitted)
    per_class = (u.square().sum(dim=0) - jitter * alpha.square().sum(dim=0)).clamp_(min=0)
    return Interpolant(
        kernel=kernel,
        centers=centers,
        alpha=alpha,
        fitted=fitted,
        relative_residual=relative,
        tolerance=1.0,
        jitter=jitter,
        ridge=ridge,
        rkhs_norm=float(per_class.sum().sqrt()),
        rkhs_norm_per_class=per_class.sqrt(),
        seconds=time.perf_counter() - start,
        solver="least squares",
        iterations=0,
    )


def least_squares_memory(p: int, n: int, d: int, c: int) -> int:
    """Bytes of a solve: four p x p matrices in float64, a block of K(X, Z) in two precisions, values and residuals."""
    return 8 * (4 * p * p + 4 * n * c + 6 * p * c) + 16 * CHUNK * p + 8 * p * d


class _Problem:
    """Passes over the data, 2048 rows at a time."""

    def __init__(self, kernel: Kernel, centers: Tensor, x: Tensor, y: Tensor, report: Reporter) -> None:
        self._origin = kernel.origin_of(x)
        self._kernel, self._x, self._y, self._report = kernel, x, y.double(), report
        self._single = Rows.of(centers.to(x) - self._origin)
        self._centers = self._single.double()
        self._start, self._done, self._rows = time.monotonic(), 0, len(x) * 2

    def gram_of_centers(self) -> Tensor:
        """K(Z, Z)."""
        return symmetric_kernel_matrix(self._kernel, self._centers)

    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """K(Z, X) K(X, Z) and K(Z, X) Y."""
        p = len(self._centers)
        covariance, moment = self._y.new_zeros(p, p), self._y.new_zeros(p, self._y.shape[1])
        for rows in spans(len(self._x), CHUNK):
            block = self._block(rows)
            covariance.addmm_(block.T, block)
            moment.addmm_(block.T, self._y[rows])
        if not torch.isfinite(moment).all():
            raise InputError(f"kernel {self._kernel} is not finite on some training rows: rescale the features")
        return covariance, moment

    def residual_moment(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """f(X) and K(Z, X) (Y - f(X))."""
        fitted, moment = torch.empty_like(self._y), torch.zeros_like(alpha)
        for rows in spans(len(self._x), CHUNK):
            block = self._block(rows)
            fitted[rows] = block @ alpha
            moment.addmm_(block.T, self._y[rows] - fitted[rows])
        return fitted, moment

    def _block(self, rows: slice) -> Tensor:
        x = Rows.of(self._x[rows] - self._origin, like=self._single).double()
        self._done += len(x)
        seconds = time.monotonic() - self._start
        share = min(1.0, self._done / self._rows)
        self._report(Progress("least squares", share, None, seconds * (1 - share) / share))
        return kernel_matrix(self._kernel, x, self._centers)


def _orthonormal(gram: Tensor) -> tuple[Tensor, float]:
    """W with W^T (K + jitter I) W = I on the directions that K resolves, shape (p, r), and the jitter."""
    p, scale = len(gram), float(gram.diagonal().mean())
    if not math.isfinite(scale) or scale <= 0:
        raise SingularKernelError("the kernel is zero or not finite on all centres: choose another kernel")
    identity = torch.eye(p, dtype=gram.dtype, device=gram.device)
    lower = _factor(gram, LEAST_PIVOT * scale)
    if lower is None and p <= EIGEN_LIMIT:
        values, vectors = torch.linalg.eigh(gram)
        keep = values > LEAST_EIGENVALUE * values[-1]
        return vectors[:, keep] / values[keep].sqrt(), 0.0
    jitter = 0.0
    if lower is None:
        jitter = JITTER * scale
        lower = _factor(gram + jitter * identity, 0.0)
        if lower is None:
            raise SingularKernelError(
                f"the kernel matrix of {p} centres is singular to working precision: give a smaller bandwidth, or "
                "fewer centers"
            )
    return torch.linalg.solve_triangular(lower, identity, upper=False).T, jitter


def _solver(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that solves the equations; for singular equations, the least-squares solution of least norm."""
    lower = _factor(matrix, LEAST_PIVOT * float(matrix.diagonal().mean()))
    if lower is not None:
        return lambda b: torch.cholesky_solve(b, lower)
    if len(matrix) > EIGEN_LIMIT:
        raise SingularKernelError(
            f"the least-squares equations of {len(matrix)} centres are singular to working precision: give a ridge "
            "(ridge=1e-6), or fewer centers"
        )
    values, vectors = torch.linalg.eigh(matrix)
    keep = values > LEAST_EIGENVALUE * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    return lambda b: vectors @ ((vectors.T @ b) / values[:, None])


def _factor(matrix: Tensor, least: float) -> Tensor | None:
    """The Cholesky factor; None if a squared pivot is at most `least`, because such a pivot is a rounding error."""
    lower, info = torch.linalg.cholesky_ex(matrix)
    return lower if not int(info) and float(lower.diagonal().square().min()) > least else None
