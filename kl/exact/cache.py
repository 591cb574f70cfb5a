"""Exact solutions on disk, so that nothing on the same data and kernel is solved twice."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.exact.interpolate import Interpolant
from kl.exact.leave_one_out import LeaveOneOut
from kl.exact.verified import check_solution
from kl.kernels.kernel import Kernel
from kl.system.files import cache_folder
from kl.system.saved import load_values, save_values

log = logging.getLogger(__name__)

FAMILY = {"eigen": "direct", "low-rank": "pcg"}  # the fallback for singular matrices, and the solver that uses it
OPTIONAL = "leave_one_out"  # a file holds it only if it was asked for
KEPT = tuple(field.name for field in fields(Interpolant) if field.name not in ("kernel", "centers", OPTIONAL))
"""The fields that a file holds; the kernel and the centres come from the caller."""
WITHOUT = "it was kept without leave-one-out predictions"
TENSORS = ("alpha", "fitted", "rkhs_norm_per_class")


def solutions_folder() -> Path:
    """Where exact solutions are kept unless another folder is given: $XDG_CACHE_HOME/kl/exact, or ~/.cache/kl/exact.

    Raises:
        InputError: the home folder is unknown.
    """
    return cache_folder() / "exact"


def load_solution(
    path: Path,
    key: str,
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    centers: Tensor | None = None,  # shape: (p, d)
) -> Interpolant | None:
    """The solution in a file; None if there is no file or, with a log line, if the solution is not sound.

    It is not sound if the file is damaged, was written for another key, or is no solution of these equations with this
    kernel (see `check_solution`).

    Args:
        path: the file.
        key: the `solution_key` of the equations.
        kernel: the kernel; its bandwidth must be resolved.
        x: training features.
        y: targets.
        centers: the centres of a least-squares solution.

    Returns:
        The solution, its tensors on the CPU. `unmet` says whether it is as good as requested.
    """
    if not path.is_file():
        return None
    try:
        solution = _read(path, key, kernel, x if centers is None else centers)
        check_solution(solution, kernel, x, y, centers)
    except CheckpointError as error:
        say_unused(path, str(error))
        return None
    return solution


def unmet(solution: Interpolant, tolerance: float, solver: str, leave_one_out: bool = False) -> str:
    """Why a sound solution does not meet the request; empty if it does.

    The solution must be by the requested solver, and its residual within the tolerance. A larger residual is accepted
    if the solve had this tolerance or a smaller one, because solving again would lead no further.

    Args:
        solution: the solution.
        tolerance: the requested relative residual.
        solver: "direct", "pcg", or "auto" for any.
        leave_one_out: whether leave-one-out predictions are asked for.
    """
    ours = FAMILY.get(solution.solver, solution.solver)
    if solver not in ("auto", ours):
        return f"it is by {ours}, and {solver} is asked for"
    if solution.relative_residual > tolerance and solution.tolerance > tolerance:
        return (
            f"its relative residual of {solution.relative_residual:.1e} is above {tolerance:.1e}, by {ours} at a "
            f"tolerance of {solution.tolerance:.1e}"
        )
    if leave_one_out and solution.leave_one_out is None:
        return WITHOUT
    return ""


def say_unused(path: Path, reason: str) -> None:
    """Log that a kept solution is not used; only one that lacks nothing but leave-one-out predictions is no warning."""
    if reason == WITHOUT:
        log.info(
            "the exact solution in %s was kept without leave-one-out predictions: solving once more for them", path
        )
        return
    log.warning("the exact solution in %s cannot be used (%s); solving again", path, reason)


def save_solution(path: Path, key: str, solution: Interpolant) -> None:
    """Write the file whole or not at all; if the disk refuses it, a log line says so."""
    kept = {name: getattr(solution, name) for name in KEPT}
    values = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in kept.items()}
    if (left := solution.leave_one_out) is not None:
        values[OPTIONAL] = {**vars(left), "predictions": left.predictions.cpu()}
    try:
        save_values(path, {"key": key, **values})
    except OSError as error:
        log.warning("the exact solution could not be kept in %s (%s)", path.parent, error)


def _read(path: Path, key: str, kernel: Kernel, centers: Tensor) -> Interpolant:
    values = load_values(path)
    if values.get("key") != key:
        raise CheckpointError("it belongs to other data, targets, kernel, ridge or centres")
    if missing := [name for name in KEPT if name not in values]:
        raise CheckpointError(f"{missing[0]} is missing")
    for name in KEPT:
        value = values[name]
        if name in TENSORS:
            good = isinstance(value, Tensor) and value.dtype == torch.float64
        else:
            good = isinstance(value, str) if name == "solver" else isinstance(value, (int, float)) and value >= 0
        if not good:
            raise CheckpointError(f"{name} is none")
    kept = {name: values[name] for name in KEPT}
    return Interpolant(kernel=kernel, centers=centers.cpu(), **kept, leave_one_out=_left_out(values.get(OPTIONAL)))


def _left_out(values: Any) -> LeaveOneOut | None:
    """The leave-one-out predictions in a file, which older files have not."""
    if values is None:
        return None
    try:
        found = LeaveOneOut(**values)
    except TypeError as error:
        raise CheckpointError(f"{OPTIONAL} is none") from error
    numbers = [found.gcv, 0.0 if found.standard_error is None else found.standard_error]
    good = isinstance(found.predictions, Tensor) and found.predictions.dtype == torch.float64
    good = good and all(isinstance(number, float) and number >= 0 for number in numbers)
    if not good or found.method != ("factor" if found.standard_error is None else "probes"):
        raise CheckpointError(f"{OPTIONAL} is none")
    return found
