"""Gradients of kernel values in x, and their weighted sums, without a tensor of shape (m, p, d).

With f(x) = sum_j alpha_j K(x, z_j), the gradient of f is sum_j alpha_j grad_x K(x, z_j). For a function of |x - z|, or
of <x, z> and |x|^2, grad_x K(x_i, z_j) lies in the plane of z_j - x_i and x_i, so two matrices of shape (m, p) hold all
gradients of a tile, and the sums are matrix products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Totals:
    """Sums over j of w_ijk grad_x K(x_i, z_j), for m rows and c weightings, which grow tile by tile.

    Args:
        m: rows.
        c: weightings.
        origin: a row near the data, shape (d,). Differences z_j - x_i are taken as (z_j - origin) - (x_i - origin), so
            that a column that is constant adds exactly 0.
    """

    def __init__(self, m: int, c: int, origin: Tensor) -> None:
        self.origin = origin
        self.sums = origin.new_zeros(m, c, len(origin) + 1)  # of w a (z - origin) and, in the last column, of w a
        self.along = origin.new_zeros(m, c)  # of w b

    def __getitem__(self, rows: slice) -> Totals:
        part = object.__new__(Totals)
        part.origin, part.sums, part.along = self.origin, self.sums[rows], self.along[rows]
        return part

    def finish(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """The sums, shape (m, c, d): a view of this object's memory."""
        found, weights = self.sums[..., :-1], self.sums[..., -1:]
        found.addcmul_((x - self.origin)[:, None, :], weights, value=-1)
        return found.addcmul_(x[:, None, :], self.along[..., None])


class Gradients(ABC):
    """grad_x K(x_i, z_j) for the m rows x_i and p rows z_j of a tile."""

    @abstractmethod
    def multiply_(
        self,
        factor: Tensor | float,  # shape: (m, p)
    ) -> Gradients:
        """Multiply the gradient of each pair by a number, in place."""

    @abstractmethod
    def add_products(
        self,
        v: Tensor,  # shape: (p, c)
        totals: Totals,  # m rows, c weightings
    ) -> None:
        """Add sum_j v_jk grad_x K(x_i, z_j) to `totals`."""

    @abstractmethod
    def add_row_products(
        self,
        w: Tensor,  # shape: (m, p)
        totals: Totals,
        k: int,
    ) -> None:
        """Add sum_j w_ij grad_x K(x_i, z_j) to the k-th weighting of `totals`."""

    @abstractmethod
    def over_rows(
        self,
        u: Tensor,  # shape: (m,)
        origin: Tensor,  # shape: (d,)
    ) -> Tensor:
        """sum_i u_i grad_x K(x_i, z_j), shape (p, d)."""

    def __add__(self, other: Gradients) -> Gradients:
        """The gradient of the sum of two kernels; may overwrite this one."""
        return Several((self, other))


@dataclass
class Spanned(Gradients):
    """grad_x K(x_i, z_j) = a_ij (z_j - x_i) + b_ij x_i.

    A function phi(|x - z|^2) has a = -2 phi' and no b. A function g(<x, z>, |x|^2) has a = dg/d<x, z> and
    b = a + 2 dg/d|x|^2.
    """

    x: Tensor  # shape: (m, d)
    z: Tensor  # shape: (p, d)
    a: Tensor  # shape: (m, p)
    b: Tensor | None = None  # shape: (m, p); None is 0

    def multiply_(self, factor: Tensor | float) -> Gradients:
        """Multiply the gradient of each pair by a number, in place."""
        self.a.mul_(factor)
        if self.b is not None:
            self.b.mul_(factor)
        return self

    def add_products(self, v: Tensor, totals: Totals) -> None:
        """Add sum_j v_jk grad_x K(x_i, z_j): one product with a right side of c (d + 1) columns."""
        right = (v[:, :, None] * self._with_ones(totals.origin)[:, None, :]).flatten(1)
        totals.sums.view(len(self.x), -1).addmm_(self.a, right)
        if self.b is not None:
            totals.along.addmm_(self.b, v)

    def add_row_products(self, w: Tensor, totals: Totals, k: int) -> None:
        """Add sum_j w_ij grad_x K(x_i, z_j): one product with a right side of d + 1 columns."""
        totals.sums[:, k].addmm_(self.a * w, self._with_ones(totals.origin))
        if self.b is not None:
            totals.along[:, k] += (self.b * w).sum(dim=1)

    def over_rows(self, u: Tensor, origin: Tensor) -> Tensor:
        """sum_i u_i grad_x K(x_i, z_j), shape (p, d)."""
        weighted = u[:, None] * torch.cat([self.x - origin, torch.ones_like(self.x[:, :1])], dim=1)
        sums = self.a.T @ weighted
        found = (self.z - origin).mul_(sums[:, -1:]).sub_(sums[:, :-1])
        return found if self.b is None else found.addmm_(self.b.T, u[:, None] * self.x)

    def __add__(self, other: Gradients) -> Gradients:
        """The gradient of the sum of two kernels; overwrites this one."""
        if not isinstance(other, Spanned):
            return Several((self, other))
        self.a.add_(other.a)
        if self.b is None:
            self.b = other.b
        elif other.b is not None:
            self.b.add_(other.b)
        return self

    def _with_ones(self, origin: Tensor) -> Tensor:
        return torch.cat([self.z - origin, torch.ones_like(self.z[:, :1])], dim=1)


class Several(Gradients):
    """The gradient of a sum of kernels whose gradients have different forms."""

    def __init__(self, parts: Sequence[Gradients]) -> None:
        self.parts = tuple(parts)

    def multiply_(self, factor: Tensor | float) -> Gradients:
        """Multiply the gradient of each pair by a number, in place."""
        for part in self.parts:
            part.multiply_(factor)
        return self

    def add_products(self, v: Tensor, totals: Totals) -> None:
        """Add what each part adds."""
        for part in self.parts:
            part.add_products(v, totals)

    def add_row_products(self, w: Tensor, totals: Totals, k: int) -> None:
        """Add what each part adds."""
        for part in self.parts:
            part.add_row_products(w, totals, k)

    def over_rows(self, u: Tensor, origin: Tensor) -> Tensor:
        """The sum over the parts, shape (p, d)."""
        return sum((part.over_rows(u, origin) for part in self.parts[1:]), self.parts[0].over_rows(u, origin))
