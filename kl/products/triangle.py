"""A kernel matrix by its lower triangle, which takes half the memory and half the kernel values of the full matrix.

The triangle is cut into panels of a few hundred columns; panel j reaches from its diagonal block down. Kept panels are
read and the others are computed tile by tile. In both cases a tile K_IJ serves K_IJ v_J and K_IJ^T v_I at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.kernels.kernel import Kernel
from kl.products.blocks import thin_matmul
from kl.rows.pair import Workspace
from kl.rows.rows import Rows
from kl.rows.workspace import converted_rows, spans

SIDE = 512  # columns of a panel on a CPU, so that a tile stays in cache and a product of two tiles is fast
SIDE_ON_GPU = 4096  # columns of a panel on a GPU, which needs larger products
SOLVED_ROWS = 2048  # rows of a panel that a triangular solve copies at a time, which bounds the copy


class LowerTriangle:
    """K(X, X) of n rows, in the dtype of its kernel values.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: x_1..x_n, on all ranks.
        side: columns of a panel; None chooses for the device.
        ranks: the ranks that share the panels in `keep` and `matmul`; a factorisation needs one rank.

    Attributes:
        columns: the columns of each panel of this rank.
        panels: the kept panels, which are the first of this rank; the first panel of all has shape (n, side).
    """

    def __init__(self, kernel: Kernel, rows: Rows, side: int | None = None, ranks: Ranks | None = None) -> None:
        self.kernel, self.rows, self.ranks = kernel, rows, ranks or Ranks()
        self.side = side or (SIDE_ON_GPU if rows.sq_norm.is_cuda else SIDE)
        if rows.data.dtype != rows.dtype:  # the kernel converts the rows of every tile, which takes memory
            self.side = converted_rows(rows.data.shape[1], self.side)
        panels = list(spans(len(rows), self.side))
        self.columns = panels[self.ranks.local_rows(len(panels))]
        self.panels: list[Tensor] = []
        self._workspace = Workspace()

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, count: int) -> None:
        """Compute the first `count` panels and keep them."""
        for columns in self.columns[len(self.panels) : count]:
            below = slice(columns.start, len(self))
            panel = self.rows.sq_norm.new_empty(len(self) - columns.start, columns.stop - columns.start)
            for rows in self._tiles(below):
                panel[rows.start - columns.start : rows.stop - columns.start] = self._tile(rows, columns)
            self.panels.append(panel)

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """K v, shape (n, c), float64. Tiles are multiplied in the dtype of K, and their results are summed in float64.

        Call it on all ranks with the same v, and not after `factorise`, which overwrites K.
        """
        v = v.to(self.rows.dtype)
        out = v.new_zeros(v.shape, dtype=torch.float64)
        for j, columns in enumerate(self.columns):
            for rows in self._tiles(slice(columns.start, len(self))):
                if j < len(self.panels):
                    tile = self.panels[j][rows.start - columns.start : rows.stop - columns.start]
                else:
                    tile = self._tile(rows, columns)
                out[rows] += thin_matmul(tile, v[columns])
                if rows.start != columns.start:
                    out[columns] += thin_matmul(tile.T, v[rows])
        return self.ranks.all_reduce_sum(out)

    def factorise(
        self,
        shift: Tensor,  # shape: (n,)
        progress: Callable[[float], None] = lambda done: None,
    ) -> bool:
        """Replace K by L with L L^T = K + diag(shift); False if that matrix is not positive definite.

        All panels must be kept. Every panel in turn is reduced by the panels before it, so that nearly all work is
        products of a panel with a tile.

        Args:
            shift: what is added to the diagonal, shape (n,).
            progress: called with the share of the work that is done, after each panel.

        Source: the left-looking blocked Cholesky factorisation, Golub and Van Loan, Matrix Computations, section 4.2.
        """
        n = len(self)
        for j, columns in enumerate(self.columns):
            panel, m = self.panels[j], columns.stop - columns.start
            panel[:m].diagonal().add_(shift[columns])
            for columns_before, before in zip(self.columns[:j], self.panels, strict=False):
                factor = before[columns.start - columns_before.start :]
                panel.addmm_(factor, factor[:m].T, alpha=-1)
            corner, info = torch.linalg.cholesky_ex(panel[:m])
            if int(info) or not bool(torch.isfinite(corner).all()):
                return False
            panel[:m] = corner
            for part in panel[m:].split(SOLVED_ROWS):
                part.copy_(torch.linalg.solve_triangular(corner.T, part, upper=True, left=False))
            progress(1 - (1 - columns.stop / n) ** 2 * (1 + 2 * columns.stop / n))
        return True

    def solve(
        self,
        rhs: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """(L L^T)^{-1} rhs after `factorise`, shape (n, c), float64.

        Columns of rhs are scaled to norm 1 and back, because float32 could not hold columns of every size.
        """
        z, size = unit_columns(rhs, self.rows.dtype)
        for columns, panel in zip(self.columns, self.panels, strict=True):
            corner, below = panel.split([columns.stop - columns.start, len(self) - columns.stop])
            z[columns] = torch.linalg.solve_triangular(corner, z[columns], upper=False)
            z[columns.stop :] -= thin_matmul(below, z[columns])
        for columns, panel in reversed(list(zip(self.columns, self.panels, strict=True))):
            corner, below = panel.split([columns.stop - columns.start, len(self) - columns.stop])
            rest = z[columns] - thin_matmul(below.T, z[columns.stop :])
            z[columns] = torch.linalg.solve_triangular(corner.T, rest, upper=True)
        return z.double().mul_(size)

    def transposed_matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """L^T v after `factorise`, shape (n, c), float64: |L^T v_k|^2 = v_k^T (K + diag(shift)) v_k."""
        v = v.to(self.rows.dtype)
        out = v.new_empty(v.shape, dtype=torch.float64)
        for columns, panel in zip(self.columns, self.panels, strict=True):
            m = columns.stop - columns.start
            out[columns] = thin_matmul(panel[:m].T, v[columns]) + thin_matmul(panel[m:].T, v[columns.stop :])
        return out

    def _tiles(self, below: slice) -> list[slice]:
        """Slices of `side` rows that cover `below`; the first slice is the diagonal block."""
        return [slice(below.start + s.start, below.start + s.stop) for s in spans(below.stop - below.start, self.side)]

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        x, z = self.rows[rows], self.rows[columns]
        same = torch.arange(len(x), device=x.data.device) if rows.start == columns.start else None
        return self.kernel.block(x, z, same, self._workspace)


def unit_columns(
    v: Tensor,  # shape: (n, c)
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Columns of v scaled to norm 1, in the dtype; and their norms, 1 for a column of zeros, shape (c,), float64."""
    size = v.double().norm(dim=0)
    size = torch.where(size > 0, size, 1.0)
    return (v / size).to(dtype), size


def triangle_bytes(n: int, itemsize: int, side: int = SIDE) -> int:
    """Bytes of all panels: n^2 / 2 values, and the upper halves of the diagonal blocks."""
    return itemsize * n * (n + min(side, n)) // 2
