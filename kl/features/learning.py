"""Rounds of a recursive feature machine on plain tensors: solve, take the gradients' outer product, use it as metric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kl.checks import check_count, check_count_or_none, check_one_of, check_positive
from kl.errors import InputError
from kl.features.agop import agop
from kl.features.metric import Metric
from kl.features.structure import Structure
from kl.kernels.kernel import Kernel
from kl.rkhs import evaluate
from kl.rows.root import under_root
from kl.rows.rows import Rows
from kl.solve import Problem, Solution, chosen_solver, solve

log = logging.getLogger(__name__)

SAMPLE = 10_000  # rows whose gradients are averaged
PATIENCE = 2  # rounds without a better score after which learning stops
HELD_OUT = 0.1  # share of the rows that choose the round where the solver gives no leave-one-out residuals
HELD_OUT_ROWS = 5000  # of these at most
LEAST_ROWS = 20  # rows below which a tenth says nothing


@dataclass(frozen=True)
class FeatureOptions:
    """How features are learnt.

    Args:
        rounds: metrics that are learnt at most, 0 or above; round 0 is the plain kernel.
        metric: "full", "diagonal", or groups of columns, each of which has a block.
        power: exponent of the gradients' outer product.
        scale: "max": the largest entry of M is 1; "trace": its trace is d.
        centered: whether each output's mean gradient is subtracted.
        sample: rows whose gradients are averaged; None takes all.
        sketch: random combinations of outputs at each row; None takes all outputs.
        bandwidth_factor: a bandwidth "auto" is this times the median distance under the metric of the round.
        patience: rounds without a better score after which learning stops.

    Raises:
        InputError: an option is out of its range.
    """

    rounds: int = 5
    metric: str | tuple[tuple[int, ...], ...] = "full"
    power: float = 1.0
    scale: str = "max"
    centered: bool = False
    sample: int | None = SAMPLE
    sketch: int | None = None
    bandwidth_factor: float = 1.0
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        if self.rounds != 0:
            check_count("rounds", self.rounds)
        if isinstance(self.metric, str):
            check_one_of("metric", self.metric, ("full", "diagonal"))
        check_positive("power", self.power)
        check_one_of("scale", self.scale, ("max", "trace"))
        check_count_or_none("sample", self.sample, "all rows")
        check_count_or_none("sketch", self.sketch, "all outputs")
        check_positive("bandwidth_factor", self.bandwidth_factor)
        check_count("patience", self.patience)


@dataclass(frozen=True)
class Round:
    """A fit under one metric."""

    number: int
    """0 is the plain kernel."""
    metric: Metric | None
    """None in round 0."""
    solution: Solution
    score: float
    """The mean squared error of rows that f was solved without: left out one at a time, or held out."""


class FeatureLearning:
    """The rounds of a recursive feature machine: f of round t is solved with the kernel K(x M_t^(1/2), z M_t^(1/2)).

    M_0 is the identity, and

        M_{t+1} = G_t^power / max entry,  G_t = mean over rows and sum over outputs of grad f_t(x) grad f_t(x)^T

    The score of a round is the mean squared leave-one-out residual where the solver gives it. Otherwise a seeded tenth
    of the rows, 5000 at most, is held out of all rounds.

    The leave-one-out residuals are those of solving again without a row, under a metric that was learnt with it. They
    are therefore somewhat too small, and the more so the more columns there are for each row.

    Args:
        problem: rows, targets and weights; the rows are not placed by a metric.
        kernel: the kernel; a bandwidth "auto" is chosen anew in every round.
        ridge: lambda >= 0, not multiplied by n.
        solver: of `kl.solve.solve`.
        epochs: of EigenPro, each round.
        memory: bytes, "8GB" or "auto".
        seed: of all that is drawn.
        options: how features are learnt.
        held_out: rows and targets (x, y) that choose the round instead.
        say: is told of the progress; None is silent.

    Attributes:
        rounds: the rounds so far, with the solution of the best and of the last one only.
        best: the round of least score so far.

    Raises:
        InputError: the kernel defines no gradient, or an option does not fit the data.

    Source: Radhakrishnan, Beaglehole, Pandit and Belkin 2024, arXiv:2212.13881, Algorithm 1.
    """

    def __init__(
        self,
        problem: Problem,
        kernel: Kernel,
        *,
        ridge: float,
        solver: str = "auto",
        epochs: int = 10,
        memory: int | str = "auto",
        seed: int = 0,
        options: FeatureOptions | None = None,
        held_out: tuple[Tensor, Tensor] | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self.options = options or FeatureOptions()
        if not kernel.has_gradients:
            kernel.gradients(Rows.of(problem.x[:1]), Rows.of(problem.x[:1]))  # raises, and says what is missing
        if self.options.bandwidth_factor != 1 and getattr(kernel, "bandwidth", None) != "auto":
            raise InputError(
                f'bandwidth_factor multiplies a bandwidth "auto"; got {self.options.bandwidth_factor:g} with {kernel}'
            )
        self._structure = Structure.of(self.options.metric, problem.x.shape[1])
        self.problem, self._kernel, self._seed = problem, kernel, seed
        self._solving: dict[str, Any] = {"ridge": ridge, "solver": solver, "epochs": epochs, "memory": memory}
        self._say = say or (lambda text: None)
        self.whole, self._held_out = problem, held_out
        if held_out is None and chosen_solver(problem, solver, memory) == "eigenpro":
            self.problem, self._held_out = split(problem, seed)
        self.best: Round | None = None
        self.last: Round | None = None
        self.scores: list[float] = []
        self._constant = False  # whether the last f has no gradients

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done, or none of the last `patience` rounds was better."""
        done = len(self.scores)
        if done > self.options.rounds or self._constant:
            return True
        return self.best is not None and done - 1 - self.best.number >= self.options.patience

    def run(self) -> Round:
        """All rounds that are left; the best, solved again on all rows if some were held out of the rounds."""
        while not self.is_finished:
            self.step()
        best = self.best
        assert best is not None  # of round 0 at least
        if self.problem is self.whole:
            return best
        self._say(f"round {best.number} is the best: solving on all {len(self.whole.x)} rows")
        return replace(best, solution=self._solve(self.whole, best.metric))

    def step(self) -> Round | None:
        """One round: learn the metric from the last f, and solve under it; None if that f is constant on the rows."""
        metric = None
        if self.last is not None:
            metric = self.learn(self.last)
            if metric is None:
                log.info("the function of round %d is constant on all rows, so it has no features", self.last.number)
                self._constant = True
                return None
        number = len(self.scores)
        solution = self._solve(self.problem, metric)
        found = Round(number, metric, solution, self._score(solution))
        if self.best is None or found.score < self.best.score:
            self.best = found
        self.last = found
        self.scores.append(found.score)
        self._say(f"round {number}: mse {found.score:.4g} {self._scored_on}, RKHS norm {solution.rkhs_norm:.4g}")
        return found

    def learn(self, last: Round) -> Metric | None:
        """The metric that a round's f gives; None if its gradients are 0 at all rows."""
        problem, solution, options = self.problem, last.solution, self.options
        rows = Rows.of(placed(problem.x, solution, problem.x))
        found = agop(
            solution.kernel,
            rows,
            rows,
            solution.alpha,
            metric=self._structure,
            sample=options.sample,
            weights=problem.weights,
            same=torch.arange(len(rows), device=rows.data.device),
            centered=options.centered,
            sketch=options.sketch,
            seed=self._seed + last.number,
        )
        if last.metric is not None:
            found = last.metric.pull_back(found)
        return None if found.is_zero else Metric.of(found, options.power, options.scale)

    def _solve(self, problem: Problem, metric: Metric | None) -> Solution:
        root = None if metric is None else metric.root
        rows = under_root(problem.x - self._kernel.origin_of(problem.x), root)
        kernel = self._kernel.resolve(rows, seed=self._seed)
        if self.options.bandwidth_factor != 1:
            kernel = replace(kernel, bandwidth=kernel.bandwidth * self.options.bandwidth_factor)  # type: ignore
        found = solve(
            replace(problem, x=rows),
            kernel,
            seed=self._seed,
            leave_one_out=self._held_out is None,
            say=self._say,
            **self._solving,
        )
        return replace(found, centers=problem.x, root=root)

    def _score(self, solution: Solution) -> float:
        if self._held_out is not None:
            x, y = self._held_out
            outputs = evaluate_solution(solution, x)
            return float((outputs - y).square().mean())
        assert solution.left_out is not None  # `solve` was asked for it
        squares = (solution.left_out - self.problem.y).square().mean(dim=1)
        return float((self.problem.weights * squares).sum() / self.problem.weights.sum())

    @property
    def _scored_on(self) -> str:
        return "left out" if self._held_out is None else f"on {len(self._held_out[0])} rows held out"


