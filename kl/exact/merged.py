"""Sample weights and equal rows: which rows share an equation, what it weighs, and which rows have none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.errors import InputError
from kl.exact.equations import System
from kl.kernels.kernel import Kernel
from kl.rows.equal_rows import equal_rows, mean_targets
from kl.rows.rows import Rows


@dataclass(frozen=True)
class MergedRows:
    """The u equations of n weighted rows.

    Rows that are equal to the bit share one equation, because they would make the kernel matrix singular. Its target is
    the weighted mean of their targets, and it weighs as much as they do together. A row of weight 0 has no equation,
    unless an equal row has one.
    """

    first: Tensor
    """The index of a row of each equation, shape (u,)."""
    group: Tensor
    """The equation of each row, 0 for rows without one, shape (n,)."""
    weights: Tensor
    """w_i of each row, shape (n,), float64."""
    totals: Tensor
    """W, the summed weight of each equation, shape (u,), float64."""
    left_out: Tensor
    """The indices of the rows that have no equation."""

    @classmethod
    def of(
        cls,
        x: Tensor,  # shape: (n, d)
        weights: Tensor | None = None,  # shape: (n,)
        origin: Tensor | None = None,  # shape: (d,)
    ) -> MergedRows:
        """The equations of the rows x - origin.

        Args:
            x: rows, shape (n, d).
            weights: as `check_weights` returns them, shape (n,); None is 1 for every row.
            origin: shape (d,); None is 0.
        """
        first, group = equal_rows(x, origin if origin is not None and bool(origin.any()) else None)
        w = torch.ones(len(x), dtype=torch.float64, device=x.device) if weights is None else weights.to(x.device)
        totals = torch.zeros(len(first), dtype=torch.float64, device=x.device).index_add_(0, group, w)
        live = totals > 0
        left_out = (~live[group]).nonzero().flatten()
        if len(left_out):
            group = torch.where(live, live.cumsum(0) - 1, 0)[group]
            first, totals = first[live], totals[live]
        return cls(first, group, w, totals, left_out)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def all_alone(self) -> bool:
        """Whether every row has an equation of its own."""
        return len(self.first) == len(self.group)

    @property
    def share(self) -> Tensor:
        """Each row's part of the weight of its equation, 0 to 1, shape (n,)."""
        return self.weights / self.totals[self.group]

    @property
    def used(self) -> Tensor:
        """Whether a row's weight is above 0, shape (n,)."""
        return self.weights > 0

    def sums(
        self,
        alpha: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """The sum of the weights alpha of each equation's rows, shape (u, c), float64: the same function."""
        out = torch.zeros(len(self), alpha.shape[1], dtype=torch.float64, device=self.group.device)
        used = self.used
        return out.index_add_(0, self.group[used], alpha[used].to(out))

    def targets(
        self,
        y: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """The weighted mean target of each equation, shape (u, c), float64."""
        return mean_targets(self.group, y, len(self), self.weights)[1]


def system_of(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    targets: Tensor,  # shape: (u, c)
    merged: MergedRows,
    ridge: float,
    origin: Tensor,  # shape: (d,)
) -> System:
    """The equations (K + diag(ridge / W)) alpha = Y, because a row of weight W counts W times in the loss.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: features of all rows, shape (n, d).
        targets: mean targets of the equations, shape (u, c), float64.
        merged: which rows share an equation.
        ridge: lambda.
        origin: `kernel.origin_of(x)`, because distances of rows far from 0 lose their digits; shape (d,).
    """
    rows = rows_from(x if merged.all_alone else x[merged.first], origin)
    return System(kernel, rows, targets, ridge / merged.totals, merged.totals)


def rows_from(
    x: Tensor,  # shape: (m, d)
    origin: Tensor,  # shape: (d,)
    like: Rows | None = None,
) -> Rows:
    """The rows x - origin, with kernel values in float64.

    Args:
        x: features, shape (m, d).
        origin: shape (d,).
        like: rows that these rows will be multiplied with.
    """
    return Rows.of(x - origin if bool(origin.any()) else x, like=like).double()


def check_weights(weights: Tensor, n: int, ridge: float = 0.0) -> Tensor:
    """The weights in float64, if there is one of each row, finite, 0 or above, and not all are 0.

    Args:
        weights: w_1..w_n, shape (n,), of floats or whole numbers.
        n: rows.
        ridge: lambda, which is divided by the weights.

    Raises:
        InputError: the weights are anything else, or so far from 1 that float64 does not hold their sum or
            ridge / w_i.
    """
    if not isinstance(weights, Tensor) or weights.shape != (n,) or weights.is_complex():
        received = f"{tuple(weights.shape)} {weights.dtype}" if isinstance(weights, Tensor) else type(weights).__name__
        raise InputError(f"weights must be a tensor of shape ({n},), one number for each row of x; got {received}")
    w = weights.detach().double()
    if bool((bad := ~(w.isfinite() & (w >= 0))).any()):
        row = int(bad.nonzero()[0])
        raise InputError(
            f"weights must be finite numbers, 0 or above; row {row} has {float(w[row])}: give rows that are not to "
            "count a weight of 0"
        )
    if not bool((w > 0).any()):
        raise InputError(f"weights must be above 0 for a row at least; got {n} zeros")
    if not bool(w.sum().isfinite() and (ridge / w[w > 0]).isfinite().all()):
        raise InputError(
            f"weights must have a finite sum and a finite ridge / weight; got weights from {float(w[w > 0].min())} to "
            f"{float(w.max())} with ridge {ridge}: give those that are next to nothing a weight of 0"
        )
    return w
