"""What both estimators share: their parameters, the rows they are given, and the function they have fitted."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from kl.checks import check_count, check_not_negative
from kl.errors import InputError
from kl.features.patches import Patches, patches_in
from kl.kernels import Kernel, build_kernel
from kl.machines.data_facts import DataFacts
from kl.model import KernelModel
from kl.rkhs import evaluate
from kl.rows.encoding import FeatureEncoding
from kl.rows.root import under_root
from kl.rows.table import TableEncoding
from kl.solve import Problem, Say, Solution, solve

UNCONVERGED = {"pcg": 0.01, "eigenpro": 0.5}
"""Relative residuals above which fit warns, by solver. EigenPro stops early on purpose, and noise keeps its high."""


class KernelEstimator(BaseEstimator):
    """f(x) = sum_i alpha_i K(x, x_i) on standardised features, by weighted least squares with a ridge.

    Subclasses turn y into targets and f into predictions.
    """

    kernel_: Kernel
    _centers: Tensor
    """What the kernel is computed on at the centres: rows less `_origin`, placed by `_root`, shape (p, d)."""
    _origin: Tensor
    _root: Tensor | None
    _encoding: FeatureEncoding | None
    _table: TableEncoding | None
    _patches: Patches | None
    """What makes features of the rows of a function that `kl.load` has read; None after fit."""
    _standard: tuple[np.ndarray, np.ndarray] | None
    """Mean and standard deviation of every column; None where features are as given, or `_encoding` makes them."""
    n_features_in_: int
    n_iter_: int
    rkhs_norm_: float
    relative_residual_: float
    solver_: str

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
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.ridge = ridge
        self.solver = solver
        self.epochs = epochs
        self.memory = memory
        self.standardize = standardize
        self.random_state = random_state
        self.verbose = verbose

    # Fitting

    def _fit_targets(
        self,
        X: np.ndarray,  # shape: (n, d)
        targets: np.ndarray,  # shape: (n, c)
        weights: np.ndarray,  # shape: (n,)
    ) -> np.ndarray | None:
        """Fit f to the rows whose weight is above 0.

        Returns:
            f at every row of weight above 0, fitted without that row and those equal to it, shape (n', c); None where
            the solver does not give it.
        """
        ridge = check_not_negative("ridge", self.ridge)
        epochs, seed = check_count("epochs", self.epochs), self._seed()
        self._encoding, self._table, self._patches = None, None, None  # of a file that was loaded before this fit
        self._standard = standardisation(X, weights) if self.standardize else None
        kept = weights > 0
        x = self._features(X[kept])
        problem = Problem.of(x, torch.from_numpy(targets[kept]), torch.from_numpy(weights[kept]))
        found = self._solve(problem, ridge, epochs, seed, print if self.verbose else None)
        self._take(found)
        self._warn_unconverged()
        return None if found.left_out is None else found.left_out[problem.group].numpy()

    def _solve(self, problem: Problem, ridge: float, epochs: int, seed: int, say: Say | None) -> Solution:
        """The solution for checked parameters."""
        kernel = self._given_kernel().resolve(problem.x, seed=seed)
        return solve(problem, kernel, ridge, self.solver, epochs, self.memory, seed, True, say)

    def _take(self, found: Solution) -> None:
        self._alpha, self.kernel_, self._root = found.alpha, found.kernel, found.root
        self._origin = found.kernel.origin_of(found.centers)
        self._centers = under_root(found.centers - self._origin, found.root)
        self.n_iter_, self.solver_ = found.iterations, found.solver
        self.rkhs_norm_, self.relative_residual_ = found.rkhs_norm, found.relative_residual

    def _warn_unconverged(self) -> None:
        """Give scikit-learn's ConvergenceWarning if the equations are solved worse than `UNCONVERGED`."""
        if self.relative_residual_ <= UNCONVERGED.get(self.solver_, math.inf):
            return
        if self.solver_ == "pcg":
            remedy = "give a larger ridge, solver='direct', or another kernel or bandwidth"
        else:
            remedy = (
                "give more epochs, solver='pcg' or 'direct', or sample weights that differ less if they differ much"
            )
        warnings.warn(
            f"{type(self).__name__}: solver {self.solver_!r} has not converged in {self.n_iter_} iterations or epochs: "
            f"the relative residual is {self.relative_residual_:.2g}, above {UNCONVERGED[self.solver_]:g}: {remedy}",
            ConvergenceWarning,
            stacklevel=4,  # the caller of fit
        )

    def _given_kernel(self) -> Kernel:
        """The kernel by its name, with the bandwidth; "auto" leaves a kernel that is given as it is."""
        bandwidth = None if isinstance(self.bandwidth, str) and self.bandwidth == "auto" else self.bandwidth
        return build_kernel(self.kernel, bandwidth=bandwidth)

    def _seed(self) -> int:
        state = self.random_state
        return int(state) if isinstance(state, int | np.integer) else check_random_state(state).randint(2**31 - 1)

    def _weights(self, sample_weight: Any, X: np.ndarray) -> np.ndarray:
        """Weights of the rows, shape (n,), float64; 1 where none are given.

        Raises:
            InputError: one is negative.
        """
        if sample_weight is None:
            return np.ones(len(X))
        weights = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64))
        if (weights < 0).any():
            raise InputError(f"sample_weight must be 0 or above; got {weights.min():g}")
        return weights

    # Files

    @property
    def machine_(self) -> KernelModel:
        """The function as a `kl.KernelModel`, a LightningModule, of the features that `data_info["encoding"]` makes."""
        check_is_fitted(self, "kernel_")
        origin, encoding = self._origin_and_encoding()
        model = KernelModel(self.kernel_)
        return model.become(self._alpha, self._centers, origin, self._description(encoding), self._root)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the function to a file that `kl.load` and `kl predict` read, completely or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        self.machine_.save(path)

    def _origin_and_encoding(self) -> tuple[Tensor, FeatureEncoding | None]:
        """What a file's function subtracts from its features, shape (d,), and what makes them of rows, in float32.

        An origin of float64 rows far from 0 goes to the encoding, because float32 features have lost their digits.
        """
        if self._encoding is not None:
            return self._origin, self._encoding
        if self._standard is not None:
            return self._origin, FeatureEncoding.standardized(*(column.tolist() for column in self._standard))
        if self._origin.dtype == torch.float64 and bool(self._origin.any()):
            return torch.zeros_like(self._origin), FeatureEncoding(origin=tuple(self._origin.tolist()))
        return self._origin, None

    def _description(self, encoding: FeatureEncoding | None) -> dict[str, Any]:
        """What a file says of the data, as `kl.machines.data_facts.DataFacts.description`."""
        facts = DataFacts(
            name=type(self).__name__, encoding=encoding, table=self._table, patches=self._patches, **self._facts()
        )
        return {**facts.description(self._centers, self._alpha), "estimator": self._kept()}

    def _facts(self) -> dict[str, Any]:
        """The facts that a subclass knows of its data."""
        raise NotImplementedError

    def _kept(self) -> dict[str, Any]:
        """What `kl.load` needs beside the function, as plain values."""
        names = getattr(self, "feature_names_in_", None)
        numbers = {"relative_residual": self.relative_residual_, "rkhs_norm": self.rkhs_norm_}
        known = {name: value for name, value in numbers.items() if math.isfinite(value)}
        features = [] if names is None else [str(name) for name in names]
        return {**known, "n_iter": self.n_iter_, "solver": self.solver_, "features": features}

    def _take_model(self, model: KernelModel, kept: dict[str, Any]) -> None:
        """Become the estimator whose function is the model's."""
        self._alpha, self._centers, self._origin = model.alpha.detach(), model.centers, model.origin
        self._root = model.root
        self.kernel_, info = model.kernel, model.data_info
        self._encoding = FeatureEncoding.from_dict(info["encoding"])
        self._table = TableEncoding.from_dict(info["table"]) if info.get("table") else None
        self._standard, self._patches = None, patches_in(info)
        names = kept.get("features", []) if self._table is None else [column.name for column in self._table.columns]
        pixels = 0 if self._patches is None else math.prod(self._patches.image or ())
        self.n_features_in_ = len(names) or pixels or info["num_features"]
        if names:
            self.feature_names_in_ = np.array(names, dtype=object)
        self.n_iter_, self.solver_ = kept.get("n_iter", 1), kept.get("solver", "unknown")
        self.rkhs_norm_ = kept.get("rkhs_norm", math.nan)
        self.relative_residual_ = kept.get("relative_residual", math.nan)

    # The function

    def _rows(self, X: Any, reset: bool = False, **options: Any) -> Any:
        """X, or (X, y), as scikit-learn checks them: a float matrix without NaN, shape (n, d)."""
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], **options)

    def _features(self, X: np.ndarray) -> Tensor:
        """What the kernel is computed on, shape (m, d), in the float type of X."""
        if self._encoding is not None:
            x = self._encoding.encode(torch.from_numpy(np.array(X)))
            return x if self._patches is None else self._patches.transform_rows(x)
        if self._standard is None:
            return torch.from_numpy(np.array(X))
        mean, scale = self._standard
        return torch.from_numpy(((X - mean) / scale).astype(X.dtype, copy=False))

    def _values(self, X: Any) -> np.ndarray:
        """f at the rows of X, shape (m, c), float64.

        Raises:
            InputError: the function was fitted on a table, and X is no data frame or lacks a column.
        """
        check_is_fitted(self, "kernel_")
        if self._table is not None and not hasattr(X, "columns"):
            raise InputError(f"X must be a data frame, because the model was fitted on a table; got {type(X).__name__}")
        if self._table is not None and not len(X):
            raise InputError("X must have at least one row; got a data frame without rows")
        x = self._features(self._rows(X)) if self._table is None else self._table.encode(X, "X")
        x = x.to(self._centers.dtype)
        placed = under_root(x - self._origin, self._root)
        return evaluate(self.kernel_, self._centers, self._alpha, placed).numpy()


def standardisation(
    X: np.ndarray,  # shape: (n, d)
    weights: np.ndarray,  # shape: (n,)
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean and standard deviation of every column, shapes (d,), float64; 1 for a constant column."""
    X = X.astype(np.float64, copy=False)
    mean = np.average(X, axis=0, weights=weights)
    gaps = (X - mean)[weights > 0]
    largest = np.abs(gaps).max(axis=0)  # squares of values from 1e154, or up to 1e-162, are beyond float64
    largest[largest == 0] = 1.0
    scale = largest * np.sqrt(np.average((gaps / largest) ** 2, axis=0, weights=weights[weights > 0]))
    # Rounding of the mean alone is no spread.
    scale[scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)] = 1.0
    return mean, scale
