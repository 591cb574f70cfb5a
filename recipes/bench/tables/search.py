"""A peer's search for its parameters: scikit-learn's random search, stopped by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import KFold, ParameterSampler, RandomizedSearchCV, StratifiedKFold

from recipes.bench.tables.protocol import FOLDS, Protocol
from recipes.bench.tables.sets import Split


class TimedSearch(RandomizedSearchCV):
    """RandomizedSearchCV that tries the estimator as it is, then random draws, and begins none after `seconds`.

    Args:
        estimator: whose parameters are sought.
        param_distributions: their distributions.
        seconds: after which no candidate is begun; the first one is always tried.
        **options: those of RandomizedSearchCV.
    """

    def __init__(self, estimator: Any, param_distributions: Any, *, seconds: float = 60.0, **options: Any) -> None:
        super().__init__(estimator, param_distributions, **options)
        self.seconds = seconds

    def _run_search(self, evaluate_candidates: Callable[[list[dict[str, Any]]], Any]) -> None:
        start = time.perf_counter()
        draws = ParameterSampler(self.param_distributions, self.n_iter - 1, random_state=self.random_state)
        for candidate in ({}, *draws):
            evaluate_candidates([candidate])
            if time.perf_counter() - start >= self.seconds:
                break


def search(estimator: BaseEstimator, distributions: dict[str, Any], split: Split, protocol: Protocol) -> TimedSearch:
    """Choose an estimator's parameters by cross-validation on the training rows, and fit it to all of them.

    Candidates are ranked by accuracy for classes, and by mean squared error for regression.
    """
    parts = StratifiedKFold if split.is_classes else KFold
    found = TimedSearch(
        estimator,
        distributions,
        seconds=protocol.seconds,
        n_iter=protocol.candidates,
        cv=parts(FOLDS, shuffle=True, random_state=protocol.seed),
        scoring="accuracy" if split.is_classes else "neg_mean_squared_error",
        random_state=protocol.seed,
        error_score="raise",
    )
    found.fit(split.x_train, split.y_train)
    return found


def plain(chosen: dict[str, Any]) -> dict[str, Any]:
    """Parameters as values that JSON has."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in chosen.items()}
