"""The two stages of a search: all candidates on all rows or on a subsample, then the finalists on all rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kl.errors import MemoryBudgetError
from kl.exact.cost import rows_that_fit
from kl.kernels.kernel import Kernel
from kl.system.memory import format_memory
from kl.tuning.kept import Kept
from kl.tuning.problem import Problem
from kl.tuning.progress import EIGEN, FACTOR, Clock
from kl.tuning.result import TuningPoint, ranked
from kl.tuning.scoring import OneByOne, Scored, score_all, spectrum_memory

SUBSAMPLE, ALL = "subsample", "all rows"
# Measured on two cores in float64: an eigen-decomposition of 1000 rows takes 0.6 s, of 1500 2 s, of 2000 4.5 s and of
# 3000 15 s. Three factors of 3000 rows with the columns of their inverses take 2 s.
SUBSAMPLE_ROWS = 1000  # rows of the subsample; with no more than these, every candidate is scored on all rows
FINAL_ROWS = 10_000  # rows up to which finalists are scored on all rows
EIGEN_ROWS = 3000  # rows up to which a singular matrix is worth an eigen-decomposition
LEAST_ROWS = 20  # rows below which a subsample says nothing
WINDOW = 3  # ridges of a finalist that are scored at least: its best on the subsample, and the two beside it


@dataclass(frozen=True)
class Choice:
    """How points are ranked."""

    metric: str
    one_standard_error: bool


def subsample_rows(asked: int | str, n: int, d: int, budget: int) -> int:
    """The rows that all candidates are scored on; n means that there is one stage.

    Raises:
        MemoryBudgetError: an eigen-decomposition of the rows that were asked for, or of 20, exceeds the budget.
    """
    wanted = min(n, SUBSAMPLE_ROWS if asked == "auto" else int(asked))
    if spectrum_memory(wanted, d) <= budget:
        return wanted
    fits = rows_that_fit(wanted, budget, lambda rows: spectrum_memory(rows, d))
    if asked == "auto" and fits >= min(n, LEAST_ROWS):
        return fits
    raise MemoryBudgetError(
        f"the eigen-decomposition of {wanted} rows needs {format_memory(spectrum_memory(wanted, d))}, more than the "
        f"budget of {format_memory(budget)}: raise memory, or give a subsample of {max(fits, 2)} rows or fewer"
    )


def score_candidates(
    problem: Problem, kernels: Sequence[Kernel], ridges: Sequence[float], stage: str, kept: Kept, clock: Clock
) -> list[tuple[Kernel, list[Scored]]]:
    """The scores of every kernel at every ridge; each finished kernel is kept."""
    found = []
    work = EIGEN * len(problem.x) ** 3
    for i, kernel in enumerate(kernels):
        key = kept.key(kernel, "all ridges", list(ridges))
        scores = kept.load(key)
        if scores is None:
            start = time.perf_counter()
            scores = score_all(problem, kernel, ridges)
            kept.save(key, scores)
            clock.add(time.perf_counter() - start, work)
        found.append((kernel, scores))
        clock.report(stage, i + 1, len(kernels), kernel, work * (len(kernels) - i - 1))
    return found


def final_work(n: int, finalists: int) -> float:
    """The work of a second stage, in the units of `kl.tuning.progress`."""
    return WINDOW * FACTOR * float(n) ** 3 * finalists


def score_finalists(
    problem: Problem,
    finalists: Sequence[TuningPoint],
    ridges: Sequence[float],
    choice: Choice,
    budget: int,
    kept: Kept,
    clock: Clock,
) -> tuple[list[tuple[Kernel, list[Scored]]], list[str]]:
    """The scores of the finalists on all rows near the ridge that was best on the subsample, and remarks."""
    found, remarks = [], []
    n, total = len(problem.x), len(finalists)
    for i, point in enumerate(finalists):
        start_at = ridges.index(point.ridge)
        key = kept.key(point.kernel, "near a ridge", list(ridges), start_at, choice, n <= EIGEN_ROWS)
        scores = kept.load(key)
        if scores is None:
            start = time.perf_counter()
            scores = _score_near(problem, point.kernel, ridges, start_at, choice, budget)
            kept.save(key, scores)
            clock.add(time.perf_counter() - start, final_work(n, 1))
        found.append((point.kernel, scores))
        if point.ridge == 0 and 0.0 not in [each.ridge for each in scores]:
            remarks.append(
                f"ridge 0 of {point.kernel} was scored on the subsample alone, because its matrix of all rows is "
                "singular to rounding"
            )
        clock.report(ALL, i + 1, total, point.kernel, final_work(n, total - i - 1))
    return found, remarks


def _score_near(
    problem: Problem, kernel: Kernel, ridges: Sequence[float], start: int, choice: Choice, budget: int
) -> list[Scored]:
    """The scores of the ridge at `start`, of those beside it, and on until the best has a worse one on either side."""
    solver = OneByOne(problem, kernel)
    scores: dict[int, Scored] = {}
    singular: set[int] = set()
    n, d = problem.x.shape
    eigen = n <= EIGEN_ROWS and spectrum_memory(n, d) <= budget
    wanted = {start - 1, start, start + 1}
    while todo := sorted(i for i in wanted if 0 <= i < len(ridges) and i not in scores and i not in singular):
        for i in todo:
            found = solver.score(ridges[i])
            if found is not None:
                scores[i] = found
            elif eigen:
                return score_all(problem, kernel, ridges)
            else:
                singular.add(i)
        wanted = _next_to_best(scores, choice) if scores else {max(singular) + 1}
    return [scores[i] for i in sorted(scores)]


def _next_to_best(scores: dict[int, Scored], choice: Choice) -> set[int]:
    """The places beside the best one; above it also those that may be chosen for their larger ridge."""
    values = {i: each.losses.by(choice.metric) for i, each in scores.items()}
    best = min(values, key=lambda i: values[i][0])
    wanted = {best - 1, best + 1}
    if choice.one_standard_error:
        wanted |= {i + 1 for i, value in values.items() if i > best and value[0] <= sum(values[best])}
    return wanted


def points_of(found: Iterable[tuple[Kernel, list[Scored]]], metric: str, rows: int, stage: str) -> list[TuningPoint]:
    """The scores as the points that callers see."""
    return [
        TuningPoint(
            kernel,
            each.ridge,
            *each.losses.by(metric),
            each.losses.mse,
            each.losses.output_mse,
            each.losses.error,
            each.losses.log_loss,
            each.rkhs_norm,
            rows,
            stage,
        )
        for kernel, scores in found
        for each in scores
    ]


def choose_finalists(points: Sequence[TuningPoint], count: int) -> list[TuningPoint]:
    """The best point of each of the `count` best kernels and bandwidths."""
    best: dict[Kernel, TuningPoint] = {}
    for point in ranked(points):
        best.setdefault(point.kernel, point)
    return list(best.values())[:count]


def edge_remarks(best: TuningPoint, points: Sequence[TuningPoint], ridges: Sequence[float]) -> list[str]:
    """A sentence for each end of its range that the choice lies at."""
    remarks = []
    if len(ridges) > 1 and best.ridge == ridges[-1]:
        remarks.append(f"the best ridge is the largest that was tried, {best.ridge:g}: larger ones may be better")
    widths = sorted({each.bandwidth for each in points if type(each.kernel) is type(best.kernel) and each.bandwidth})
    for place, end, beyond in ((0, "smallest", "smaller"), (-1, "largest", "larger")):
        if len(widths) > 1 and best.bandwidth == widths[place]:
            remarks.append(
                f"the best bandwidth is the {end} that was tried, {best.bandwidth:g}: {beyond} ones may be better"
            )
    return remarks
