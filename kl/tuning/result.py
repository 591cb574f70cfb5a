"""What `kl.tune` returns: every candidate with its score, and the chosen one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kl.kernels.kernel import Kernel


@dataclass(frozen=True)
class TuningPoint:
    """One kernel, bandwidth and ridge with its score.

    Attributes:
        kernel: the kernel, its bandwidth resolved.
        ridge: r, added to the diagonal of K (not multiplied by n).
        score: the mean loss that candidates are ranked by.
        standard_error: of the score, over rows, as if rows were independent; NaN for one row.
        mse: mean squared error over rows and outputs, in the square of the targets' units.
        error: the fraction of rows whose largest output is not at their class; None for regression.
        log_loss: mean of -log softmax(f(x) / T) at the class, T fitted to the same outputs; None for regression.
        rkhs_norm: |f|_H of the function on all rows of the stage, none left out.
        rows: training rows of the stage.
        stage: "subsample" or "all rows".

    Example:
        >>> import torch, kl
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> point = kl.tune(x, x, kernels="laplacian", bandwidths=[2.0], ridges=[0.0]).best
        >>> point.kernel, point.bandwidth, point.ridge, point.rows, point.stage
        (Laplacian(bandwidth=2.0), 2.0, 0.0, 20, 'all rows')
    """

    kernel: Kernel
    ridge: float
    score: float
    standard_error: float
    mse: float
    error: float | None
    log_loss: float | None
    rkhs_norm: float
    rows: int
    stage: str

    @property
    def bandwidth(self) -> float | None:
        """The kernel's bandwidth, in the units of the features; None if it has none."""
        return getattr(self.kernel, "bandwidth", None)


@dataclass(frozen=True)
class Tuning:
    """The candidates that `kl.tune` compared, and its choice.

    Attributes:
        points: all candidates, first those on the subsample, then those on all rows.
        best: the choice.
        metric: what `score` is, "mse", "error" or "log_loss".
        stage: where the choice was made, "subsample" or "all rows".
        remarks: what a reader of the choice should know, one sentence each.

    Example:
        >>> import torch, kl
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> tuning = kl.tune(x, x, kernels="laplacian", bandwidths=[0.1, 2.0], ridges=[0.0, 1.0])
        >>> tuning.kernel, tuning.ridge, len(tuning.points)
        (Laplacian(bandwidth=2.0), 0.0, 4)
        >>> kl.interpolate(tuning.kernel, x, x, ridge=tuning.ridge).converged
        True
    """

    points: tuple[TuningPoint, ...]
    best: TuningPoint
    metric: str
    stage: str
    remarks: tuple[str, ...]

    @property
    def kernel(self) -> Kernel:
        """The chosen kernel, its bandwidth resolved."""
        return self.best.kernel

    @property
    def ridge(self) -> float:
        """The chosen ridge."""
        return self.best.ridge

    def ranked(self) -> list[TuningPoint]:
        """The points of the stage that decided, the best first."""
        return ranked([each for each in self.points if each.stage == self.stage])


def ranked(points: Sequence[TuningPoint]) -> list[TuningPoint]:
    """Points by their score; of equal scores, as counts of errors often are, the one of less mse comes first."""
    return sorted(points, key=lambda each: [_or_last(value) for value in (each.score, each.mse, each.rkhs_norm)])


def most_regular(points: Sequence[TuningPoint]) -> TuningPoint:
    """The point of largest ridge whose score is within one standard error of the best, of the best one's kernel.

    Norms are compared within one RKHS only: another kernel or bandwidth has another norm. There the norm falls as the
    ridge grows.

    Source: Breiman, Friedman, Olshen and Stone 1984, Classification and regression trees, section 3.4.3.
    """
    best = ranked(points)[0]
    within = [each for each in points if each.kernel == best.kernel and within_one_error(each, best)]
    return max([best, *within], key=lambda each: each.ridge)


def within_one_error(point: TuningPoint, best: TuningPoint) -> bool:
    """Whether a score is at most one standard error of the best above it."""
    return point.score <= best.score + best.standard_error


def _or_last(value: float) -> float:
    """A number that sorts NaN behind all others."""
    return math.inf if math.isnan(value) else value