def placed(
    x: Tensor,  # shape: (m, d)
    solution: Solution,
    rows: Tensor,  # the solution's centres, shape: (u, d)
) -> Tensor:
    """What the kernel of a solution is computed on, shape (m, d)."""
    return under_root(x - solution.kernel.origin_of(rows), solution.root)


def evaluate_solution(
    solution: Solution,
    x: Tensor,  # shape: (m, d)
) -> Tensor:
    """f(x), float64, shape (m, c)."""
    centers = placed(solution.centers, solution, solution.centers)
    return evaluate(solution.kernel, centers, solution.alpha, placed(x.to(centers), solution, solution.centers))


def split(problem: Problem, seed: int) -> tuple[Problem, tuple[Tensor, Tensor]]:
    """A problem without a seeded tenth of its rows, 5000 at most, and these rows with their targets.

    Raises:
        InputError: there are fewer than 20 rows, of which a tenth says nothing.
    """
    u = len(problem.x)
    if u < LEAST_ROWS:
        raise InputError(
            f"x must have at least {LEAST_ROWS} rows that differ to hold some out; got {u}: give more, or a solver that "
            "leaves out one at a time, direct or pcg"
        )
    order = torch.randperm(u, generator=torch.Generator().manual_seed(seed)).to(problem.x.device)
    count = min(HELD_OUT_ROWS, max(1, int(HELD_OUT * u)))
    held, kept = order[:count].sort().values, order[count:].sort().values
    rest = Problem(problem.x[kept], problem.y[kept], problem.weights[kept], torch.arange(u - count))
    return rest, (problem.x[held], problem.y[held])
