"""A recursive feature machine on plain tensors: rounds of a fit and a metric, and the choice of the best round."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch

from kl.checks import check_count, check_one_of
from kl.distributed.ranks import Ranks
from kl.errors import CheckpointError, InputError
from kl.features.chain import Chain, Fit, MetricOptions, evaluate_solution
from kl.features.metric import Metric
from kl.kernels.kernel import Kernel
from kl.machines.checkpoints import faults_in, require_values
from kl.solve import Problem, Say, Solution, chosen_solver

log = logging.getLogger(__name__)

BY = ("auto", "kfold", "holdout", "loo")
FOLDS = 5
KFOLD_ROWS = 3000  # rows up to which "auto" takes folds, which make rounds six times as long
HELD_OUT = 0.2  # share of the rows of "holdout"
HELD_OUT_ROWS = 5000  # of these at most
LEAST_ROWS = 20  # rows below which a fifth says nothing


@dataclass(frozen=True)
class Choice:
    """How many rounds there are, and what chooses the best.

    Args:
        rounds: metrics that are learnt at most, 0 or above; round 0 is the plain kernel.
        by: "kfold": the error of each of 5 parts of the rows by rounds on the other parts. "holdout": the error of a
            fifth of the rows, 5000 at most, by rounds on the others; the best round is then solved again on all rows.
            "loo": the leave-one-out error under a metric that was learnt with the row. "auto" is "kfold" up to 3000
            rows and "holdout" beyond; below 20 rows it is "loo".
        patience: rounds without a better score after which learning stops.

    Raises:
        InputError: an option is out of its range.
    """

    rounds: int = 5
    by: str = "auto"
    patience: int = 2

    def __post_init__(self) -> None:
        if self.rounds != 0:
            check_count("rounds", self.rounds)
        check_one_of("by", self.by, BY)
        check_count("patience", self.patience)


@dataclass(frozen=True)
class Best:
    """The best round so far."""

    number: int
    metric: Metric | None
    """None is the identity."""
    solution: Solution | None
    """On all rows; None where it has not been solved for."""


class FeatureLearning:
    """The rounds of a recursive feature machine (`Chain`), of which the one with the least mean squared error is kept.

    Leave-one-out residuals are those of solving again without a row, under a metric that was learnt with it. They are
    too small for a full metric of many columns: on 27 tables of 800 rows, with a Laplacian kernel and ridge 0.01, the
    mean logarithm of the test mse of the chosen round, divided by that of the plain kernel, was -0.45 by leave-one-out,
    -0.47 by one held-out fifth and -0.48 by folds (-0.50 for the best round); for diagonal metrics -0.61, -0.63, -0.62
    (-0.64). Therefore "auto" does not take them.

    Args:
        problem: rows, targets and weights.
        kernel: the kernel; a bandwidth "auto" is chosen anew in every round.
        ridge: lambda >= 0, not multiplied by n.
        solver: of `kl.solve.solve`.
        epochs: of EigenPro, each round.
        memory: bytes, "8GB" or "auto".
        seed: of all that is drawn.
        metric: how a metric is made of gradients.
        choice: how many rounds there are, and what chooses the best.
        held_out: rows, targets and weights that choose the round instead.
        say: is told of the progress; None is silent.
        ranks: the processes that share the gradients and EigenPro's epochs, while rank 0 does the rest; each is given
            the same arguments, with the same bytes of memory. None is one process.

    Attributes:
        scores: the score of each round: a mean squared error over rows and outputs.
        whole: all rows, of which `run` gives the solution.
        best: the round of least score so far.
        by: what chooses: "kfold", "holdout", "loo" or "validation".

    Raises:
        InputError: the kernel defines no gradient, or an option does not fit the data.
        MemoryBudgetError: the solver does not fit the memory.

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
        metric: MetricOptions | None = None,
        choice: Choice | None = None,
        held_out: Problem | None = None,
        say: Say | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.whole, self._say, self.ranks = problem, say or (lambda text: None), ranks or Ranks()
        self.choice = choice or Choice()
        leaves_out = chosen_solver(problem, solver, memory, leave_one_out=True) != "eigenpro"
        self.by = "validation" if held_out is not None else chosen_by(self.choice.by, len(problem.x), leaves_out)
        if self.by == "loo" and not leaves_out:
            raise InputError('by must be "holdout" with solver eigenpro, which leaves out no rows; got "loo"')
        solving: dict[str, Any] = {"ridge": ridge, "solver": solver, "epochs": epochs, "memory": memory}

        def chain(rows: Problem) -> Chain:
            options = metric or MetricOptions()
            return Chain(
                rows, kernel, options, solving, seed=seed, leave_one_out=self.by == "loo", say=say, ranks=ranks
            )

        parts = held_out_parts(problem, self.by, seed) if self.by in ("kfold", "holdout") else []
        self._parts = [(chain(rest), held) for rest, held in parts]
        self._main = self._parts[0][0] if self.by == "holdout" else chain(problem)
        if held_out is not None:
            self._parts = [(self._main, held_out)]
        self.scores: list[float] = []
        self.best = Best(0, None, None)
        self._ended = False

    @property
    def solver(self) -> str:
        """What solves: "direct", "pcg" or "eigenpro"."""
        return chosen_solver(self.whole, self._main.solving["solver"], self.memory, leave_one_out=False)

    @property
    def epochs(self) -> int:
        """Epochs of EigenPro in round 0."""
        return self._main.solving["epochs"]

    @property
    def memory(self) -> int | str:
        """The budget of a solve: bytes, or "auto"."""
        return self._main.solving["memory"]

    @property
    def options(self) -> MetricOptions:
        """How a metric is made of gradients."""
        return self._main.options

    @property
    def problem(self) -> Problem:
        """The rows of `step`; those of `run` are all rows."""
        return self._main.problem

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done, or none of the last `patience` rounds was better."""
        done = len(self.scores)
        if done > self.choice.rounds or self._ended:
            return True
        return done - 1 - self.best.number >= self.choice.patience

    def step(self) -> Fit | None:
        """One round; None if there is none, because f is constant on all rows, or the score would not be finite.

        Raises:
            InputError: the score of round 0 is not finite.
        """
        before, number = [each.last for each in self.chains], len(self.scores)
        if any(each.step() is None for each in self.chains):
            log.info("the function of round %d is constant on its rows, so it has no features", number - 1)
            self._ended = True
            return None
        fit = self._main.last
        assert fit is not None  # it has just been made
        score = self.ranks.broadcast_result(self._score)
        if not math.isfinite(score):
            if number == 0:
                raise InputError(
                    f"ridge must be large enough for a finite error of round 0; got {self._main.solving['ridge']:g}, "
                    f"with which the error of {fit.solution.kernel} is {score}: raise ridge, or scale the features"
                )
            log.warning("the error of round %d is %s: rounds end with the one before", number, score)
            for chain, last in zip(self.chains, before, strict=True):
                chain.last = last
            self._ended = True
            return None
        self.scores.append(score)
        if number == 0 or self.scores[-1] < self.scores[self.best.number]:
            self.best = Best(number, fit.metric, fit.solution if self.by == "loo" else None)
        norm = fit.solution.rkhs_norm
        self._say(
            f"round {number}: {fit.solution.kernel}, mse {self.scores[-1]:.4g} by {self.by}, RKHS norm {norm:.4g}"
        )
        return fit

    def choose(self) -> Best:
        """All rounds that are left, and the best of them, which is solved for on all rows by "loo" alone."""
        while not self.is_finished:
            self.step()
        return self.best

    def run(self) -> Fit:
        """All rounds that are left; the best, with leave-one-out outputs where the solver gives them."""
        best = self.choose()
        if best.solution is not None:
            return Fit(best.number, best.metric, best.solution)
        self._say(f"round {best.number} is the best: solving on all {len(self.whole.x)} rows")
        return Fit(best.number, best.metric, self._main.solve(self.whole, best.metric, leave_one_out=True))

    @property
    def kernel(self) -> Kernel:
        """The kernel of the best round, with the bandwidth that it has among all rows."""
        return self._main.kernel_on(self.whole.x, self.best.metric)

    def state_dict(self) -> dict[str, Any]:
        """The rounds so far as plain values and tensors."""
        metric = None if self.best.metric is None else self.best.metric.state_dict()
        best = {"number": self.best.number, "metric": metric}
        chains = [each.state_dict() for each in self.chains]
        return {"scores": list(self.scores), "ended": self._ended, "best": best, "chains": chains}

    def load_state_dict(self, state: Any) -> None:
        """Go on after the rounds that `state_dict` described; the state may come from a file, and is checked.

        Raises:
            CheckpointError: it is no such state, or one of other rows, options or another kernel.
        """
        types = {"scores": list[float], "ended": bool, "best": dict, "chains": list[dict]}
        require_values("feature learning", state, types)
        scores, best, chains = state["scores"], state["best"], state["chains"]
        require_values("best round", best, {"number": int})
        if len(chains) != len(self.chains):
            raise CheckpointError(
                f"its rounds must be of {len(self.chains)} chains; got {len(chains)}: resume with the same by"
            )
        if not 0 <= best["number"] < max(1, len(scores)):
            raise CheckpointError(f"its best round must be one of its {len(scores)} rounds; got {best['number']}")
        for chain, each in zip(self.chains, chains, strict=True):
            chain.load_state_dict(each)
            number = -1 if chain.last is None else chain.last.number
            if number != len(scores) - 1 and not state["ended"]:  # one chain may have stepped before another ended
                raise CheckpointError(f"its {len(scores)} scores must be of as many rounds; got {number + 1} rounds")
        with faults_in("best round"):
            metric = None if best.get("metric") is None else Metric.from_state(best["metric"])
        if (metric is None) != (best["number"] == 0) or (metric and metric.structure != self._main.structure):
            raise CheckpointError("its best round must have a metric of the structure of its rounds: train again")
        self.scores, self._ended, self.best = list(scores), state["ended"], Best(best["number"], metric, None)

    @property
    def chains(self) -> list[Chain]:
        """The chains of fits that step together: the one whose f is kept, and those that score it."""
        return list(dict.fromkeys([self._main, *(each for each, _ in self._parts)]))

    def _score(self) -> float:
        if self._parts:
            sums = [squared_error(fit_of(chain), held) for chain, held in self._parts]
            return sum(each for each, _ in sums) / sum(weight for _, weight in sums)
        problem, left = self._main.problem, fit_of(self._main).left_out
        assert left is not None  # `solve` was asked for it
        return float((problem.weights * (left - problem.y).square().mean(dim=1)).sum() / problem.weights.sum())


def fit_of(chain: Chain) -> Solution:
    """The solution of a chain's last fit."""
    assert chain.last is not None
    return chain.last.solution


