"""The rows that candidates are scored on: equal rows merged, rows left out by folds, or held-out rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kl.errors import InputError
from kl.exact.merged import MergedRows
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul, symmetric_kernel_matrix
from kl.rows.equal_rows import matching_rows
from kl.rows.rows import Rows


@dataclass(frozen=True)
class Distinct:
    """The u equations of n rows, with S = diag(sqrt(W)), W_j the number of rows that equation j stands for.

    (K + r W^-1) alpha = Y is (S K S + r I) b = S Y with alpha = S b. A residual of the latter is S times one of the
    former.
    """

    rows: Rows
    """x_1..x_u less the origin, with kernel values in float64."""
    group: Tensor
    """The equation of each row, shape (n,)."""
    root: Tensor
    """sqrt(W), shape (u,)."""
    targets: Tensor
    """The mean target of each equation, shape (u, c)."""
    origin: Tensor | None
    """What was subtracted from the rows, shape (d,)."""

    def __len__(self) -> int:
        return len(self.rows)

    def matrix(self, kernel: Kernel) -> Tensor:
        """S K S, float64, shape (u, u).

        Raises:
            InputError: a kernel value is not finite.
        """
        matrix = symmetric_kernel_matrix(kernel, self.rows)
        if not bool(matrix.sum().isfinite()):
            raise InputError(
                f"kernel {kernel} is not finite on some pairs of rows, whose values are too large or too small for "
                "their float type: rescale the features"
            )
        return matrix.mul_(self.root).mul_(self.root[:, None])

    def evaluate(
        self,
        kernel: Kernel,
        b: Tensor,  # shape: (u, c)
        z: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(Z) = K(Z, X) S b, shape (m, c)."""
        z = z if self.origin is None else z - self.origin
        same = matching_rows(z, self.rows.data)
        return kernel_matmul(kernel, Rows.of(z, like=self.rows).double(), self.rows, self.root[:, None] * b, same)


@dataclass(frozen=True)
class Problem:
    """What a candidate is scored on."""

    x: Tensor
    """Training rows, shape (n, d)."""
    y: Tensor
    """Targets, float64, shape (n, c)."""
    classes: bool
    """Whether the targets are one-hot rows."""
    held_out: tuple[Tensor, Tensor] | None
    """Rows and float64 targets that scores are taken on; None leaves out training rows."""
    folds: int | None
    """How many parts the rows are divided into; None leaves out one row at a time."""
    seed: int
    """Of the folds."""
    _distinct: dict[bool, Distinct] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        """The number of rows that losses are means of."""
        return len(self.x if self.held_out is None else self.held_out[0])

    def distinct(self, kernel: Kernel) -> Distinct:
        """The equations for this kernel: features far from 0 are shifted if its values allow that."""
        shift = kernel.shift_invariant
        if shift not in self._distinct:
            origin = kernel.origin_of(self.x)
            self._distinct[shift] = _merge(self.x, self.y, origin if bool(origin.any()) else None)
        return self._distinct[shift]

    def fold_numbers(self, distinct: Distinct) -> list[Tensor] | None:
        """The equations of each fold; equal rows share an equation, so they share a fold.

        Raises:
            InputError: there are fewer distinct rows than folds.
        """
        if self.folds is None:
            return None
        if len(distinct) < self.folds:
            raise InputError(
                f"folds must be at most the number of rows that differ, {len(distinct)}; got {self.folds}: give a "
                'smaller number, or by="loo"'
            )
        order = mixed_order(distinct.targets if self.classes else None, len(distinct), self.seed).to(self.x.device)
        return [order[i :: self.folds] for i in range(self.folds)]


def _merge(x: Tensor, y: Tensor, origin: Tensor | None) -> Distinct:
    merged = MergedRows.of(x, None, origin)
    distinct = x if merged.all_alone else x[merged.first]
    rows = Rows.of(distinct if origin is None else distinct - origin).double()
    return Distinct(rows, merged.group, merged.totals.sqrt(), merged.targets(y), origin)


def mixed_order(
    y: Tensor | None,  # shape: (n, c)
    n: int,
    seed: int,
) -> Tensor:
    """The n row numbers in random order; with one-hot rows y, class after class.

    Every k-th number of this order then has its share of each class.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    if y is None:
        return order
    return order[torch.argsort(y.argmax(dim=1).cpu()[order], stable=True)]


def drawn_rows(
    y: Tensor,  # shape: (n, c)
    size: int,
    classes: bool,
    seed: int,
) -> Tensor:
    """Row numbers of a random subsample in ascending order, shape (size,), with the shares of the classes of y."""
    n = len(y)
    places = (torch.arange(size, dtype=torch.float64).add_(0.5) * (n / size)).long()
    return mixed_order(y if classes else None, n, seed)[places].sort().values.to(y.device)
