"""Recursive feature machines in scikit-learn's way: kernel machines that learn the metric of their kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from kl.estimators.base import KernelEstimator
from kl.estimators.classifier import KernelClassifier
from kl.estimators.regressor import KernelRegressor
from kl.features.chain import SAMPLE, MetricOptions
from kl.features.learning import Choice, FeatureLearning
from kl.kernels import Kernel
from kl.rows.root import diagonal_of
from kl.solve import Problem, Say, Solution


class _LearnsFeatures(KernelEstimator):
    """What both machines add to their estimator: the rounds, and the metric of the best one."""

    rounds: int
    by: str
    metric: Any
    bandwidth_factor: float
    power: float
    centered: bool
    sample: int | None

    scores_: np.ndarray
    best_round_: int

    def _solve(self, problem: Problem, ridge: float, epochs: int, seed: int, say: Say | None) -> Solution:
        metric = self.metric if isinstance(self.metric, str) else tuple(map(tuple, self.metric))
        learning = FeatureLearning(
            problem,
            self._given_kernel(),
            ridge=ridge,
            solver=self.solver,
            epochs=epochs,
            memory=self.memory,
            seed=seed,
            metric=MetricOptions(
                metric,
                self.power,
                centered=self.centered,
                sample=self.sample,
                bandwidth_factor=self.bandwidth_factor,
            ),
            choice=Choice(self.rounds, self.by),
            say=say,
        )
        best = learning.run()
        self.scores_, self.best_round_ = np.array(learning.scores), best.number
        return best.solution

    @property
    def metric_(self) -> np.ndarray:
        """M of the best round, shape (d, d), or its diagonal, shape (d,); ones for the plain kernel."""
        check_is_fitted(self, "kernel_")
        if self._root is None:
            return np.ones(self._origin.shape)
        return (self._root.square() if self._root.ndim == 1 else self._root @ self._root).numpy()

    @property
    def feature_importances_(self) -> np.ndarray:
        """The diagonal of M divided by its sum, shape (d,): how much f follows each column, in standardised units."""
        check_is_fitted(self, "kernel_")
        diagonal = np.ones(self._origin.shape) if self._root is None else diagonal_of(self._root).numpy()
        return diagonal / diagonal.sum()


class RFMRegressor(_LearnsFeatures, KernelRegressor):
    """Kernel ridge regression whose kernel K(x M^(1/2), z M^(1/2)) learns its metric M: a recursive feature machine.

    Round 0 is the plain kernel. Each following round takes M from the gradients of the last f, and solves again:

        M = G^power / max entry,    G = mean_i sum_o grad f_o(x_i) grad f_o(x_i)^T

    The round of the least error on rows held out of it is kept. Rounds stop when two in a row are no better.

    Args:
        kernel: a name (`kl.kernel_names()`), "package.module:Class", or a `kl.Kernel`; it must define its gradient.
        bandwidth: a number in units of x M^(1/2), or "auto": the median distance between rows, anew in each round.
        ridge: lambda >= 0, added to the diagonal of K, not multiplied by n; 0 is the minimum-norm interpolant.
        rounds: metrics that are learnt at most; 0 is `KernelRegressor`.
        by: what chooses the round: "kfold", 5 parts of the rows by rounds on the others, six times the work; "holdout",
            a fifth of the rows, 5000 at most, by rounds on the others, of which the best is solved again on all rows;
            "loo", leave-one-out under a metric that was learnt with the row, and so too optimistic for many columns
            (`kl.features.learning.FeatureLearning` has figures). "auto" is "kfold" up to 3000 rows, "holdout" beyond.
        metric: "full", "diagonal", or groups of columns, such as [[0, 1], [2]], each of which has a block of M.
        bandwidth_factor: a bandwidth "auto" is this times the median distance.
        power: exponent of G; below 1, directions that f follows little count more.
        centered: whether each output's mean gradient is subtracted first.
        sample: rows, drawn at random, whose gradients are averaged; None takes all.
        solver: "auto", "direct", "pcg" or "eigenpro", as of `KernelRegressor`.
        epochs: of EigenPro, in each round.
        memory: bytes, "8GB", or "auto" (half of what is free).
        standardize: whether columns are moved to mean 0 and divided by their standard deviation, both weighted.
        random_state: of all that is drawn.
        verbose: whether progress is printed.

    Attributes:
        scores_: the mean squared error of each round on the rows that choose.
        best_round_: the round that is kept; 0 is the plain kernel.
        metric_: M, shape (d, d), or (d,) where it is diagonal; ones for the plain kernel.
        feature_importances_: the diagonal of M divided by its sum, shape (d,).
        loo_error_: as of `KernelRegressor`, which has the other attributes, too; under a metric learnt with the row.

    Raises:
        InputError: (at fit) a parameter is out of its range, or the kernel defines no gradient.
        MemoryBudgetError: (at fit) the solver does not fit the memory.

    Source: Radhakrishnan, Beaglehole, Pandit, Belkin 2024, arXiv:2212.13881, Algorithm 1.

    Example:
        >>> import numpy as np, kl
        >>> X = np.random.default_rng(0).normal(size=(300, 10))
        >>> y = np.sin(2 * X[:, 0]) * X[:, 1]  # the other 8 columns have no effect
        >>> model = kl.RFMRegressor().fit(X[:200], y[:200])
        >>> bool(model.feature_importances_[:2].sum() > 0.9), model.best_round_ > 0
        (True, True)
        >>> plain = kl.KernelRegressor().fit(X[:200], y[:200])
        >>> bool(model.score(X[200:], y[200:]) > plain.score(X[200:], y[200:]) + 0.3)
        True
    """

    def __init__(
        self,
        kernel: str | Kernel = "laplacian",
        *,
        bandwidth: float | str = "auto",
        ridge: float = 1e-3,
        rounds: int = 5,
        by: str = "auto",
        metric: Any = "full",
        bandwidth_factor: float = 1.0,
        power: float = 1.0,
        centered: bool = False,
        sample: int | None = SAMPLE,
        solver: str = "auto",
        epochs: int = 10,
        memory: int | str = "auto",
        standardize: bool = True,
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
        self.rounds, self.by = rounds, by
        self.metric, self.bandwidth_factor = metric, bandwidth_factor
        self.power, self.centered, self.sample = power, centered, sample


class RFMClassifier(_LearnsFeatures, KernelClassifier):
    """Kernel least squares on one-hot rows whose kernel learns its metric: a recursive feature machine.

    See `RFMRegressor` for the rounds, and `KernelClassifier` for labels and probabilities. The mean squared error of
    the one-hot rows chooses the round.

    Args:
        kernel: a name, "package.module:Class", or a `kl.Kernel`.
        bandwidth: a number in units of x M^(1/2), or "auto".
        ridge: lambda >= 0.
        rounds: metrics that are learnt at most.
        by: what chooses the round: "kfold", "holdout", "loo" or "auto".
        metric: "full", "diagonal", or groups of columns.
        bandwidth_factor: a bandwidth "auto" is this times the median distance.
        power: exponent of G.
        centered: whether each output's mean gradient is subtracted first.
        sample: rows whose gradients are averaged; None takes all.
        solver: "auto", "direct", "pcg" or "eigenpro".
        epochs: of EigenPro, in each round.
        memory: bytes, "8GB", or "auto".
        standardize: whether columns are standardised.
        class_weight: see `KernelClassifier`.
        random_state: of all that is drawn.
        verbose: whether progress is printed.

    Attributes:
        scores_, best_round_, metric_, feature_importances_: see `RFMRegressor`; the others are those of
            `KernelClassifier`.

    Raises:
        InputError: (at fit) a parameter is out of its range, or the kernel defines no gradient.
        MemoryBudgetError: (at fit) the solver does not fit the memory.

    Source: Radhakrishnan, Beaglehole, Pandit, Belkin 2024, arXiv:2212.13881, Algorithm 1.

    Example:
        >>> import numpy as np, kl
        >>> X = np.random.default_rng(0).normal(size=(300, 10))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")  # of two signs; the other 8 columns have no effect
        >>> model = kl.RFMClassifier(rounds=3).fit(X[:200], y[:200])
        >>> model.feature_importances_.argsort()[-2:].tolist() in ([0, 1], [1, 0])
        True
    """

    def __init__(
        self,
        kernel: str | Kernel = "laplacian",
        *,
        bandwidth: float | str = "auto",
        ridge: float = 1e-3,
        rounds: int = 5,
        by: str = "auto",
        metric: Any = "full",
        bandwidth_factor: float = 1.0,
        power: float = 1.0,
        centered: bool = False,
        sample: int | None = SAMPLE,
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
            class_weight=class_weight,
            random_state=random_state,
            verbose=verbose,
        )
        self.rounds, self.by = rounds, by
        self.metric, self.bandwidth_factor = metric, bandwidth_factor
        self.power, self.centered, self.sample = power, centered, sample
