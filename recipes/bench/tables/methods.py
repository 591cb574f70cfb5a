"""The methods: from the training rows of a split to a function, tuned within the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import loguniform, randint, uniform
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC, SVR

import kl
from kl.features.chain import evaluate_solution
from kl.kernels.bandwidth import median_distance
from kl.solve import Problem
from kl.tuning.features import RIDGES
from recipes.bench.tables.peers import OneHotRidge, XrfmClassifier, XrfmRegressor, timed_optimizer
from recipes.bench.tables.protocol import GP_ROWS, Protocol
from recipes.bench.tables.search import plain, search
from recipes.bench.tables.sets import Split


@dataclass(frozen=True)
class Fitted:
    """A fitted method."""

    predict: Callable[[np.ndarray], np.ndarray]
    """Labels or standardised targets of rows, shape (m, d) to (m,)."""
    candidates: int | None
    """How many candidates were compared; None where there are none."""
    chosen: dict[str, Any]
    """The chosen parameters."""


class NotRunError(Exception):
    """The method does not take this split, by a rule that is known before."""


def fit_kl(split: Split, protocol: Protocol) -> Fitted:
    """KernelClassifier or KernelRegressor, with kernel, bandwidth and ridge by the leave-one-out of kl.tune."""
    targets = np.eye(split.num_classes)[split.y_train] if split.is_classes else split.y_train[:, None]
    task = "classification" if split.is_classes else "regression"
    tuning = kl.tune(torch.from_numpy(split.x_train), torch.from_numpy(targets), seed=protocol.seed, task=task)
    form = kl.KernelClassifier if split.is_classes else kl.KernelRegressor
    model = form(tuning.kernel, ridge=tuning.ridge, standardize=False, random_state=protocol.seed)
    model.fit(split.x_train, split.y_train)
    first = {repr(each.kernel) for each in tuning.points if each.stage == tuning.points[0].stage}
    return Fitted(model.predict, len(first), {"kernel": repr(tuning.kernel), "ridge": tuning.ridge})


def fit_svm(split: Split, protocol: Protocol) -> Fitted:
    """scikit-learn's SVC or SVR with the Gaussian kernel exp(-gamma |x - z|^2)."""
    ranges = {"C": loguniform(0.1, 1000.0), "gamma": gammas(split)}
    if split.is_classes:
        return _searched(SVC(cache_size=500), ranges, split, protocol)
    return _searched(SVR(cache_size=500), {**ranges, "epsilon": loguniform(1e-3, 0.3)}, split, protocol)


def fit_ridge(split: Split, protocol: Protocol) -> Fitted:
    """scikit-learn's KernelRidge with the Gaussian kernel; on one-hot rows for classes."""
    form = OneHotRidge if split.is_classes else KernelRidge
    ranges = {"alpha": loguniform(*RIDGES), "gamma": gammas(split)}
    return _searched(form(kernel="rbf"), ranges, split, protocol)


def fit_boosting(split: Split, protocol: Protocol) -> Fitted:
    """scikit-learn's HistGradientBoosting."""
    form = HistGradientBoostingClassifier if split.is_classes else HistGradientBoostingRegressor
    ranges = {
        "learning_rate": loguniform(0.02, 0.3),
        "max_iter": randint(50, 401),
        "max_leaf_nodes": randint(4, 64),
        "min_samples_leaf": randint(5, 41),
        "l2_regularization": loguniform(1e-3, 10.0),
    }
    return _searched(form(random_state=protocol.seed), ranges, split, protocol)


def fit_gp(split: Split, protocol: Protocol) -> Fitted:
    """scikit-learn's GaussianProcess: a Gaussian kernel by its marginal likelihood; one against the rest for classes.

    Raises:
        NotRunError: there are more than `GP_ROWS` training rows.
    """
    if (n := len(split.x_train)) > GP_ROWS:
        raise NotRunError(f"{n} training rows, and a Gaussian process is run on {GP_ROWS} at most")
    start = median_distance(torch.from_numpy(split.x_train), seed=protocol.seed)
    kernel = ConstantKernel(1.0, (1e-3, 1e5)) * RBF(start, (start / 100, start * 100))
    fits = split.num_classes if split.num_classes > 2 else 1
    optimizer = timed_optimizer(protocol.seconds / fits)
    if split.is_classes:
        model = GaussianProcessClassifier(kernel, optimizer=optimizer, random_state=protocol.seed)
    else:
        noisy = kernel + WhiteKernel(0.1, (1e-6, 10.0))
        model = GaussianProcessRegressor(noisy, optimizer=optimizer, random_state=protocol.seed)
    model.fit(split.x_train, split.y_train)
    return Fitted(model.predict, None, {"kernel": str(model.kernel_)})


def fit_rfm(split: Split, protocol: Protocol) -> Fitted:
    """kl's recursive feature machine, by `kl.tune_features`: candidates on at most 2000 rows, the best on all."""
    targets = np.eye(split.num_classes)[split.y_train] if split.is_classes else split.y_train[:, None]
    x, y = torch.from_numpy(split.x_train), torch.from_numpy(targets)
    task = "classification" if split.is_classes else "regression"
    tuning = kl.tune_features(
        *(x, y),
        candidates=protocol.candidates,
        seconds=protocol.seconds,
        seed=protocol.seed,
        task=task,
    )
    best = tuning.best
    fit = best.candidate.fit(Problem.of(x, y), best.round, protocol.seed)

    def predict(x: np.ndarray) -> np.ndarray:
        outputs = evaluate_solution(fit.solution, torch.from_numpy(x))
        return (outputs.argmax(dim=1) if split.is_classes else outputs[:, 0]).numpy()

    chosen = {**asdict(best.candidate), "kernel": repr(best.candidate.kernel), "round": fit.number}
    return Fitted(predict, len(tuning.points), chosen)


def fit_xrfm(split: Split, protocol: Protocol) -> Fitted:
    """xRFM, a kernel machine that learns the metric of its kernel.

    Raises:
        NotRunError: xrfm is not installed.
    """
    try:
        import xrfm  # noqa: F401
    except ImportError as error:
        raise NotRunError("xrfm is not installed: pip install 'xrfm==0.4.5'") from error
    form = XrfmClassifier if split.is_classes else XrfmRegressor
    ranges = {"bandwidth": loguniform(1.0, 100.0), "exponent": uniform(0.7, 0.7), "reg": loguniform(1e-6, 10.0)}
    return _searched(form(seed=protocol.seed), ranges, split, protocol)


METHODS: dict[str, Callable[[Split, Protocol], Fitted]] = {
    "kl": fit_kl,
    "svm": fit_svm,
    "ridge": fit_ridge,
    "boosting": fit_boosting,
    "gp": fit_gp,
    "rfm": fit_rfm,
    "xrfm": fit_xrfm,
}


def gammas(split: Split) -> Any:
    """The distribution of gamma = 1 / (2 s^2) with s log-uniform in kl.tune's range, 1/8 to 16 median distances."""
    middle = median_distance(torch.from_numpy(split.x_train))
    return loguniform(1 / (2 * (16 * middle) ** 2), 1 / (2 * (middle / 8) ** 2))


def _searched(estimator: Any, ranges: dict[str, Any], split: Split, protocol: Protocol) -> Fitted:
    found = search(estimator, ranges, split, protocol)
    return Fitted(found.predict, len(found.cv_results_["params"]), plain(found.best_params_))
