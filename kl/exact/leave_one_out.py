"""Leave-one-out predictions in closed form: what f would say of each row if it had not been trained on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.errors import InputError
from kl.exact.equations import Diagonals
from kl.exact.merged import MergedRows

ROUNDING = 1e-8  # 1 - H_gg below this is 0 in float64: the row is fitted whatever its target is


@dataclass(frozen=True)
class LeaveOneOut:
    """f without row i, at x_i, for every row.

    Attributes:
        predictions: the values, shape (n, c), float64. For rows of weight 0 they are f(x_i).
        method: "factor" if they are exact up to rounding, "probes" if they are estimated.
        standard_error: of `mse` on the training targets, in the square of their units, from the random probes; None for
            a factor.
        gcv: generalised cross-validation, n^{-1} sum_i |y_i - f(x_i)|^2 / (1 - tr(H)/n)^2 with f(X) = H Y, a mean over
            outputs in the square of the targets' units. Rows of weight 0 do not count. For ridge 0 it is the limit.

    Source: Allen 1974, The relationship between variable selection and data augmentation (leave-one-out); Golub, Heath,
    Wahba 1979, Generalized cross-validation as a method for choosing a good ridge parameter.

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [2.0], [3.0]])
        >>> solution = kl.interpolate(kl.Laplacian(1.0), x, y, leave_one_out=True)
        >>> without = kl.interpolate(kl.Laplacian(1.0), x[1:], y[1:])
        >>> round(float(solution.leave_one_out.predictions[0]), 6) == round(float(without.predict(x[:1])), 6)
        True
    """

    predictions: Tensor
    method: str
    standard_error: float | None
    gcv: float

    def mse(
        self,
        y: Tensor,  # shape: (n, c)
    ) -> float:
        """The mean over rows and outputs of the squared differences to y; weights do not count.

        Raises:
            InputError: y has another shape than the predictions.
        """
        if y.shape != self.predictions.shape:
            raise InputError(
                f"y must have the predictions' shape {tuple(self.predictions.shape)}; got {tuple(y.shape)}"
            )
        return float((self.predictions - y.to(self.predictions)).square().mean())

    def to(self, device: torch.device | str) -> LeaveOneOut:
        """The same with its predictions on the device."""
        return replace(self, predictions=self.predictions.to(device))


def leave_one_out(
    diagonals: Diagonals,
    merged: MergedRows,
    y: Tensor,  # shape: (n, c)
    alpha: Tensor,  # of the equations, shape: (u, c)
    fitted: Tensor,  # f(X), shape: (n, c)
    ridge: float,
) -> LeaveOneOut:
    """Leave-one-out predictions from the diagonals of a solve.

    A row that has an equation g for itself is predicted with the error y_i - f^(-i)(x_i) = alpha_g / (G^{-1})_gg. A row
    of weight w_i among equal rows of weight W is predicted with the error

        (y_i - f(x_i)) / (1 - h_ii),  1 - h_ii = 1 - w_i/W + (w_i/W) (1 - H_gg),  1 - H_gg = ridge (G^{-1})_gg / W

    That also holds for a row by itself if the matrix is singular and 1 - H_gg is above 0.

    Estimates Q_1..Q_p of (G^{-1})_gg, with the mean Q and the variance S^2 of that mean, enter as (Q^2 + 3 S^2)^(1/2),
    because the square of its inverse has the mean Q^(-2) up to terms of higher order: the squared errors are unbiased.

    Args:
        diagonals: of the u equations.
        merged: which rows share an equation.
        y: targets of all rows, shape (n, c).
        alpha: weights of the equations, shape (u, c), float64.
        fitted: f(X) of all rows, shape (n, c), float64.
        ridge: lambda.

    Source: Allen 1974; with repeated rows from y_i's part w_i/W in the target of its equation, whose derivative h_ii is
    that part of H_gg. The standard error is the jackknife's over the probes, Efron and Stein 1981.
    """
    residual, samples = y.double() - fitted, diagonals.samples
    rows = _Rows(merged, residual, alpha, ridge, diagonals.left)
    gcv = rows.gcv(diagonals.inverse)
    if samples is None:
        return LeaveOneOut(y.double() - rows.errors(diagonals.inverse), "factor", None, gcv)
    error, p = rows.errors(_for_squares(samples, diagonals.least)), samples.shape[1]
    without = torch.stack(
        [
            rows.errors(_for_squares(torch.cat([samples[:, :s], samples[:, s + 1 :]], dim=1), diagonals.least))
            .square()
            .mean()
            for s in range(p)
        ]
    )
    spread = float(((p - 1) / p * (without - without.mean()).square().sum()).sqrt())
    return LeaveOneOut(y.double() - error, "probes", spread, gcv)


@dataclass(frozen=True)
class _Rows:
    """What the errors and the cross-validation of all rows are computed from, beside the diagonal of the inverse."""

    merged: MergedRows
    residual: Tensor  # Y - f(X), shape: (n, c)
    alpha: Tensor  # shape: (u, c)
    ridge: float
    left: Tensor | None  # shape: (u,)

    def gone(self, inverse: Tensor) -> Tensor:
        """1 - h_ii, shape (n, 1)."""
        group, w = self.merged.group, self.merged.weights
        left = self.ridge * inverse / self.merged.totals if self.left is None else self.left
        total = self.merged.totals[group]
        return ((total - w) / total + w / total * left[group])[:, None]

    def by_weights(self) -> Tensor:
        """Which rows have an equation for themselves that f fits whatever their target is, or nearly so; shape (n,)."""
        alone = self.merged.weights >= self.merged.totals[self.merged.group]
        return alone if self.left is None else alone & (self.left[self.merged.group] <= ROUNDING)

    def errors(self, inverse: Tensor) -> Tensor:
        """y_i - f^(-i)(x_i), shape (n, c)."""
        by_weights = self.by_weights()
        error = self.residual / torch.where(by_weights[:, None], 1.0, self.gone(inverse))
        rows = by_weights.nonzero().flatten()
        error[rows] = (self.alpha / inverse[:, None])[self.merged.group[rows]]
        return error

    def gcv(self, inverse: Tensor) -> float:
        used = self.merged.used
        residual, gone = self.residual[used], self.gone(inverse)[used]
        if bool(self.by_weights()[used].all()):  # the limit, because both vanish with the ridge
            residual, gone = self.alpha / self.merged.totals[:, None], inverse / self.merged.totals
        return float(residual.square().mean() / gone.mean().square())


def _for_squares(
    samples: Tensor,  # shape: (u, p)
    least: Tensor | None,  # shape: (u,)
) -> Tensor:
    """The value whose inverse square estimates that of the samples' expectation, shape (u,)."""
    mean, p = samples.mean(dim=1), samples.shape[1]
    found = (mean.clamp(min=0).square() + 3 / p * samples.var(dim=1)).sqrt()
    return found if least is None else torch.maximum(found, least)
