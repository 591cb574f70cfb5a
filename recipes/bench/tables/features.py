"""The search of kl's recursive feature machine: each candidate is scored by its rounds on parts of the rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

import kl
from kl.features.chain import Chain, Fit, MetricOptions, evaluate_solution
from kl.features.learning import Choice, FeatureLearning, held_out_parts
from kl.kernels import Kernel
from kl.solve import Problem
from recipes.bench.tables.protocol import Protocol
from recipes.bench.tables.search import RIDGES
from recipes.bench.tables.sets import Split

FACTORS = (0.5, 8.0)  # the range of bandwidths in median distances
ROUNDS = 5
GIVEN_UP = 1.1  # times the best candidate's error on the same parts, beyond which the other parts are not tried


@dataclass(frozen=True)
class Candidate:
    """Parameters of a machine; without arguments the defaults of `kl.RFMRegressor`."""

    kernel: Kernel = field(default_factory=kl.Laplacian)
    metric: str = "full"
    bandwidth_factor: float = 1.0
    ridge: float = 1e-3
    power: float = 1.0

    @property
    def options(self) -> MetricOptions:
        """How a metric is made of gradients."""
        return MetricOptions(self.metric, self.power, bandwidth_factor=self.bandwidth_factor)

    def errors(self, rows: Problem, held: Problem, seed: int) -> list[float]:
        """The mean squared error on held-out rows after each round on the others."""
        learning = FeatureLearning(
            *(rows, self.kernel),
            ridge=self.ridge,
            seed=seed,
            metric=self.options,
            choice=Choice(ROUNDS, patience=ROUNDS),
            held_out=(held.x, held.y),
        )
        while not learning.is_finished:
            learning.step()
        return learning.scores

    def fit(self, problem: Problem, rounds: int, seed: int) -> Fit:
        """The fit after so many rounds, fewer if the function is constant before."""
        solving = {"ridge": self.ridge, "solver": "auto", "epochs": 1, "memory": "auto"}
        chain = Chain(problem, self.kernel, self.options, solving, seed=seed, leave_one_out=False)
        for _ in range(rounds + 1):
            if chain.step() is None:
                break
        assert chain.last is not None  # of round 0 at least
        return chain.last


@dataclass(frozen=True)
class Found:
    """The best candidate, fitted to all training rows."""

    candidate: Candidate
    fit: Fit
    tried: int

    def outputs(self, x: np.ndarray) -> Tensor:
        """f(x), shape (m, c)."""
        return evaluate_solution(self.fit.solution, torch.from_numpy(x))


def candidates(count: int, seed: int) -> Iterator[Candidate]:
    """The defaults with a full and with a diagonal metric, then random draws."""
    yield from (Candidate(), Candidate(metric="diagonal"))[:count]
    rng = np.random.default_rng(seed)
    for _ in range(count - 2):
        yield Candidate(
            metric=str(rng.choice(["full", "diagonal"])),
            bandwidth_factor=log_uniform(rng, *FACTORS),
            ridge=log_uniform(rng, *RIDGES),
            power=float(rng.choice([0.5, 1.0])),
        )


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """A number whose logarithm is uniform between those of least and most."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def by_round(errors: list[list[float]]) -> list[float]:
    """The mean over parts of the errors after each round; a part whose function became constant may have fewer."""
    return [fmean(each) for each in zip(*errors, strict=False)]


def search_features(split: Split, protocol: Protocol) -> Found:
    """Choose candidate and round by `FOLDS` parts of the rows, and fit them to all.

    The score is the mean squared error, of one-hot rows for classes. No candidate is begun after `protocol.seconds`.
    """
    y = np.eye(split.num_classes)[split.y_train] if split.is_classes else split.y_train[:, None]
    weights = torch.ones(len(y), dtype=torch.float64)
    problem = Problem.of(torch.from_numpy(split.x_train), torch.from_numpy(y), weights)
    parts = held_out_parts(problem, "kfold", protocol.seed)
    start, tried = time.perf_counter(), 0
    best: tuple[Candidate, list[list[float]]] | None = None
    for candidate in candidates(protocol.candidates, protocol.seed):
        errors: list[list[float]] = []
        for rows, held in parts:
            errors.append(candidate.errors(rows, held, protocol.seed))
            least = min(by_round(best[1][: len(errors)])) if best else float("inf")
            if min(by_round(errors)) > (least if len(errors) == len(parts) else GIVEN_UP * least):
                break
        else:
            best = candidate, errors
        tried += 1
        if time.perf_counter() - start >= protocol.seconds:
            break
    assert best is not None  # the first candidate is tried on all parts
    scores = by_round(best[1])
    return Found(best[0], best[0].fit(problem, scores.index(min(scores)), protocol.seed), tried)
