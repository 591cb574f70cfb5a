"""The meaning of an array y: exact class labels, or regression targets."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.errors import InputError
from kl.rows.encoding import far_columns
from kl.rows.rows import check_finite_matrix, is_one_hot

log = logging.getLogger(__name__)

TASKS = ("auto", "classification", "regression")
FEW = 100  # number of distinct integers up to which they count as classes, however few rows there are


class Targets(NamedTuple):
    """The targets of a training and a test set."""

    train: Tensor
    """Class indices, shape (n,), long, or numbers, float32, shape (n, c)."""
    test: Tensor | None
    classes: np.ndarray | None
    """The labels in increasing order, int64 or Python integers; None for regression."""

    @property
    def class_names(self) -> list[str]:
        """The labels as text; empty for regression."""
        return [] if self.classes is None else [str(value) for value in self.classes]


def check_task(task: str) -> str:
    """Return the task if it is one of `TASKS`, else raise InputError."""
    return check_one_of("task", task, TASKS)


def targets(
    y_train: np.ndarray,
    y_test: np.ndarray | None,
    task: str = "auto",
    names: tuple[str, str] = ("y_train", "y_test"),
) -> Targets:
    """The targets of the training and the test set.

    Args:
        y_train: y of the training set, shape (n,) or (n, c).
        y_test: y of the test set; None without a test set.
        task: "classification": integers, whole floats or one-hot rows; "regression": numbers; "auto": integers are
            classes and floats are numbers, and a log line says which was taken.
        names: the names of both arrays in messages.

    Raises:
        InputError: an array does not fit the task, is empty or not finite, the arrays do not match in width or
            classes, or "auto" cannot decide.
    """
    given = [(name, y) for name, y in zip(names, (y_train, y_test), strict=True) if y is not None]
    for name, y in given:
        check_targets(name, y)
    guessed = task == "auto"
    if guessed:
        task = _guess(given)
    if task == "regression":
        return _numbers(given)
    return _classes(given, guessed)


def check_targets(name: str, y: np.ndarray) -> np.ndarray:
    """Return y if it holds integers or finite floats, shape (n,) or (n, c), else raise InputError naming `name`."""
    if y.dtype.kind not in "iubf":
        raise InputError(f"{name} must hold integers (classes) or floats (regression); got {y.dtype}")
    if y.ndim not in (1, 2) or y.size == 0:
        raise InputError(f"{name} must have shape (n,) or (n, c) with at least one row; got {y.shape}")
    if y.dtype.kind == "f":
        check_finite_matrix(name, torch.from_numpy(np.require(y, np.float64, ["C", "W"])).reshape(len(y), -1))
    return y


def numbers(name: str, y: np.ndarray) -> Tensor:
    """Regression targets, float32, shape (n, c).

    Raises:
        InputError: a value is beyond float32.
    """
    with np.errstate(over="ignore"):  # reported as infinite by the check
        rows = torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32)).reshape(len(y), -1)
    return check_finite_matrix(f"{name} as float32", rows)


def labels(name: str, y: np.ndarray) -> np.ndarray:
    """Integer labels, shape (n,), int64, or Python integers if one is beyond int64; one-hot rows give their columns.

    Raises:
        InputError: the values are neither whole numbers nor one-hot rows.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        if not is_one_hot(y):
            raise InputError(
                f"{name} must hold one label a row, or one-hot rows; got shape {y.shape}: for numbers give --task "
                "regression"
            )
        return y.argmax(axis=1)
    y = y.reshape(-1)
    if y.dtype.kind == "f" and not (y == np.rint(y)).all():
        odd = y[y != np.rint(y)][0]
        raise InputError(f"{name} must hold whole numbers for --task classification; got {odd}")
    if y.dtype.kind == "b" or abs(int(y.max())) < 2**63 > abs(int(y.min())):
        return y.astype(np.int64)
    return np.array([int(value) for value in y], dtype=object)


def class_index(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index of each value in the sorted array `known`, and the values that `known` lacks."""
    index = np.searchsorted(known, values).clip(max=len(known) - 1)
    return index.astype(np.int64), np.unique(values[known[index] != values])


def _guess(given: list[tuple[str, np.ndarray]]) -> str:
    """The task by the dtype of the arrays: integers mean classification, floats regression.

    Raises:
        InputError: one array holds integers and the other floats, or integers have several columns.
    """
    floats = [y.dtype.kind == "f" for _, y in given]
    if len(set(floats)) > 1:
        (ours, y), (theirs, z) = given
        raise InputError(
            f"{ours} and {theirs} must both be integers (classes) or both floats (regression); got {y.dtype} and "
            f"{z.dtype}: store both alike, or give --task"
        )
    name, y = given[0]
    if not floats[0]:
        if y.ndim == 2 and y.shape[1] > 1:
            raise InputError(
                f"{name} holds integers, which are classes, so its shape must be (n,); got {y.shape}: for one-hot rows "
                "give --task classification, for numbers --task regression"
            )
        return "classification"
    column = np.unique(y) if y.ndim == 1 or y.shape[1] == 1 else None
    looks = "one-hot rows" if is_one_hot(y) else ""
    if column is not None and len(column) <= min(FEW, len(y) // 2) and (column == np.rint(column)).all():
        looks = f"labels of {len(column)} classes"
    if looks:
        log.warning(
            "%s holds floats, taken as numbers (regression), though they look like %s: for those give --task "
            "classification, or store integers",
            name,
            looks,
        )
    else:
        log.info("%s holds floats: taken as numbers (regression)", name)
    return "regression"


def _numbers(given: list[tuple[str, np.ndarray]]) -> Targets:
    parts = [numbers(name, y) for name, y in given]
    (ours, y), (theirs, _), first, last = given[0], given[-1], parts[0], parts[-1]
    if first.shape[1] != last.shape[1]:
        raise InputError(
            f"{ours} and {theirs} must have equally many columns; got {first.shape[1]} and {last.shape[1]}"
        )
    if y.dtype.itemsize > 4 and any(far_columns(torch.from_numpy(y.astype(np.float64).reshape(len(y), -1)))):
        log.warning("%s lies so far from 0 for its spread that float32 loses digits of it: subtract its mean", ours)
    return Targets(first, last if len(parts) > 1 else None, None)


def _classes(given: list[tuple[str, np.ndarray]], guessed: bool) -> Targets:
    found = [labels(name, y) for name, y in given]
    columns = [np.arange(y.shape[1]) for _, y in given if is_one_hot(y)]
    known = np.unique(np.concatenate([*found, *columns]))
    if len(columns) == 1 and len(found) == 2 and len(known) > len(columns[0]):
        (ours, _), (theirs, _) = given
        raise InputError(
            f"{ours} and {theirs} must name the classes alike; one holds one-hot rows, of the classes 0 to "
            f"{len(columns[0]) - 1}, and the other labels from {known[0]} to {known[-1]}: store both alike"
        )
    if guessed:
        name, n = given[0][0], len(found[0])
        if len(known) > max(FEW, n // 2):
            raise InputError(
                f"{name} holds integers, {len(known)} different ones in {n} rows, which may be classes or numbers: say "
                "which with --task classification or --task regression"
            )
        log.info("%s holds integers: taken as labels of %d classes", name, len(known))
    indices = [torch.from_numpy(class_index(values, known)[0]) for values in found]
    return Targets(indices[0], indices[1] if len(indices) > 1 else None, known)
