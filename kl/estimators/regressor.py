"""Kernel ridge regression and interpolation of numbers, in scikit-learn's way."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from kl.estimators.base import KernelEstimator
from kl.model import KernelModel


class KernelRegressor(RegressorMixin, KernelEstimator):
    """Kernel ridge regression: f minimises sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2; with ridge 0 it interpolates.

    Features are standardised, and f is added to the weighted mean of the targets.

    Args:
        kernel: a name (`kl.kernel_names()`), "package.module:Class", or a `kl.Kernel`.
        bandwidth: a number in units of the (standardised) features, or "auto": the median distance between rows. "auto"
            leaves the bandwidth of a kernel that is given as an object as it is.
        ridge: lambda >= 0, added to the diagonal of K, not multiplied by n; 0 is the minimum-norm interpolant.
        solver: "direct" is a Cholesky factor, n^3 / 3 flops; "pcg" is preconditioned conjugate gradients; "eigenpro" is
            `epochs` of EigenPro 2, which stop before the exact solution; "auto" is "direct" while a factor fits the
            memory (and, on a CPU, up to 30,000 rows), "pcg" up to 50,000 rows, and "eigenpro" beyond.
        epochs: of EigenPro.
        memory: bytes, "8GB", or "auto" (half of what is free).
        standardize: whether columns are moved to mean 0 and divided by their standard deviation, both weighted.
        random_state: of the bandwidth's subsample and EigenPro's order; 0 gives the same result every time.
        verbose: whether progress is printed, with the time left.

    Attributes:
        kernel_: the kernel with its bandwidth.
        n_features_in_: d.
        feature_names_in_: names of the columns, where X is a data frame.
        n_iter_: iterations of the solver; epochs of EigenPro; at least 1.
        rkhs_norm_: |f|_H, in units of y.
        relative_residual_: how well the equations are solved: |(K + ridge W^-1) alpha - Y|_F / |Y|_F. Above 0.01 of
            "pcg", and above 0.5 of "eigenpro", fit gives scikit-learn's ConvergenceWarning.
        loo_error_: the leave-one-out mean squared error in units of y^2, weighted; None where the solver does not give
            it. Equal rows are left out together. It is exact of "direct", and estimated of "pcg", by 20 random probes.
        loo_predictions_: f at each training row of weight above 0, fitted without it, shape (n',) or (n', c), or None.
        solver_: what solved: "direct", "pcg", "eigenpro", or what a singular matrix needed (`kl.Interpolant`).
        machine_: the same function as a `kl.KernelModel`, a LightningModule.

    Raises:
        InputError: (at fit) a parameter is out of its range; a ValueError as scikit-learn's.
        MemoryBudgetError: (at fit) the solver does not fit the memory.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396 (interpolation); Saunders, Gammerman, Vovk 1998 (kernel ridge
    regression); Ma, Belkin 2019, arXiv:1806.06144 (EigenPro 2).

    Example:
        >>> import numpy as np, kl
        >>> X = np.linspace(0, 1, 50)[:, None]
        >>> model = kl.KernelRegressor(ridge=0).fit(X, np.sin(6 * X[:, 0]))
        >>> bool(model.score(X, np.sin(6 * X[:, 0])) > 0.999), bool(model.loo_error_ < 1e-3)
        (True, True)
    """

    loo_error_: float | None
    loo_predictions_: np.ndarray | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X, shape (n, d), and numbers y, shape (n,) or (n, c); a weight of 2 is the row given twice."""
        X, y = self._rows(X, True, y=y, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = self._weights(sample_weight, X)
        y = np.asarray(y, dtype=np.float64)
        targets, self._flat = y.reshape(len(y), -1), y.ndim == 1
        self._offset = np.average(targets, axis=0, weights=weights)
        left_out = self._fit_targets(X, targets - self._offset, weights)
        self.loo_predictions_ = self.loo_error_ = None
        if left_out is not None:
            kept = weights > 0
            predictions = left_out + self._offset
            squares = ((predictions - targets[kept]) ** 2).mean(axis=1)
            self.loo_error_ = float(np.average(squares, weights=weights[kept]))
            self.loo_predictions_ = predictions[:, 0] if self._flat else predictions
        return self

    def predict(self, X: Any) -> np.ndarray:
        """f(x), shape (m,), or (m, c) where y had columns, in units of y."""
        values = self._values(X) + self._offset
        return values[:, 0] if self._flat else values

    def _facts(self) -> dict[str, Any]:
        return {"task": "regression", "target_offset": self._offset.tolist()}

    def _kept(self) -> dict[str, Any]:
        return {**super()._kept(), "flat": self._flat}

    def _take_model(self, model: KernelModel, kept: dict[str, Any]) -> None:
        super()._take_model(model, kept)
        info = model.data_info
        self._flat = kept.get("flat", info["num_outputs"] == 1)
        self._offset = np.array(info["target_offset"])
        self._alpha = self._alpha * torch.tensor(info["target_scale"], dtype=torch.float64)
        self.loo_predictions_ = self.loo_error_ = None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
