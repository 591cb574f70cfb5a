"""Classification by least squares on one-hot targets, in scikit-learn's way."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from kl.errors import InputError
from kl.estimators.base import KernelEstimator
from kl.estimators.labels import kind_of, labels_of
from kl.kernels import Kernel
from kl.model import KernelModel
from kl.probabilities import fit_temperature, probabilities
from kl.rows.encoding import FeatureEncoding


class KernelClassifier(ClassifierMixin, KernelEstimator):
    """The class of the largest output of f, which fits one-hot rows Y by weighted least squares.

    f minimises sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2; with ridge 0 it interpolates the labels. Probabilities are
    softmax(f / T), with the temperature T that gives the leave-one-out outputs the least log loss, so that no row is
    held out for them.

    Args:
        kernel: a name (`kl.kernel_names()`), "package.module:Class", or a `kl.Kernel`.
        bandwidth: a number in units of the (standardised) features, or "auto", as of `kl.KernelRegressor`.
        ridge: lambda >= 0, added to the diagonal of K, not multiplied by n; 0 is the minimum-norm interpolant.
        solver: "direct", "pcg", "eigenpro" or "auto", as of `kl.KernelRegressor`.
        epochs: of EigenPro.
        memory: bytes, "8GB", or "auto" (half of what is free).
        standardize: whether columns are moved to mean 0 and divided by their standard deviation, both weighted.
        random_state: of the bandwidth's subsample and EigenPro's order; 0 gives the same result every time.
        verbose: whether progress is printed, with the time left.
        class_weight: weights of the classes that multiply sample_weight: a dict, "balanced", or None. Like all weights
            they matter where a ridge lets f miss targets, or where equal rows have different labels.

    Attributes:
        classes_: the labels, sorted, shape (c,).
        loo_error_: the leave-one-out share of wrong classes, weighted; None where the solver does not give it. Equal
            rows are left out together. It is exact of "direct", and estimated of "pcg", by 20 random probes.
        loo_predictions_: the class of each training row of weight above 0 by f fitted without it, shape (n',), or None.
        temperature_: T; None where there is no leave-one-out.
        kernel_: the kernel with its bandwidth; this and n_features_in_, feature_names_in_, n_iter_, rkhs_norm_,
            relative_residual_, solver_ and machine_ are as of `kl.KernelRegressor`.

    Raises:
        InputError: (at fit) a parameter is out of its range, or y holds a single class.
        MemoryBudgetError: (at fit) the solver does not fit the memory.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 2; Guo et al. 2017, arXiv:1706.04599 (temperature).

    Example:
        >>> import kl
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> model = kl.KernelClassifier(standardize=False).fit(X[:1000], y[:1000])
        >>> bool(model.score(X[1000:], y[1000:]) > 0.95), model.predict_proba(X[1000:]).shape
        (True, (797, 10))
    """

    classes_: np.ndarray
    loo_error_: float | None
    loo_predictions_: np.ndarray | None
    temperature_: float | None

    def __init__(
        self,
        kernel: str | Kernel = "laplacian",
        *,
        bandwidth: float | str = "auto",
        ridge: float = 1e-3,
        solver: str = "auto",
        epochs: int = 10,
        memory: int | str = "auto",
        standardize: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            kernel,
            bandwidth=bandwidth,
            ridge=ridge,
            solver=solver,
            epochs=epochs,
            memory=memory,
            standardize=standardize,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X, shape (n, d), and labels y, shape (n,); a weight of 2 is the row given twice."""
        X, y = self._rows(X, True, y=y)
        check_classification_targets(y)
        weights = self._weights(sample_weight, X)
        self.classes_, labels = np.unique(y, return_inverse=True)
        of_classes = compute_sample_weight(self.class_weight, y)
        if not (of_classes >= 0).all():
            raise InputError(f"class_weight must hold numbers, 0 or above; got {self.class_weight!r}")
        weights = weights * of_classes
        there = self.classes_[np.unique(labels[weights > 0])].tolist()
        if len(there) < 2:
            got = f"1 class, {there[0]!r}" if there else "none"
            raise InputError(f"y must hold at least two classes among rows of weight above 0; got {got}")
        targets = np.eye(len(self.classes_))[labels]
        left_out = self._fit_targets(X, targets, weights)
        self.loo_predictions_ = self.loo_error_ = self.temperature_ = None
        if left_out is not None:
            kept = weights > 0
            chosen = left_out.argmax(axis=1)
            self.loo_predictions_ = self.classes_[chosen]
            self.loo_error_ = float(np.average(chosen != labels[kept], weights=weights[kept]))
            arrays = (left_out, labels[kept], weights[kept])
            self.temperature_ = fit_temperature(*map(torch.from_numpy, arrays))
        return self

    def _facts(self) -> dict[str, Any]:
        return {"task": "classification", "class_names": self.classes_.tolist()}

    def _kept(self) -> dict[str, Any]:
        return {**super()._kept(), "labels": kind_of(self.classes_)}

    def _description(self, encoding: FeatureEncoding | None) -> dict[str, Any]:
        known = {} if self.temperature_ is None else {"temperature": self.temperature_}
        return {**super()._description(encoding), **known}

    def _take_model(self, model: KernelModel, kept: dict[str, Any]) -> None:
        super()._take_model(model, kept)
        names = model.data_info["class_names"] or [str(k) for k in range(model.data_info["num_outputs"])]
        self.classes_ = labels_of(names, kept.get("labels", "str"))
        self.temperature_ = model.data_info.get("temperature")
        self.loo_predictions_ = self.loo_error_ = None

    def predict(self, X: Any) -> np.ndarray:
        """The label of the largest output of f, shape (m,)."""
        chosen = self._values(X).argmax(axis=1)
        return self.classes_[chosen]

    def decision_function(self, X: Any) -> np.ndarray:
        """f(x), shape (m, c); of two classes the second output less the first, shape (m,)."""
        values = self._values(X)
        return values[:, 1] - values[:, 0] if len(self.classes_) == 2 else values

    def predict_proba(self, X: Any) -> np.ndarray:
        """softmax(f(x) / T), shape (m, c).

        Raises:
            InputError: the solver gave no leave-one-out outputs to find T on.
        """
        check_is_fitted(self, "kernel_")
        if self.temperature_ is None:
            raise InputError(
                f"predict_proba needs leave-one-out outputs, which solver={self.solver_!r} does not give: use "
                "solver='direct' or 'pcg', or sklearn's CalibratedClassifierCV around this estimator"
            )
        return probabilities(torch.from_numpy(self._values(X)), self.temperature_).numpy()
