"""The inverse of a positive definite matrix from its Cholesky factor, in the factor's memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kl.products.blocks import thin_matmul
from kl.products.triangle import SOLVED_ROWS, LowerTriangle, unit_columns


class InverseTriangle:
    """X = L^{-1} of a factor L L^T = G, so that G^{-1} = X^T X.

    X takes the place of L, panel by panel from the left, because a panel of X needs only the panels of L from its own
    on. It costs n^3 / 3 flops, as many as the factorisation.

    Args:
        factor: a triangle after `factorise`; it cannot be used afterwards.
        progress: called with the share of the work that is done, after each panel.

    Source: the inverse of a triangular matrix in place, Golub and Van Loan, Matrix Computations, section 3.1.
    """

    def __init__(self, factor: LowerTriangle, progress: Callable[[float], None] = lambda done: None) -> None:
        self.columns, self._panels, self._n = factor.columns, factor.panels, len(factor)
        factor.panels = []
        for j, columns in enumerate(self.columns):
            self._invert(j)
            progress(1 - (1 - columns.stop / self._n) ** 3)

    def _invert(self, j: int) -> None:
        """Turn panel j of L into panel j of X, with the panels of L that follow."""
        panel, start, stop = self._panels[j], self.columns[j].start, self.columns[j].stop
        m = stop - start
        corner = torch.linalg.solve_triangular(
            panel[:m], torch.eye(m, dtype=panel.dtype, device=panel.device), upper=False
        )
        panel[:m] = corner
        for part in panel[m:].split(SOLVED_ROWS):
            part.copy_(part @ corner).neg_()
        for columns, after in zip(self.columns[j + 1 :], self._panels[j + 1 :], strict=True):
            size = columns.stop - columns.start
            rows, below = panel[columns.start - start : columns.stop - start], panel[columns.stop - start :]
            rows.copy_(torch.linalg.solve_triangular(after[:size], rows, upper=False))
            below.addmm_(after[size:], rows, alpha=-1)

    def __len__(self) -> int:
        return self._n

    def diagonal(self) -> Tensor:
        """The diagonal of G^{-1}, shape (n,), float64: the sums of squares of X's columns."""
        parts = []
        for panel in self._panels:
            squares = [part.to(torch.float64, copy=True).square_().sum(dim=0) for part in panel.split(SOLVED_ROWS)]
            parts.append(torch.stack(squares).sum(dim=0))
        return torch.cat(parts)

    def matmul(
        self,
        v: Tensor,  # shape: (n, c)
    ) -> Tensor:
        """G^{-1} v, shape (n, c), float64; products are taken in the dtype of X.

        Columns of v are scaled to norm 1 and back, because float32 could not hold columns of every size.
        """
        v, size = unit_columns(v, self._panels[0].dtype)
        middle = torch.zeros_like(v)
        for columns, panel in zip(self.columns, self._panels, strict=True):
            middle[columns.start :] += thin_matmul(panel, v[columns])
        out = v.new_empty(v.shape, dtype=torch.float64)
        for columns, panel in zip(self.columns, self._panels, strict=True):
            out[columns] = thin_matmul(panel.T, middle[columns.start :])
        return out.mul_(size)

    def block(
        self,
        which: Tensor,  # shape: (m,)
    ) -> Tensor:
        """The rows and columns `which` of G^{-1}, shape (m, m), float64, in the order of `which`.

        Args:
            which: indices, none twice, shape (m,).
        """
        order = which.argsort()
        chosen, m = which[order], len(which)
        out = torch.zeros(m, m, dtype=torch.float64, device=which.device)
        stops = torch.tensor([columns.stop for columns in self.columns], device=which.device)
        ends = torch.searchsorted(chosen, stops).tolist()
        for rows in self.columns:
            parts, begin = [], 0
            for columns, panel, end in zip(self.columns, self._panels, ends, strict=True):
                if columns.start > rows.start or begin == m:
                    break
                tile = panel[rows.start - columns.start : rows.stop - columns.start]
                parts.append(tile[:, chosen[begin:end] - columns.start])
                begin = end
            if begin:
                tile = torch.cat(parts, dim=1)
                out[:begin, :begin] += (tile.T @ tile).double()
        if bool((chosen == which).all()):
            return out
        back = torch.empty_like(order)
        back[order] = torch.arange(m, device=which.device)
        return out[back][:, back]
