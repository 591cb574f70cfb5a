"""All ridges from one eigen-decomposition: weights, norms, and residuals of rows that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.rows.workspace import spans

EPS = torch.finfo(torch.float64).eps
CHUNK = 1024  # rows of eigenvectors that are squared at a time


@dataclass(frozen=True)
class Spectrum:
    """(K + r I) alpha = Y for every ridge r, from K = U diag(l) U^T.

    Eigenvalues below n eps l_max are rounding errors and count as 0. With r = 0 their directions are left out, so alpha
    is the least-squares solution of minimum norm, and residuals are the limits for r -> 0.

    Source: Rifkin and Lippert 2007, Notes on regularized least squares, MIT-CSAIL-TR-2007-025, sections 2 and 3 (one
    row left out); An, Liu and Venkatesh 2007, Fast cross-validation algorithms for least squares support vector machine
    and kernel ridge regression, Pattern Recognition 40, section 3 (a fold left out). The limits for r -> 0 are ours.
    """

    values: Tensor  # l, ascending, shape: (n,)
    vectors: Tensor  # U, shape: (n, n)
    projected: Tensor  # U^T Y, shape: (n, c)

    @classmethod
    def of(
        cls,
        matrix: Tensor,  # K, float64, shape: (n, n)
        targets: Tensor,  # Y, float64, shape: (n, c)
    ) -> Spectrum:
        """Decompose K."""
        values, vectors = torch.linalg.eigh(matrix)
        least = len(values) * EPS * float(values[-1])
        return cls(torch.where(values > least, values, 0.0), vectors, vectors.T @ targets)

    @property
    def null(self) -> int:
        """The number of eigenvalues that count as 0; they come first."""
        return int((self.values == 0).sum())

    def weights(self, ridge: float) -> Tensor:
        """alpha = U (U^T Y / (l + r)), shape (n, c)."""
        return self.vectors @ (self.projected * self._inverse(ridge)[:, None])

    def sq_norm(self, ridge: float) -> float:
        """|f|_H^2 = trace(alpha^T K alpha)."""
        inner = self.projected * self._inverse(ridge)[:, None]
        return float((inner.square_() * self.values[:, None]).sum())

    def left_out(self, ridge: float, folds: Sequence[Tensor] | None = None) -> Tensor:
        """y_i - f(x_i), shape (n, c), where f was solved without row i, or without the fold that holds row i.

        With G = K + r I and a fold F the residual is ((G^-1)_FF)^-1 alpha_F, for one row alpha_i / (G^-1)_ii.

        Args:
            ridge: r.
            folds: the row numbers of each fold; None leaves out one row at a time.
        """
        if ridge == 0 and self.null:
            return self._limit_of_one() if folds is None else self._limit_of_folds(folds)
        alpha, inverse = self.weights(ridge), self._inverse(ridge)
        if folds is None:
            return alpha / self._diagonal(inverse)[:, None]
        out = torch.empty_like(alpha)
        for fold in folds:
            rows = self.vectors[fold]
            out[fold] = torch.linalg.solve((rows * inverse) @ rows.T, alpha[fold])
        return out

    def _inverse(self, ridge: float) -> Tensor:
        """1 / (l + r), 0 where that is not finite, shape (n,)."""
        total = self.values + ridge
        return torch.where(total > 0, 1 / total, 0.0)

    def _diagonal(self, inverse: Tensor) -> Tensor:
        """sum_k U_ik^2 inverse_k, shape (n,)."""
        parts = spans(len(self.values), CHUNK)
        return torch.cat([self.vectors[rows].square() @ inverse for rows in parts])

    def _limit_of_one(self) -> Tensor:
        """The limit for r -> 0 of alpha_i / (G^-1)_ii.

        G^-1 = P / r + K^+ + O(r), where P projects on the null space of K, and alpha = P Y / r + K^+ Y + O(r). So the
        limit is (P Y)_i / P_ii = (y_i - f(x_i)) / (1 - H_ii) where P_ii > 0, and (K^+ Y)_i / (K^+)_ii where P_ii = 0,
        because then (P Y)_i = 0, too.
        """
        null = self.vectors[:, : self.null]
        share = null.square().sum(dim=1)[:, None]
        fitted = self.weights(0.0) / self._diagonal(self._inverse(0.0))[:, None]
        return torch.where(share > len(share) * EPS, (null @ self.projected[: self.null]) / share, fitted)

    def _limit_of_folds(self, folds: Sequence[Tensor]) -> Tensor:
        """The limit for r -> 0 of z = ((G^-1)_FF)^-1 alpha_F for each fold F.

        With A = P_FF, B = (K^+)_FF, u = (P Y)_F and v = (K^+ Y)_F, z solves (A + r B) z = u + r v. Let A = V diag(a)
        V^T with V = [V_0, V_1], a = 0 for V_0. Then V_1^T z = V_1^T u / a_1, and V_0^T B z = V_0^T v gives V_0^T z.
        """
        null, alpha, inverse = self.vectors[:, : self.null], self.weights(0.0), self._inverse(0.0)
        rest = null @ self.projected[: self.null]
        out = torch.empty_like(alpha)
        for fold in folds:
            rows = self.vectors[fold]
            share, basis = torch.linalg.eigh(null[fold] @ null[fold].T)
            free = int((share <= len(alpha) * EPS).sum())
            inside, outside = basis[:, :free], basis[:, free:]
            part = outside @ ((outside.T @ rest[fold]) / share[free:, None])
            if free:
                block = (rows * inverse) @ rows.T
                wanted = inside.T @ (alpha[fold] - block @ part)
                part = part + inside @ torch.linalg.solve(inside.T @ block @ inside, wanted)
            out[fold] = part
        return out
