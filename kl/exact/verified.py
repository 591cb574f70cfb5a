"""The check that weights from elsewhere, such as a file, solve these equations: their claims are computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul
from kl.rkhs import rkhs_norm_per_class
from kl.rows.equal_rows import equal_rows, mean_targets
from kl.rows.rows import Rows

if TYPE_CHECKING:
    from kl.exact.interpolate import Interpolant

CHECKED_ROWS = 64  # rows on which f is computed again, drawn anew every time
SLACK = 1e-6  # relative tolerance; far above float64 rounding, far below the effect of another formula or other labels
# Absolute tolerance, times sum |alpha| beta, because kernel values and products in another order round differently.
ROUNDING = 1e-12
TINY = torch.finfo(torch.float64).tiny  # avoids a division by 0


def check_solution(
    solution: Interpolant,
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    centers: Tensor | None = None,  # shape: (p, d)
) -> None:
    """Compute again, on the CPU, what a solution claims: f on rows drawn at random, its residual, its norm.

    f(x_i) = K(x_i, .) alpha is computed for 64 rows. With f(X) known, the residual Y - f(X) - ridge alpha and the norm
    sum_i alpha_i . f(x_i) are computed for all rows. With centres the solution is one of least squares, whose residual
    is orthogonal to it:

        <f, Y - f> = ridge (|f|_H^2 + jitter |alpha|^2)

    Args:
        solution: what to check; its tensors are on the CPU.
        kernel: the kernel; its bandwidth must be resolved.
        x: training features, shape (n, d).
        y: targets, shape (n, c).
        centers: the centres of a least-squares solution, shape (p, d); None if the weights are on the rows.

    Raises:
        CheckpointError: `solution` does not solve these equations, or is worse than it claims; the message says why.
    """
    x, y = x.cpu(), y.cpu().double()
    centers = None if centers is None else centers.to(x)
    expected = (len(x if centers is None else centers), y.shape[1])
    if solution.alpha.shape != expected or solution.fitted.shape != y.shape:
        raise CheckpointError(
            f"it has weights of shape {tuple(solution.alpha.shape)} and values of shape {tuple(solution.fitted.shape)}"
            f"; {expected} and {tuple(y.shape)} are wanted"
        )
    tensors = (solution.alpha, solution.fitted, solution.rkhs_norm_per_class)
    if solution.rkhs_norm_per_class.shape != y.shape[1:] or not all(bool(t.isfinite().all()) for t in tensors):
        raise CheckpointError("some of its numbers are not finite, or the norms are not of its outputs")
    if (origin := kernel.origin_of(x)).any():
        x, centers = x - origin, None if centers is None else centers - origin
    if centers is None:
        _check_interpolant(solution, kernel, x, y)
        if solution.leave_one_out is not None:
            _check_leave_one_out(solution, kernel, x, y)
    else:
        _check_least_squares(solution, kernel, centers, x, y)


def _check_interpolant(solution: Interpolant, kernel: Kernel, x: Tensor, y: Tensor) -> None:
    """Check an interpolant. Equal rows share one equation and have equal parts of its weight."""
    first, group = equal_rows(x)
    counts, means = mean_targets(group, y, len(first))
    alpha, fitted = solution.alpha[first], solution.fitted[first]
    if len(first) < len(x):
        if not (torch.equal(alpha[group], solution.alpha) and torch.equal(fitted[group], solution.fitted)):
            raise CheckpointError("equal rows have other weights or values")
        x = x[first]
    rows, single = _drawn(len(x)), Rows.of(x)
    _check_values(kernel, single[rows], single, counts * alpha, fitted, rows, same=rows)
    residual = means - fitted - solution.ridge * alpha
    relative = float(residual.norm()) / max(float(means.norm()), TINY)
    if not relative <= (1 + SLACK) * solution.relative_residual + ROUNDING:
        raise CheckpointError(
            f"its relative residual on these targets is {relative:.1e}, not {solution.relative_residual:.1e}"
        )
    terms = counts * alpha * fitted
    _check_norm(solution, terms.sum(dim=0), terms.abs().sum(dim=0))


def _check_leave_one_out(solution: Interpolant, kernel: Kernel, x: Tensor, y: Tensor) -> None:
    """Check leave-one-out predictions without the inverse that they were made of.

    A row that has an equation for itself has the error alpha_i / q, q = (G^{-1})_ii >= 1 / G_ii, with one q for all
    outputs. All other rows, and those of a singular matrix, have (y_i - f(x_i)) t with one t of at least 1.
    """
    predictions = solution.leave_one_out.predictions if solution.leave_one_out is not None else y
    if predictions.shape != y.shape or not bool(predictions.isfinite().all()):
        raise CheckpointError("its leave-one-out predictions are not finite, or not of its outputs")
    error, residual = y - predictions, y - solution.fitted
    first, group = equal_rows(x)
    alone = torch.bincount(group, minlength=len(first))[group] == 1
    largest = kernel.diag(x) + solution.ridge
    size = y.abs().amax(dim=1) + solution.fitted.abs().amax(dim=1)  # of terms that may cancel
    by_weights = alone & _is_multiple(error, solution.alpha, torch.zeros_like(largest), largest, size)
    if not bool((by_weights | _is_multiple(error, residual, torch.ones_like(largest), None, size)).all()):
        raise CheckpointError("its leave-one-out predictions are not those of its weights")


def _is_multiple(
    error: Tensor,  # shape: (n, c)
    of: Tensor,  # shape: (n, c)
    least: Tensor,  # shape: (n,)
    most: Tensor | None,  # shape: (n,)
    size: Tensor,  # shape: (n,)
) -> Tensor:
    """Which rows of `error` are t times the row of `of`, with a t from `least` to `most`, shape (n,)."""
    t = (error * of).sum(dim=1) / of.square().sum(dim=1).clamp_(min=TINY)
    good = (error - t[:, None] * of).abs().amax(dim=1) <= SLACK * (error.abs().amax(dim=1) + size)
    good &= t >= (1 - SLACK) * least
    return good if most is None else good & (t <= (1 + SLACK) * most)


def _check_least_squares(solution: Interpolant, kernel: Kernel, centers: Tensor, x: Tensor, y: Tensor) -> None:
    rows, single = _drawn(len(x)), Rows.of(centers)
    _check_values(kernel, Rows.of(x[rows], like=single), single, solution.alpha, solution.fitted, rows)
    squares = rkhs_norm_per_class(kernel, centers, solution.alpha).square()
    _check_norm(solution, squares, float(kernel.diag(centers).max()) * solution.alpha.abs().sum(dim=0).square())
    fitted, norm = solution.fitted, solution.rkhs_norm_per_class
    penalty = solution.ridge * (norm.square() + solution.jitter * solution.alpha.square().sum(dim=0))
    found = (fitted * (y - fitted)).sum(dim=0) - penalty
    # <found> = <u, step> with |step| <= residual |W^T K(Z, X) Y| <= residual sqrt(n beta) |Y|: see `least_squares`.
    steepest = (len(x) * float(kernel.diag(x).max())) ** 0.5 * float(y.norm())
    allowed = SLACK * (fitted.norm(dim=0) * y.norm(dim=0) + penalty) + solution.relative_residual * steepest * norm
    if not bool((found.abs() <= allowed + TINY).all()):
        raise CheckpointError("it is not the least-squares function of these targets")


def _drawn(n: int) -> Tensor:
    generator = torch.Generator()
    generator.seed()
    return torch.randperm(n, generator=generator)[:CHECKED_ROWS]


def _check_values(
    kernel: Kernel,
    x: Rows,  # some of the rows
    z: Rows,  # where the weights are
    alpha: Tensor,  # shape: (p, c)
    fitted: Tensor,  # of all rows, shape: (n, c)
    rows: Tensor,  # the indices of x, shape: (m,)
    same: Tensor | None = None,  # shape: (m,)
) -> None:
    """Check f(x) = K(x, z) alpha, which also finds a kernel whose formula has changed under the same name."""
    again = kernel_matmul(kernel, x.double(), z.double(), alpha, same)
    beta = float(kernel.diag(x.data).max())
    allowed = SLACK * fitted.abs().amax(dim=0) + ROUNDING * beta * alpha.abs().sum(dim=0)
    if not bool(((again - fitted[rows]).abs() <= allowed).all()):
        raise CheckpointError("its fitted values are not those of the kernel as it is now")


def _check_norm(
    solution: Interpolant,
    squares: Tensor,  # |f_k|_H^2, shape: (c,)
    size: Tensor,  # the size of the summed terms, shape: (c,)
) -> None:
    stated = solution.rkhs_norm_per_class
    allowed = SLACK * squares.abs() + ROUNDING * size + TINY
    if not bool(((stated.square() - squares.clamp(min=0)).abs() <= allowed).all()):
        raise CheckpointError("its norm is not that of its weights")
    if not abs(solution.rkhs_norm - float(stated.norm())) <= SLACK * float(stated.norm()):
        raise CheckpointError("its norm is not that of its outputs together")