def squared_error(solution: Solution, rows: Problem) -> tuple[float, float]:
    """The weighted sum of mean squared errors over outputs, and the sum of the weights."""
    squares = (evaluate_solution(solution, rows.x) - rows.y).square().mean(dim=1)
    return float((rows.weights * squares).sum()), float(rows.weights.sum())


def chosen_by(by: str, n: int, leaves_out: bool) -> str:
    """What "auto" is for n rows: "loo" where a fifth of them says nothing, if the solver leaves out rows."""
    if by != "auto":
        return by
    if n < LEAST_ROWS and leaves_out:
        return "loo"
    return "kfold" if n <= KFOLD_ROWS else "holdout"


def held_out_parts(problem: Problem, by: str, seed: int) -> list[tuple[Problem, Problem]]:
    """Rows without each part, and the part: 5 seeded parts of "kfold", or one fifth, 5000 rows at most, of "holdout".

    Raises:
        InputError: there are fewer than 20 rows that differ.
    """
    u = len(problem.x)
    if u < LEAST_ROWS:
        raise InputError(
            f'x must have at least {LEAST_ROWS} rows that differ to hold some out; got {u}: give more rows, or by="loo"'
        )
    order = torch.randperm(u, generator=torch.Generator().manual_seed(seed))
    count = min(HELD_OUT_ROWS, int(HELD_OUT * u))
    held = [order[i::FOLDS] for i in range(FOLDS)] if by == "kfold" else [order[:count]]
    found = []
    for rows in held:
        out = torch.zeros(u, dtype=torch.bool)
        out[rows] = True
        found.append((problem.rows(~out), problem.rows(out)))
    return found
