"""What `kl.tune` returns: every candidate with its score, and the chosen one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from kl.checks import check_positive
from kl.errors import InputError
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
        output_mse: the mean squared error of each output, of which `mse` is the mean.
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
    output_mse: tuple[float, ...]
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

    def in_units(self, scale: Sequence[float]) -> Tuning:
        """The same choice, with squared errors in the square of the units in which an output of 1 is `scale`.

        The targets of output j were divided by scale_j for `kl.tune`, so that every output counts alike in the score.
        Then mse = mean_j scale_j^2 output_mse_j. Where the score is an mse, the score and its standard error are
        multiplied by mean_j scale_j^2, so that of one output the score remains the mse. Norms are of the divided
        targets.

        Args:
            scale: positive numbers, one an output.

        Raises:
            InputError: there are fewer or more numbers than outputs, or one is not above 0.
        """
        outputs = len(self.best.output_mse)
        if len(scale) != outputs:
            raise InputError(f"scale must hold a number for each of {outputs} output(s); got {len(scale)}")
        squares = [check_positive("scale", each) ** 2 for each in scale]
        factor = fmean(squares) if self.metric == "mse" else 1.0

        def converted(point: TuningPoint) -> TuningPoint:
            output_mse = tuple(a * b for a, b in zip(point.output_mse, squares, strict=True))
            score, standard_error = point.score * factor, point.standard_error * factor
            return replace(
                point, score=score, standard_error=standard_error, mse=fmean(output_mse), output_mse=output_mse
            )

        return replace(self, points=tuple(converted(each) for each in self.points), best=converted(self.best))


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
