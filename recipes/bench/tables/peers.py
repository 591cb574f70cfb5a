"""The estimators of other libraries that have no fitting form of their own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import train_test_split


class OneHotRidge(ClassifierMixin, KernelRidge):
    """scikit-learn's KernelRidge on one-hot rows; the class is that of the largest output."""

    classes_: np.ndarray

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X, shape (n, d), and labels y, shape (n,)."""
        self.classes_, labels = np.unique(y, return_inverse=True)
        return super().fit(X, np.eye(len(self.classes_))[labels], sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """The label of the largest output, shape (m,)."""
        return self.classes_[super().predict(X).argmax(axis=1)]


class _TimeUp(Exception):
    """The optimiser's time is over."""


def timed_optimizer(seconds: float) -> Callable[..., tuple[np.ndarray, float]]:
    """An optimiser for scikit-learn's Gaussian processes: L-BFGS-B, whose best point after `seconds` is the result."""

    def optimise(objective: Callable[..., Any], initial: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
        start, best, least = time.perf_counter(), initial, np.inf

        def watched(theta: np.ndarray) -> Any:
            nonlocal best, least
            value, gradient = objective(theta)
            if value < least:
                best, least = theta.copy(), float(value)
            if time.perf_counter() - start >= seconds:
                raise _TimeUp
            return value, gradient

        try:
            minimize(watched, initial, method="L-BFGS-B", jac=True, bounds=bounds)
        except _TimeUp:
            warnings.warn(f"the search for the parameters ended after {seconds:.1f} s", stacklevel=2)
        return best, least

    return optimise


class _Xrfm(BaseEstimator):
    """xRFM with its main parameters as scikit-learn's; a fifth of the rows choose among its iterations.

    Args:
        bandwidth, exponent: of its kernel exp(-(|x - z|_M / bandwidth)^exponent).
        reg: its ridge.
        iters: iterations that learn the metric M.
        seed: of the rows that are held out.
    """

    def __init__(
        self, bandwidth: float = 10.0, exponent: float = 1.0, reg: float = 1e-3, iters: int = 5, seed: int = 0
    ) -> None:
        self.bandwidth = bandwidth
        self.exponent = exponent
        self.reg = reg
        self.iters = iters
        self.seed = seed

    def _fit(self, X: np.ndarray, y: np.ndarray, metric: str, strata: np.ndarray | None) -> Self:
        from xrfm import xRFM

        model = {"kernel": "l2_high_dim", "bandwidth": self.bandwidth, "exponent": self.exponent, "diag": False}
        fit = {"reg": self.reg, "iters": self.iters, "verbose": False, "get_agop_best_model": True}
        parameters = {"model": {**model, "bandwidth_mode": "constant"}, "fit": {**fit, "return_best_params": True}}
        x_fit, x_val, y_fit, y_val = train_test_split(
            X.astype(np.float32), y, test_size=0.2, random_state=self.seed, stratify=strata
        )
        self.model_ = xRFM(parameters, device="cpu", tuning_metric=metric, verbose=False, random_state=self.seed)
        self.model_.fit(x_fit, y_fit, x_val, y_val)
        return self


class XrfmRegressor(RegressorMixin, _Xrfm):
    """xRFM on numbers."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X, shape (n, d), and targets y, shape (n,)."""
        return self._fit(X, np.asarray(y, dtype=np.float32)[:, None], "mse", None)

    def predict(self, X: Any) -> np.ndarray:
        """Predictions, shape (m,)."""
        return np.asarray(self.model_.predict(X.astype(np.float32)), dtype=np.float64).reshape(len(X))


class XrfmClassifier(ClassifierMixin, _Xrfm):
    """xRFM on classes."""

    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X, shape (n, d), and labels y, shape (n,)."""
        self.classes_, labels = np.unique(y, return_inverse=True)
        return self._fit(X, labels, "accuracy", labels)

    def predict(self, X: Any) -> np.ndarray:
        """The label of the largest probability, shape (m,)."""
        chosen = np.asarray(self.model_.predict_proba(X.astype(np.float32))).argmax(axis=1)
        return self.classes_[chosen]
