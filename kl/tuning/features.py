"""`kl.tune_features`: the parameters of a recursive feature machine, by rounds on parts of the rows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np
from torch import Tensor

from kl.checks import check_count, check_not_negative, check_seed
from kl.errors import InputError
from kl.exact.equations import duration
from kl.features.chain import Chain, Fit, MetricOptions
from kl.features.learning import Choice, FeatureLearning, held_out_parts
from kl.kernels.kernel import Kernel
from kl.kernels.lpq import LpqLaplacian
from kl.kernels.radial import ExponentialPower, Laplacian
from kl.kernels.registry import build_kernel
from kl.solve import Problem
from kl.system.progress import Reports
from kl.tuning.problem import drawn_rows
from kl.tuning.tune import check_data

log = logging.getLogger(__name__)

FACTORS = (0.5, 8.0)  # the range of bandwidths in median distances under the metric
RIDGES = (1e-6, 10.0)  # the range of ridges, that of kl.tune's above 0
METRICS = ("full", "diagonal")
POWERS = (0.5, 1.0)
EXPONENT_OF = {ExponentialPower: "power", LpqLaplacian: "q"}
EXPONENTS = (0.7, 2.0)  # the range of these exponents, of q up to p
KERNELS = ("exponential-power", "lpq-laplacian")
LPQ_COLUMNS = 50  # columns up to which "auto" takes the second, whose time grows with them
ROUNDS = 5
CANDIDATES = 24
SUBSAMPLE_ROWS = 2000  # rows that candidates are scored on, at most
GIVEN_UP = 1.1  # times the best candidate's error on the same parts, beyond which the other parts are not tried


@dataclass(frozen=True)
class FeatureCandidate:
    """Parameters of a recursive feature machine; without arguments the defaults of `kl.RFMRegressor`.

    Attributes:
        kernel: the kernel; a bandwidth "auto" is `bandwidth_factor` times the median distance under the metric.
        metric: "full" or "diagonal".
        bandwidth_factor: see `kernel`; 1 for a kernel whose bandwidth is a number.
        ridge: lambda, not multiplied by n.
        power: exponent of the gradients' outer product.
    """

    kernel: Kernel = field(default_factory=Laplacian)
    metric: str = "full"
    bandwidth_factor: float = 1.0
    ridge: float = 1e-3
    power: float = 1.0

    @property
    def options(self) -> MetricOptions:
        """How a metric is made of gradients."""
        return MetricOptions(self.metric, self.power, bandwidth_factor=self.bandwidth_factor)

    def errors(self, rows: Problem, held: Problem, rounds: int, seed: int, memory: int | str) -> list[float]:
        """The mean squared error on held-out rows after each round on the others."""
        learning = FeatureLearning(
            *(rows, self.kernel),
            ridge=self.ridge,
            memory=memory,
            seed=seed,
            metric=self.options,
            choice=Choice(rounds, patience=rounds + 1),
            held_out=held,
        )
        while not learning.is_finished:
            learning.step()
        return learning.scores

    def fit(self, problem: Problem, rounds: int, seed: int = 0, memory: int | str = "auto") -> Fit:
        """The fit after so many rounds; after fewer if the function is constant before."""
        solving = {"ridge": self.ridge, "solver": "auto", "epochs": 10, "memory": memory}
        chain = Chain(problem, self.kernel, self.options, solving, seed=seed, leave_one_out=False)
        for _ in range(rounds + 1):
            if chain.step() is None:
                break
        assert chain.last is not None  # of round 0 at least
        return chain.last


@dataclass(frozen=True)
class FeaturePoint:
    """A candidate that was tried.

    Attributes:
        candidate: its parameters.
        errors: the mean squared error after each round, the mean over the parts that were tried, in the square of the
            targets' units; of one-hot rows for classes.
        parts: how many of the 5 parts were tried; fewer than 5 for a candidate that was given up.
    """

    candidate: FeatureCandidate
    errors: tuple[float, ...]
    parts: int

    @property
    def round(self) -> int:
        """The round of least error; 0 is the plain kernel."""
        return self.errors.index(min(self.errors))

    @property
    def score(self) -> float:
        """The least error."""
        return min(self.errors)


@dataclass(frozen=True)
class FeatureTuning:
    """The candidates that `kl.tune_features` compared, and its choice.

    Attributes:
        points: all candidates in the order they were tried.
        best: the choice.
        rows: rows that candidates were scored on.

    Example:
        >>> import torch, kl
        >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> tuning = kl.tune_features(x, x[:, :1].sin(), candidates=2, rounds=1)
        >>> len(tuning.points), tuning.rows, tuning.best.parts
        (2, 60, 5)
    """

    points: tuple[FeaturePoint, ...]
    best: FeaturePoint
    rows: int


def tune_features(
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    *,
    kernels: Sequence[str | Kernel] | str | Kernel = "auto",
    rounds: int = ROUNDS,
    candidates: int = CANDIDATES,
    seconds: float = math.inf,
    subsample: int | str = "auto",
    seed: int = 0,
    memory: int | str = "auto",
    task: str = "auto",
    progress: Callable[[str], object] | None = None,
) -> FeatureTuning:
    """Choose kernel, bandwidth, ridge, metric and rounds of a recursive feature machine by random search.

    The first candidates are the defaults of `kl.RFMRegressor`, each kernel with a full and a diagonal metric. Others
    are drawn: the kernel, the metric, and the power 1/2 or 1 with equal chances; the bandwidth log-uniform from 1/2 to
    8 median distances under the metric; the ridge log-uniform from 1e-6 to 10; the exponent of a kernel that is given
    by its name uniform from 0.7 to 2: the power of "exponential-power", and q of "lpq-laplacian", up to p = 1. The
    score of a candidate is the least over rounds of the mean squared error on 5 parts of the rows, each by rounds on
    the other parts. A candidate whose mean over its first parts exceeds the best one's on the same parts by a tenth is
    given up.

    Args:
        x: training features, float32 or float64, shape (n, d).
        y: targets, shape (n, c): one-hot rows for classes, numbers for regression.
        kernels: names, as in `kl.kernel_names()`, or kernels, which must define their gradients. Of a kernel that is
            not given by its name all parameters stay as they are, except the bandwidth "auto". "auto" is
            "exponential-power", and "lpq-laplacian" too up to 50 columns.
        rounds: metrics that are learnt at most.
        candidates: how many are tried.
        seconds: after which no candidate is begun; the first is always tried.
        subsample: rows that candidates are scored on; "auto" is at most 2000, drawn with the shares of the classes.
        seed: of the draws, the parts and the subsample.
        memory: budget in bytes, as "8GB", or "auto": half of what is free on x's device.
        task: "classification" or "regression"; "auto" is classification if all rows of y are one-hot.
        progress: is called with a line after each candidate; None logs one every 5 seconds.

    Returns:
        The `FeatureTuning`: all candidates, and the choice.

    Raises:
        InputError: an argument is invalid, a kernel defines no gradient, or there are fewer than 20 rows that differ.
        MemoryBudgetError: a solve does not fit the memory.

    Source: Radhakrishnan, Beaglehole, Pandit, Belkin 2024, arXiv:2212.13881 (the machine); Bergstra and Bengio 2012,
    JMLR 13, 281-305 (random search).

    Example:
        >>> import torch, kl
        >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
        >>> tuning = kl.tune_features(x, x[:, :1].sin() * x[:, 1:2], candidates=2)
        >>> tuning.best.round > 0
        True
    """
    classes = check_data(x, y, task)
    if isinstance(kernels, str) and kernels == "auto":
        kernels = KERNELS if x.shape[1] <= LPQ_COLUMNS else KERNELS[:1]
    named = [kernels] if isinstance(kernels, str | Kernel) else list(kernels)
    if not named:
        raise InputError('kernels must name one kernel at least; got none: try kernels=("laplacian",)')
    families = [Family.of(each) for each in named]
    count, rounds, seed = check_count("candidates", candidates), check_count("rounds", rounds), check_seed("seed", seed)
    limit = check_not_negative("seconds", seconds) if seconds != math.inf else math.inf
    size = SUBSAMPLE_ROWS if subsample == "auto" else check_count("subsample", subsample)
    if size < len(x):
        rows = drawn_rows(y, size, classes, seed)
        x, y = x[rows], y[rows]
    problem = Problem.of(x, y.double())
    parts = held_out_parts(problem, "kfold", seed)
    points: list[FeaturePoint] = []
    best: list[list[float]] | None = None  # of each part, the errors after each round
    start, report = time.monotonic(), Reports(progress, log)
    for candidate in candidates_of(families, count, seed):
        errors = tried_on(candidate, parts, best, rounds, seed, memory)
        points.append(FeaturePoint(candidate, tuple(by_round(errors)), len(errors)))
        if len(errors) == len(parts) and (best is None or min(by_round(errors)) < min(by_round(best))):
            best = errors
        spent, done = time.monotonic() - start, len(points)
        left = min(spent / done * (count - done), max(0.0, limit - spent))
        report(f"candidate {done} of {count}, about {duration(left)} left")
        if spent >= limit:
            break
    whole = [each for each in points if each.parts == len(parts)]
    return FeatureTuning(tuple(points), min(whole, key=lambda each: each.score), len(x))


@dataclass(frozen=True)
class Family:
    """Kernels that are one up to their exponent."""

    kernel: Kernel
    exponent: str | None
    """The name of the parameter that is drawn; None draws none."""

    @classmethod
    def of(cls, given: str | Kernel) -> Family:
        """The kernels of a name, whose exponent is free, or the one kernel that is given."""
        kernel = build_kernel(given)
        return cls(kernel, EXPONENT_OF.get(type(kernel)) if isinstance(given, str) else None)

    def draw(self, rng: np.random.Generator) -> Kernel:
        """One of them."""
        if self.exponent is None:
            return self.kernel
        most = min(EXPONENTS[1], getattr(self.kernel, "p", EXPONENTS[1]))
        return replace(self.kernel, **{self.exponent: float(rng.uniform(EXPONENTS[0], most))})  # type: ignore[type-var]


def candidates_of(families: Sequence[Family], count: int, seed: int) -> Iterator[FeatureCandidate]:
    """The defaults of each kernel with a full and with a diagonal metric, then random draws."""
    defaults = [FeatureCandidate(family.kernel, metric) for family in families for metric in METRICS]
    yield from defaults[:count]
    rng = np.random.default_rng(seed)
    for _ in range(count - len(defaults)):
        metric, factor, ridge = str(rng.choice(METRICS)), log_uniform(rng, *FACTORS), log_uniform(rng, *RIDGES)
        power, kernel = float(rng.choice(POWERS)), families[int(rng.integers(len(families)))].draw(rng)
        factor = factor if getattr(kernel, "bandwidth", None) == "auto" else 1.0
        yield FeatureCandidate(kernel, metric, factor, ridge, power)


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """A number whose logarithm is uniform between those of least and most."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def by_round(errors: list[list[float]]) -> list[float]:
    """The mean over parts of the errors after each round; a part whose function became constant may have fewer."""
    return [fmean(each) for each in zip(*errors, strict=False)]


def tried_on(
    candidate: FeatureCandidate,
    parts: Sequence[tuple[Problem, Problem]],
    best: list[list[float]] | None,
    rounds: int,
    seed: int,
    memory: int | str,
) -> list[list[float]]:
    """The errors of a candidate on each part after each round, until it is far behind the best."""
    errors: list[list[float]] = []
    for rows, held in parts:
        errors.append(candidate.errors(rows, held, rounds, seed, memory))
        least = math.inf if best is None else min(by_round(best[: len(errors)]))
        if min(by_round(errors)) > GIVEN_UP * least and len(errors) < len(parts):
            break
    return errors
