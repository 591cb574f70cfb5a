"""The scores of one kernel: for all ridges from one eigen-decomposition, or for one ridge at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.kernels.kernel import Kernel
from kl.tuning.factor import Factor
from kl.tuning.losses import Losses
from kl.tuning.problem import Problem
from kl.tuning.spectrum import Spectrum


@dataclass(frozen=True)
class Scored:
    """What one ridge is worth."""

    ridge: float
    losses: Losses
    rkhs_norm: float


def spectrum_memory(n: int, d: int) -> int:
    """Bytes of `score_all`: K, U, LAPACK's work space of 2 n^2 values and two temporaries; features in float64."""
    return 8 * (6 * n * n + 2 * n * d)


def factor_memory(n: int, d: int) -> int:
    """Bytes of `OneByOne`: K, K + r I, its factor and a part of the inverse factor; features in float64."""
    return 8 * (7 * n * n // 2 + 2 * n * d)


def score_all(problem: Problem, kernel: Kernel, ridges: Sequence[float]) -> list[Scored]:
    """The scores of all ridges."""
    distinct = problem.distinct(kernel)
    targets = distinct.root[:, None] * distinct.targets
    spectrum = Spectrum.of(distinct.matrix(kernel), targets)
    folds = problem.fold_numbers(distinct)
    if problem.held_out is None:
        residuals = [spectrum.left_out(ridge, folds) for ridge in ridges]
        losses = [_losses_of_left_out(problem, kernel, each) for each in residuals]
    else:
        z, y = problem.held_out
        outputs = distinct.evaluate(kernel, torch.cat([spectrum.weights(ridge) for ridge in ridges], dim=1), z)
        losses = [Losses.of(each, y, problem.classes) for each in outputs.split(targets.shape[1], dim=1)]
    norms = [math.sqrt(spectrum.sq_norm(ridge)) for ridge in ridges]
    return [Scored(*each) for each in zip(ridges, losses, norms, strict=True)]


class OneByOne:
    """The scores of one kernel, a ridge at a time.

    Args:
        problem: the rows.
        kernel: the kernel, resolved.
    """

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        self._problem, self._kernel = problem, kernel
        self._distinct = problem.distinct(kernel)
        self._matrix = self._distinct.matrix(kernel)

    def score(self, ridge: float) -> Scored | None:
        """The score of a ridge; None if K + r I is singular to rounding."""
        problem, distinct = self._problem, self._distinct
        factor = Factor.of(self._matrix, distinct.root[:, None] * distinct.targets, ridge)
        if factor is None:
            return None
        weights = factor.weights()
        if problem.held_out is None:
            residual = factor.left_out(weights, problem.fold_numbers(distinct))
            losses = _losses_of_left_out(problem, self._kernel, residual)
        else:
            z, y = problem.held_out
            losses = Losses.of(distinct.evaluate(self._kernel, weights, z), y, problem.classes)
        return Scored(ridge, losses, math.sqrt(factor.sq_norm(weights)))


def _losses_of_left_out(
    problem: Problem,
    kernel: Kernel,
    residual: Tensor,  # of the scaled equations, shape: (u, c)
) -> Losses:
    distinct = problem.distinct(kernel)
    outputs = distinct.targets - residual / distinct.root[:, None]
    return Losses.of(outputs[distinct.group], problem.y, problem.classes)
