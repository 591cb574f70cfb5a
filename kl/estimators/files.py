"""Estimators in files: what `kl fit` and `save` write is read as an estimator, and the other way round."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kl.estimators.classifier import KernelClassifier
from kl.estimators.regressor import KernelRegressor
from kl.estimators.rfm import RFMClassifier, RFMRegressor
from kl.kernels.registry import GivenKernel
from kl.loading import load_machine
from kl.machines.checkpoints import errors_name, require_values
from kl.model import KernelModel

KEPT = {"n_iter": int, "relative_residual": float, "solver": str, "rkhs_norm": float, "features": list[str]}
"""What an estimator's file may hold beside the function, by type."""


def load(
    path: str | os.PathLike[str], kernel: GivenKernel | Sequence[GivenKernel] | None = None
) -> KernelClassifier | KernelRegressor:
    """The function of a file as an estimator, ready to predict; no code of the file's choice runs.

    Args:
        path: a checkpoint of `kl fit`, or a file that `KernelClassifier.save`, `KernelRegressor.save`, `kl export` or
            `kl interpolate --save` wrote.
        kernel: as of `kl.load_machine`.

    Returns:
        A `KernelClassifier` or a `KernelRegressor`, by the task that the file names; with a learnt metric an
        `RFMClassifier` or an `RFMRegressor`. Labels of `kl fit` are texts.
        `loo_error_` and, but for files of `save`, the temperature are not in a file, and are None.

    Raises:
        CheckpointError: the file is missing, damaged, or of something else.
        InputError: `kernel` is not a kernel, a class of kernels or a name.

    Example:
        >>> import tempfile, kl
        >>> X, y = [[0.0], [1.0], [2.0]], ["a", "b", "b"]
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     kl.KernelClassifier().fit(X, y).save(file.name)
        ...     loaded = kl.load(file.name)
        >>> loaded.predict(X).tolist()
        ['a', 'b', 'b']
    """
    model = load_machine(path, kernel)
    if not isinstance(model, KernelModel):
        model = KernelModel.from_machine(model)
    with errors_name(path):
        kept = model.data_info.get("estimator", {})
        require_values("estimator", kept, {name: hint for name, hint in KEPT.items() if name in kept})
        plain, learning = (KernelClassifier, RFMClassifier) if model.is_classifier else (KernelRegressor, RFMRegressor)
        found = (plain if model.root is None else learning)(model.kernel)
        found._take_model(model, kept)
    return found
