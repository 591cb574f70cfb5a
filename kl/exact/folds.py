"""k-fold predictions from one factor: each fold is predicted by f trained without it, and nothing is solved again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.checks import check_not_negative
from kl.errors import InputError, MemoryBudgetError, SingularKernelError
from kl.exact.cholesky import RESIDUAL_ACCEPTED, solve_direct
from kl.exact.cost import direct_memory
from kl.exact.diagonals import checked_diagonal
from kl.exact.equations import Diagonals, Reporter, System
from kl.exact.interpolate import mean_diagonal
from kl.exact.merged import MergedRows, check_weights, rows_from, system_of
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul
from kl.products.inverse import InverseTriangle
from kl.products.triangle import LowerTriangle
from kl.rows.rows import check_finite_matrix
from kl.system.memory import format_memory, parse_memory


def leave_out(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    folds: Tensor,  # shape: (n,)
    ridge: float = 0.0,
    memory: str | int = "auto",
    weights: Tensor | None = None,  # shape: (n,)
) -> Tensor:
    """f trained without a fold, at the rows of the fold, for every fold, as a solve for each fold would find it.

    With G = K + ridge diag(1/w) the values on fold B are y_B - ((G^{-1})_BB)^{-1} alpha_B. It costs a direct solve,
    n^3 / 3 flops for the inverse, and 2 n m^2 flops for a fold of m rows.

    Args:
        kernel: the kernel; `bandwidth="auto"` is resolved on x.
        x: features, shape (n, d).
        y: targets, shape (n, c).
        folds: the number of each row's fold, whole numbers, shape (n,).
        ridge: lambda >= 0 (not multiplied by n), the same for every fold.
        memory: budget in bytes, "8GB", or "auto" (half of what is free). Beside a direct solve, a fold of m rows takes
            40 m^2 bytes.
        weights: w_i >= 0, as of `kl.interpolate`, shape (n,); None is 1 for every row.

    Returns:
        The predictions, shape (n, c), float64.

    Raises:
        InputError: an argument is not as described.
        MemoryBudgetError: the solve or a fold does not fit the budget.
        SingularKernelError: the kernel matrix is too near to singular.

    Source: the block form of leave-one-out, Pahikkala, Boberg, Salakoski 2006, Fast n-fold cross-validation for
    regularized least-squares. Where equal rows are in several folds, a fold takes a part of the weight and of the
    target of their equation: then Woodbury's identity, in `_Fold`.

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [2.0], [3.0]])
        >>> found = kl.leave_out(kl.Laplacian(1.0), x, y, torch.tensor([0, 0, 1]))
        >>> without = kl.interpolate(kl.Laplacian(1.0), x[2:], y[2:]).predict(x[:2])
        >>> bool(torch.allclose(found[:2], without))
        True
    """
    check_finite_matrix("x", x)
    check_finite_matrix("y", y)
    if len(x) != len(y):
        raise InputError(f"x and y must have one row per sample; got {len(x)} and {len(y)}")
    (n, d), c, budget = x.shape, y.shape[1], parse_memory(memory, x.device)
    _check_folds(folds, n)
    ridge = check_not_negative("ridge", ridge)
    w = None if weights is None else check_weights(weights, n, ridge)
    origin = kernel.origin_of(x)
    merged = MergedRows.of(x, w, origin)
    number = folds.to(x.device).unique(return_inverse=True)[1]
    largest = int(number.bincount().max())
    if (need := direct_memory(len(merged), d, c, None, True) + 40 * largest**2) > budget:
        raise MemoryBudgetError(
            f"the predictions of n={n} rows in folds of up to {largest} need {format_memory(need)}, more than the "
            f"budget of {format_memory(budget)}: raise memory=, or use more folds or fewer rows"
        )
    kernel = kernel.resolve(x)
    means = merged.targets(y)
    system = system_of(kernel, x, means, merged, ridge, origin)
    scale, keep = mean_diagonal(kernel, system.rows), _Keep()
    solved = solve_direct(system, scale, RESIDUAL_ACCEPTED, budget - 40 * largest**2, Reporter(), keep)
    if keep.inverse is None:
        raise SingularKernelError(
            f"the kernel matrix of n={len(merged)} rows is too near to singular for predictions of folds from one "
            "factor: give a ridge (ridge=1e-6), a smaller bandwidth, or interpolate without each fold"
        )
    found = torch.empty(n, c, dtype=torch.float64, device=x.device)
    no_equation = torch.zeros(n, dtype=torch.bool, device=x.device)
    no_equation[merged.left_out] = True
    for k in range(int(number.max()) + 1):
        fold = _Fold(number == k, merged, y, system, ridge, solved.alpha, keep.inverse)
        rows = ((number == k) & ~no_equation).nonzero().flatten()
        found[rows] = fold.values[torch.searchsorted(fold.touched, merged.group[rows])]
        if len(rows := ((number == k) & no_equation).nonzero().flatten()):
            others = rows_from(x[rows], origin, like=system.rows)
            found[rows] = kernel_matmul(kernel, others, system.rows, fold.alpha())
    return found


class _Keep:
    """Keeps the inverse that a direct solve offers, if it is accurate."""

    def __init__(self) -> None:
        self.inverse: InverseTriangle | None = None

    def __call__(self, system: System, factor: LowerTriangle, progress: Callable[[float], None]) -> Diagonals | None:
        inverse = InverseTriangle(factor, progress)
        diagonal = checked_diagonal(inverse, system.matmul)
        if diagonal is None:
            return None
        self.inverse = inverse
        return Diagonals(diagonal)


class _Fold:
    """The solution without one fold.

    A fold takes a part v of the weight W of each equation it touches. That changes the mean target by z and, with a
    ridge, adds ridge / (W - v) - ridge / W to the diagonal. An equation that loses all of its weight is taken away, and
    its z is 0. With Q = G^{-1} alpha becomes alpha + Q (z - t), where t is the addition to the diagonal times the new
    alpha, or, of equations that are taken away, what makes the new alpha 0. It solves

        (Q + diag(W (W - v) / (ridge v))) t = alpha + Q z   on the equations that change,

    where the diagonal is 0 for those that are taken away.

    Args:
        inside: which rows are in the fold, shape (n,).
        merged: which rows share an equation.
        y: targets of all rows, shape (n, c).
        system: the equations.
        ridge: lambda.
        alpha: their solution, shape (u, c).
        inverse: Q.

    Attributes:
        touched: the equations of the fold's rows, in order, shape (s,).
        values: the new f at their rows, shape (s, c), float64.
    """

    def __init__(
        self,
        inside: Tensor,  # shape: (n,)
        merged: MergedRows,
        y: Tensor,  # shape: (n, c)
        system: System,
        ridge: float,
        alpha: Tensor,  # shape: (u, c)
        inverse: InverseTriangle,
    ) -> None:
        self._alpha, self._inverse, u = alpha, inverse, len(merged)
        with_equation = torch.ones_like(inside)
        with_equation[merged.left_out] = False
        self.touched = merged.group[inside & with_equation].unique()
        total = merged.totals[self.touched]
        rest = torch.where(inside, 0.0, merged.weights)
        left = total.new_zeros(u).index_add_(0, merged.group, rest)[self.touched]
        taken = total.new_zeros(u).index_add_(0, merged.group, torch.where(inside, merged.weights, 0.0))[self.touched]
        gone, part = left == 0, (left > 0) & (taken > 0)
        z = torch.zeros_like(system.y[self.touched])
        if bool(part.any()):
            divisor = torch.ones_like(merged.totals)
            divisor[self.touched] = torch.where(gone, 1.0, left)
            parts = y.double() * (rest / divisor[merged.group])[:, None]
            new = torch.zeros_like(system.y).index_add_(0, merged.group, parts)[self.touched]
            z[part] = (new - system.y[self.touched])[part]
        block = inverse.block(self.touched)
        changed = (gone | part) if ridge > 0 else gone
        more = torch.where(part, total * left / (ridge * taken), 0.0) if ridge > 0 else torch.zeros_like(total)
        t = torch.zeros_like(z)
        if bool(changed.any()):
            corner = block[changed][:, changed]
            corner.diagonal().add_(more[changed])
            t[changed] = _solve(corner, alpha[self.touched[changed]] + block[changed] @ z)
        new_alpha = alpha[self.touched] + block @ (z - t)
        new_alpha[gone] = 0.0
        self._step = z - t
        self.values = system.y[self.touched] + z - system.ridge[self.touched][:, None] * new_alpha - t

    def alpha(self) -> Tensor:
        """The weights of the solution without the fold, shape (u, c)."""
        step = torch.zeros_like(self._alpha)
        step[self.touched] = self._step
        return self._alpha + self._inverse.matmul(step)


def _solve(
    matrix: Tensor,  # shape: (m, m)
    rhs: Tensor,  # shape: (m, c)
) -> Tensor:
    """The solution with a positive definite matrix, shape (m, c)."""
    lower, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise SingularKernelError(
            "the inverse on the rows of a fold is singular to working precision: give a ridge (ridge=1e-6)"
        )
    return torch.cholesky_solve(rhs, lower)


def _check_folds(folds: Tensor, n: int) -> None:
    whole = isinstance(folds, Tensor) and not (folds.is_floating_point() or folds.is_complex())
    if not whole or folds.shape != (n,):
        received = f"{tuple(folds.shape)} {folds.dtype}" if isinstance(folds, Tensor) else type(folds).__name__
        raise InputError(f"folds must be a tensor of shape ({n},) of whole numbers, one for each row; got {received}")
    if bool((folds == folds[0]).all()):
        raise InputError(f"folds must be at least two, because f is trained on the others; got {n} rows in one")
