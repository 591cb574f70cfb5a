"""Exact solutions on disk, so that a run on the same data and kernel never solves twice."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kl import Interpolant, Kernel, Rows
from kl.engine import kernel_matmul
from kl.exact.checkpoint import solution_key
from kl.files import written_whole

log = logging.getLogger(__name__)

__all__ = ["load_solution", "save_solution", "solution_key"]

CHECKED_ROWS = 16  # rows whose fitted values a loaded solution is checked on
CHECK_TOLERANCE = 1e-6  # relative; far above float64 rounding, far below the effect of another formula


def load_solution(
    path: Path,
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    tolerance: float = math.inf,
    centers: Tensor | None = None,  # shape: (p, d)
) -> Interpolant | None:
    """The solution in a file; None, with a log line, where the file is damaged or its kernel has changed.

    None, too, where its residual is above the tolerance and nobody has asked it for as little before.

    Its fitted values on a few rows are computed again. That finds a kernel whose formula was changed under the same
    name, which no hash of its config can see.
    """
    if not path.is_file():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        solution = Interpolant(**{field.name: values[field.name] for field in fields(Interpolant)})
        wanted = (len(x if centers is None else centers), y.shape[1])
        if solution.alpha.shape != wanted or solution.fitted.shape != y.shape:
            raise ValueError(f"weights of shape {tuple(solution.alpha.shape)} for targets of shape {tuple(y.shape)}")
        _check_fitted(solution, kernel, x, centers)
        if solution.relative_residual > tolerance and solution.tolerance > tolerance:
            raise ValueError(f"its relative residual of {solution.relative_residual:.1e} is above {tolerance:.1e}")
    except Exception as error:  # a damaged pickle can raise anything; whatever it is, solving again mends it
        log.warning("the exact solution in %s cannot be used (%s); solving again", path, str(error).split("\n")[0])
        return None
    return solution


def save_solution(path: Path, solution: Interpolant) -> None:
    """Write the solution at once or not at all; a disk that refuses it is only a log line."""
    values: dict[str, Any] = asdict(solution)
    values = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in values.items()}
    try:
        with written_whole(path) as file:
            torch.save(values, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError on a full disk
        log.warning("the exact solution could not be kept in %s (%s)", path.parent, error)


def _check_fitted(solution: Interpolant, kernel: Kernel, x: Tensor, centers: Tensor | None) -> None:
    rows = torch.linspace(0, len(x) - 1, min(CHECKED_ROWS, len(x))).long()
    single = Rows.of((x if centers is None else centers).cpu())
    checked = Rows.of(x[rows].cpu(), like=single).double()
    again = kernel_matmul(kernel, checked, single.double(), solution.alpha, same=rows if centers is None else None)
    kept = solution.fitted[rows]
    if not float((again - kept).norm()) <= CHECK_TOLERANCE * float(solution.fitted.abs().max()) * kept.numel() ** 0.5:
        raise ValueError("its fitted values are not those of the kernel as it is now")
