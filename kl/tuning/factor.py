"""One ridge from a Cholesky factor: cheaper than an eigen-decomposition for many rows and few ridges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.rows.workspace import spans

COLUMNS = 512  # columns of the inverse factor that are computed at a time
# A squared pivot below this share of the mean diagonal is a rounding error, or leaves the residuals too few digits.
LEAST_PIVOT = 1e-11


@dataclass(frozen=True)
class Factor:
    """(K + r I) alpha = Y for one ridge r, from G = K + r I = L L^T."""

    matrix: Tensor  # K, shape: (n, n)
    lower: Tensor  # L, shape: (n, n)
    targets: Tensor  # Y, shape: (n, c)

    @classmethod
    def of(
        cls,
        matrix: Tensor,  # K, float64, shape: (n, n)
        targets: Tensor,  # Y, float64, shape: (n, c)
        ridge: float,
    ) -> Factor | None:
        """Factorise K + r I; None if it is singular to rounding."""
        shifted = matrix.clone()
        shifted.diagonal().add_(ridge)
        scale = float(shifted.diagonal().mean())
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if int(failed) or not float(lower.diagonal().min()) ** 2 > LEAST_PIVOT * scale:
            return None
        return cls(matrix, lower, targets)

    def weights(self) -> Tensor:
        """alpha, shape (n, c)."""
        return torch.cholesky_solve(self.targets, self.lower)

    def sq_norm(self, alpha: Tensor) -> float:
        """|f|_H^2 = trace(alpha^T K alpha)."""
        return max(0.0, float((alpha * (self.matrix @ alpha)).sum()))

    def left_out(self, alpha: Tensor, folds: Sequence[Tensor] | None = None) -> Tensor:
        """y_i - f(x_i) as `Spectrum.left_out` has it, shape (n, c): G^-1 = L^-T L^-1 needs columns of L^-1 alone."""
        out = torch.empty_like(alpha)
        if folds is None:
            for part, columns in self._inverse_columns([_numbers(s, alpha) for s in spans(len(alpha), COLUMNS)]):
                out[part] = alpha[part] / columns.square().sum(dim=0)[:, None]
        else:
            for part, columns in self._inverse_columns(folds):
                out[part] = torch.linalg.solve(columns.T @ columns, alpha[part])
        return out

    def _inverse_columns(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The numbers of each part's columns, and these columns of L^-1 without the zeros above the first of them."""
        for part in parts:
            start = int(part.min())
            unit = self.lower.new_zeros(len(self.lower) - start, len(part))
            unit[part - start, torch.arange(len(part), device=part.device)] = 1.0
            yield part, torch.linalg.solve_triangular(self.lower[start:, start:], unit, upper=False)


def _numbers(rows: slice, like: Tensor) -> Tensor:
    return torch.arange(rows.start, rows.stop, device=like.device)
