"""`kl.tune`: kernel, bandwidth and ridge, chosen by exact leave-one-out, K-fold or held-out scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from kl.checks import check_count, check_not_negative, check_one_of, check_seed
from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.rows.rows import check_finite_matrix, is_one_hot
from kl.system.memory import format_memory, parse_memory
from kl.tuning.candidates import Candidates
from kl.tuning.kept import Kept
from kl.tuning.problem import Problem, drawn_rows
from kl.tuning.progress import Clock, TuningProgress
from kl.tuning.result import Tuning, most_regular, ranked
from kl.tuning.scoring import factor_memory
from kl.tuning.search import (
    ALL,
    FINAL_ROWS,
    SUBSAMPLE,
    Choice,
    choose_finalists,
    edge_remarks,
    final_work,
    points_of,
    score_candidates,
    score_finalists,
    subsample_rows,
)

KERNELS = ("laplacian", "gaussian", "matern32")
RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
METRICS = ("mse", "error", "log_loss")
TASKS = ("auto", "classification", "regression")


def tune(
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    *,
    kernels: Sequence[str | Kernel] | str | Kernel = KERNELS,
    bandwidths: Sequence[float] | str = "auto",
    ridges: Sequence[float] = RIDGES,
    by: str | tuple[Tensor, Tensor] = "loo",
    folds: int = 5,
    metric: str = "auto",
    subsample: int | str = "auto",
    finalists: int = 3,
    one_standard_error: bool = False,
    seed: int = 0,
    memory: int | str = "auto",
    task: str = "auto",
    progress: Callable[[TuningProgress], object] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Tuning:
    """Choose kernel, bandwidth and ridge of f, (K + r I) alpha = Y, by exact scores on rows that f was not solved with.

    One eigen-decomposition K = U diag(l) U^T gives, for every ridge r, the residual of each row i of the function that
    is solved without it,

        y_i - f(x_i) = alpha_i / (G^-1)_ii,  G = K + r I,  (G^-1)_ii = sum_k U_ik^2 / (l_k + r)

    and for a fold F of rows ((G^-1)_FF)^-1 alpha_F. With r = 0 the limits for r -> 0 are taken, which are the residuals
    of the minimum-norm solutions. Rows that are equal to the bit are left out together.

    With more than 1000 rows there are two stages, because a decomposition takes time n^3: all candidates are scored on
    1000 rows, drawn with the shares of the classes, and the best kernels and bandwidths again on all rows: from the
    ridge that was best on the subsample up and down the list as long as scores fall. Beyond 10,000 rows, or where the
    memory does not allow the second stage, the subsample decides. The ridge is never multiplied by n: one that was
    chosen on s of n rows is used as it is, so that r/n, the weight of |f|^2 beside the mean loss, is s/n of what was
    scored; the best r/n falls with n, too, and so, slowly, does the best bandwidth. `Tuning.remarks` says so.

    Args:
        x: training features, float32 or float64, shape (n, d).
        y: targets, shape (n, c): one-hot rows for classes, numbers for regression.
        kernels: names, as in `kl.kernel_names()`, or kernels; one with a number for its bandwidth stays as it is.
        bandwidths: numbers, in the units of the features, for kernels whose bandwidth is "auto"; "auto" is the median
            distance times 1/8, 1/4, ..., 16.
        ridges: r >= 0, in the units of K.
        by: "loo" leaves out one row at a time, "kfold" one of `folds` random parts; or held-out rows (x_val, y_val).
        folds: parts of "kfold", each with its share of the classes.
        metric: "mse", "error" or "log_loss", the last two for classes; "auto" is "mse", because a count of errors is
            coarse: on 12 subsets of MNIST, Fashion-MNIST and digits, n = 300 and 500, the choices by mse erred on
            11.05% of the test rows, those by log loss on 11.10%, those by error on 11.19%.
        subsample: rows of the first stage; n or more scores all candidates on all rows.
        finalists: kernels and bandwidths of the second stage.
        one_standard_error: choose the largest ridge whose score is within one standard error of the best, at the best
            kernel and bandwidth: the function of least norm there.
        seed: of the subsample, the folds, and the rows of the median distance.
        memory: budget in bytes, as "8GB", or "auto": half of what is free on x's device.
        task: "classification" or "regression"; "auto" is classification if all rows of y are one-hot.
        progress: is called with a `TuningProgress` after each kernel and bandwidth; None logs a line every 5 seconds.
        folder: where the scores of finished kernels are kept, so that the same call goes on there after an interrupt.

    Returns:
        The `Tuning`: all points, the choice, and remarks.

    Raises:
        InputError: an argument is invalid, or there are too few rows that differ.
        MemoryBudgetError: not even the first stage fits the memory.

    Source: Rifkin and Lippert 2007, Notes on regularized least squares, MIT-CSAIL-TR-2007-025 (leave-one-out); An, Liu
    and Venkatesh 2007, Pattern Recognition 40, 2154-2162 (folds); Breiman et al. 1984, section 3.4.3 (standard error).

    Example:
        >>> import torch, kl
        >>> x = torch.linspace(-3, 3, 60, dtype=torch.float64)[:, None]
        >>> noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
        >>> tuning = kl.tune(x, x.sin() + 0.3 * noise, kernels=("gaussian", "laplacian"))
        >>> tuning.metric, 0.06 < tuning.best.score < 0.12, len(tuning.points)
        ('mse', True, 144)
    """
    classes = check_data(x, y, task)
    grid = Candidates.of(kernels, bandwidths)
    ridges = check_ridges(ridges)
    held_out = _check_by(by, x, y, classes)
    check_one_of("metric", metric, ("auto", *METRICS))
    if metric in ("error", "log_loss") and not classes:
        raise InputError(f'metric must be "mse" for regression; got {metric!r}: leave it out, or give one-hot targets')
    if subsample != "auto":
        check_count("subsample", subsample)
    parts = check_folds(folds) if isinstance(by, str) and by == "kfold" else None
    count, seed, budget = check_count("finalists", finalists), check_seed("seed", seed), parse_memory(memory, x.device)
    choice = Choice("mse" if metric == "auto" else metric, bool(one_standard_error))
    whole = Problem(x, y.double(), classes, held_out, parts, seed)
    _require_rows(whole, by)
    n, d = x.shape
    first = subsample_rows(subsample, n, d, budget)
    if subsample != "auto" and first < 2 and held_out is None:
        raise InputError(f"subsample must be at least 2 rows, of which one can be left out; got {subsample!r}")
    part = whole if first == n else _subproblem(whole, first)
    candidates, clock = grid.resolved(x, seed), Clock(progress)
    second = first < n and n <= FINAL_ROWS and factor_memory(n, d) <= budget
    if second:
        clock.plan(final_work(n, min(count, len(candidates))))
    stage = ALL if first == n else SUBSAMPLE
    found = score_candidates(part, candidates, ridges, stage, Kept(folder, part), clock)
    points = points_of(found, choice.metric, first, stage)
    remarks: list[str] = []
    if second:
        clock.plan(0.0)
        chosen = choose_finalists(points, count)
        found, remarks = score_finalists(whole, chosen, ridges, choice, budget, Kept(folder, whole), clock)
        stage = ALL
        points += points_of(found, choice.metric, n, stage)
    elif first < n:
        remarks.append(_why_subsample(first, n, d, budget))
    last = [each for each in points if each.stage == stage]
    best = most_regular(last) if choice.one_standard_error else ranked(last)[0]
    return Tuning(tuple(points), best, choice.metric, stage, (*remarks, *edge_remarks(best, points, ridges)))


def check_data(x: Tensor, y: Tensor, task: str) -> bool:
    """Whether the targets are classes, if x and y are matrices of as many rows.

    Raises:
        InputError: they are not, or the task does not fit them.
    """
    check_finite_matrix("x", x)
    check_finite_matrix("y", y)
    check_one_of("task", task, TASKS)
    if len(x) != len(y):
        raise InputError(f"x and y must have one row per sample; got {len(x)} and {len(y)}")
    classes = task != "regression" and is_one_hot(y)
    if task == "classification" and not classes:
        raise InputError(
            f"y must be one-hot rows of at least two classes for classification; got shape {tuple(y.shape)} with other "
            'values: give one-hot rows, or task="regression"'
        )
    if classes and int((y.sum(dim=0) > 0).sum()) < 2:
        raise InputError(
            'y must hold rows of two classes at least; got one class: give more rows, or task="regression"'
        )
    return classes


def check_ridges(ridges: Sequence[float]) -> list[float]:
    """The ridges in ascending order, each once.

    Raises:
        InputError: there are none, or one is no finite number of 0 or above.
    """
    if isinstance(ridges, str | bytes) or not hasattr(ridges, "__iter__"):
        raise InputError(f"ridges must be a list of numbers, 0 or above; got {ridges!r}: try [0, 1e-6, 1e-3, 1]")
    values = sorted({check_not_negative("ridges", each, "leave it out; 0 is without a ridge") for each in ridges})
    if not values:
        raise InputError("ridges must hold one number at least; got none: try [0, 1e-6, 1e-3, 1]")
    return values


def check_folds(folds: int) -> int:
    """`folds`, if it is a whole number of at least 2.

    Raises:
        InputError: it is anything else.
    """
    if check_count("folds", folds) < 2:
        raise InputError(f"folds must be at least 2, so that rows remain; got {folds!r}: try 5")
    return int(folds)


def _check_by(by: str | tuple[Tensor, Tensor], x: Tensor, y: Tensor, classes: bool) -> tuple[Tensor, Tensor] | None:
    """The held-out rows, if `by` holds some."""
    if isinstance(by, str):
        check_one_of("by", by, ("loo", "kfold"))
        return None
    if not isinstance(by, list | tuple) or len(by) != 2:
        raise InputError(f'by must be "loo", "kfold" or a pair (x_val, y_val); got {type(by).__name__}')
    x_val, y_val = check_finite_matrix("x_val", by[0]), check_finite_matrix("y_val", by[1])
    if len(x_val) != len(y_val) or x_val.shape[1] != x.shape[1] or y_val.shape[1] != y.shape[1]:
        raise InputError(
            f"by must hold x_val of {x.shape[1]} columns and y_val of {y.shape[1]}, row for row; got shapes "
            f"{tuple(x_val.shape)} and {tuple(y_val.shape)}"
        )
    if classes and not is_one_hot(y_val):
        raise InputError("y_val must be one-hot rows, as y is: give the classes of x_val in the same order")
    return x_val.to(x), y_val.to(x.device).double()


def _require_rows(whole: Problem, by: object) -> None:
    """Check that rows remain when rows are left out."""
    if whole.held_out is not None:
        return
    differ = len(whole.x) > 1 and bool((whole.x != whole.x[0]).any())
    if not differ:
        raise InputError(
            f"x must have at least 2 rows that differ for by={by!r}, which leaves equal rows out together; got "
            f"{len(whole.x)} row(s), all equal: give more rows, or held-out rows as by"
        )


def _subproblem(whole: Problem, rows: int) -> Problem:
    chosen = drawn_rows(whole.y, rows, whole.classes, whole.seed)
    return replace(whole, x=whole.x[chosen], y=whole.y[chosen], _distinct={})


def _why_subsample(rows: int, n: int, d: int, budget: int) -> str:
    if n > FINAL_ROWS:
        reason = f"more than {FINAL_ROWS} rows would take too long"
    else:
        reason = (
            f"all rows need {format_memory(factor_memory(n, d))} of memory, and the budget is {format_memory(budget)}"
        )
    return (
        f"the ranking on {rows} of {n} rows decides, because {reason}; with more rows the best bandwidth tends to be "
        "smaller, and the ridge is used as it is, not multiplied by n"
    )
