"""Inner products and distances of two sets of rows: the part of a kernel value that all kernels share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.compiled import code_for
from kl.compiled.kernel_values import of_floats, of_integers
from kl.rows.float_product import float_product
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace


class Pair:
    """The rows x_1..x_m and z_1..z_p of one tile of a kernel matrix.

    Args:
        x: m rows.
        z: p rows.
        same: for each row of x the index of the same row in z, or any number outside 0..p-1 if z does not hold it,
            shape (m,); at these pairs the distance is exactly 0.
        uses: how many times the kernel will ask for products; the last use gets the matrix product itself, and the uses
            before it get copies.
        workspace: memory for the last result; None is new memory.
        plain: use plain operations that autograd and export can follow (see `kl.products.differentiable`).
    """

    def __init__(
        self,
        x: Rows,
        z: Rows,
        same: Tensor | None = None,
        uses: int = 1,
        workspace: Workspace | None = None,
        plain: bool = False,
    ) -> None:
        self.x, self.z, self._same, self.plain = x, z, same, plain
        self._uses, self._workspace = uses, workspace or Workspace()
        self._product: Tensor | None = None
        self._codes = (x.codes, z.codes) if x.codes is not None and z.codes is not None else None

    @property
    def has_same(self) -> bool:
        """Whether `same` was given."""
        return self._same is not None

    @property
    def has_exact_distances(self) -> bool:
        """Whether `sq_dist` has no rounding error, because both sets are 8-bit integers on one grid."""
        return (
            self._codes is not None and self._codes[0].grid is not None and self._codes[0].grid == self._codes[1].grid
        )

    def inner(self) -> Tensor:
        """<x_i, z_j>, shape (m, p), which the caller may overwrite."""
        product, out = self._next()
        if self._codes is not None:
            ours, others = self._codes
            product = ours.inner(others, self.x.data.shape[1], product, out)
        return self.with_exact(product, self.x.sq_norm)

    def sq_dist(self) -> Tensor:
        """|x_i - z_j|^2, shape (m, p), which the caller may overwrite."""
        return self.of_distances("distances", 0.0, lambda distances: distances)

    def of_distances(self, formula: str, rate: float, profile: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of |x_i - z_j|^2, shape (m, p), which the caller may overwrite.

        Args:
            formula: its name in `kl.compiled.FORMULAS`: compiled code needs one pass for both.
            rate: of the formula.
            profile: the function, for products that have no compiled code; it may overwrite the distances.
        """
        x, z = self.x, self.z
        if self._codes is not None and self.has_exact_distances:
            ours, others = self._codes
            product, out = self._next()
            if (code := code_for(out)) and product.is_contiguous():
                assert ours.grid is not None
                return of_integers(code, formula, product, ours.centred, others.centred, ours.grid[0] ** 2, rate)
            return profile(ours.sq_dist(others, product, out))
        inner = self.inner()
        if not self.plain and (code := code_for(inner)):
            return of_floats(code, formula, inner, x.sq_norm, z.sq_norm, rate)
        distances = torch.add(x.sq_norm[:, None], inner, alpha=-2, out=None if self.plain else inner)
        return profile(distances.add_(z.sq_norm[None, :]).clamp_(min=0))

    def with_exact(self, inner: Tensor, value: Tensor) -> Tensor:
        """Put a value of each x_i, shape (m,), where x_i and z_j are the same row; `inner`, shape (m, p), is changed.

        With the value |x_i|^2 rounding leaves no distance between equal rows.
        """
        p = len(self.z)
        if self._same is not None and p:
            # Scatter instead of a list of rows, because the length of a list would make the CPU wait for the GPU.
            inside, column = (self._same >= 0) & (self._same < p), self._same.clamp(0, p - 1)[:, None]
            inner.scatter_(1, column, torch.where(inside[:, None], value[:, None], inner.gather(1, column)))
        return inner

    def _next(self) -> tuple[Tensor, Tensor]:
        """The matrix product, which the caller may overwrite, and where the result goes (floats: into the product)."""
        x, z = self.x, self.z
        if self._product is None:
            self._product = self._multiply()
        self._uses -= 1
        product = self._product.clone() if self._uses else self._product
        if self._codes is None:
            return product, product
        if self._uses:
            return product, x.sq_norm.new_empty(product.shape)
        return product, self._workspace.take(len(x), len(z), x.data, x.dtype)

    def _multiply(self) -> Tensor:
        """The matrix product of the rows: of 8-bit integers or of digits if both sets have them, else of the floats."""
        x, z = self.x, self.z
        if self.plain:
            return x.data @ z.data.T
        if self._codes is not None:
            return self._codes[0].product(self._codes[1], self._workspace)
        if x.digits is not None and z.digits is not None and x.dtype == torch.float32:
            return x.digits.inner(z.digits, self._workspace)
        return float_product(x.data.to(x.dtype), z.data.to(x.dtype), x.rounded and z.rounded, self._workspace)
