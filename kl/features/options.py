"""The options of learning a metric in rounds, on all rows or on a sample of them, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from kl.checks import check_count, check_count_or_none, check_not_negative, check_one_of, plain
from kl.distributed.ranks import Ranks
from kl.errors import InputError
from kl.features.chain import SAMPLE, MetricOptions
from kl.features.learning import Choice, FeatureLearning
from kl.kernels.kernel import Kernel
from kl.solve import SOLVERS, Problem, Say

ROWS = 10_000  # rows of a sample, on which a direct solve takes seconds


@dataclass(frozen=True)
class FeatureOptions:
    """How a metric is learnt in rounds.

    Args:
        rounds: metrics that are learnt at most.
        metric: "full" or "diagonal".
        bandwidth_factor: a bandwidth "auto" is this times the median distance under the metric.
        by: what chooses the round, "kfold", "holdout", "loo" or "auto"; see `kl.RFMRegressor`.
        power: exponent of the gradients' outer product.
        centered: whether each output's mean gradient is subtracted first.
        sample: rows, drawn at random, whose gradients are averaged; None takes all.
        ridge: lambda >= 0 of the rounds, added to the diagonal of K, not multiplied by n.
        round_solver: "auto", "direct", "pcg" or "eigenpro"; see `kl.KernelRegressor`.
        round_epochs: of EigenPro, in each round.
        rows: rows, drawn at random, on which `kl.GeneralKernelMachine` makes the rounds; None takes all.
            `kl.RecursiveFeatureMachine`, which has a centre at each row, makes them on all rows.

    Raises:
        InputError: an option is out of its range.

    Example:
        >>> import kl
        >>> kl.FeatureOptions(rounds=3, metric="diagonal").rows
        10000
    """

    rounds: int = 5
    metric: str = "full"
    bandwidth_factor: float = 1.0
    by: str = "auto"
    power: float = 1.0
    centered: bool = False
    sample: int | None = SAMPLE
    ridge: float = 0.0
    round_solver: str = "auto"
    round_epochs: int = 10
    rows: int | None = ROWS

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, plain(getattr(self, each.name)))
        check_count("rounds", self.rounds)
        check_one_of("metric", self.metric, ("full", "diagonal"))
        object.__setattr__(self, "centered", bool(self.centered))
        object.__setattr__(self, "ridge", check_not_negative("ridge", self.ridge))
        check_one_of("round_solver", self.round_solver, SOLVERS)
        check_count("round_epochs", self.round_epochs)
        check_count_or_none("rows", self.rows, "all rows")
        _ = self.choice, self.metric_options  # check the others

    @classmethod
    def of(cls, given: FeatureOptions | Mapping[str, Any] | None) -> FeatureOptions | None:
        """Options from options, from a dict of them, or None from None.

        Raises:
            InputError: it is none of these, or an option is unknown or out of its range.
        """
        if given is None or isinstance(given, FeatureOptions):
            return given
        names = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping) or not set(given) <= set(names):
            other = sorted(map(str, set(given) - set(names))) if isinstance(given, Mapping) else []
            received = repr(other[0]) if other else type(given).__name__
            raise InputError(
                f"features must be a kl.FeatureOptions, a dict of {', '.join(names)}, or None; got {received}"
            )
        return cls(**given)

    @property
    def choice(self) -> Choice:
        """How many rounds there are, and what chooses the best."""
        return Choice(self.rounds, self.by)

    @property
    def metric_options(self) -> MetricOptions:
        """How a metric is made of gradients."""
        return MetricOptions(
            self.metric,
            self.power,
            centered=self.centered,
            sample=self.sample,
            bandwidth_factor=self.bandwidth_factor,
        )

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, from which `of` makes equal ones."""
        return asdict(self)

    def learning(
        self,
        problem: Problem,
        kernel: Kernel,
        *,
        memory: int | str,
        seed: int,
        held_out: tuple[Tensor, Tensor] | None = None,
        say: Say | None = None,
        ranks: Ranks | None = None,
    ) -> FeatureLearning:
        """The rounds on all rows of a problem, of which none has been made; the arguments are those of the class."""
        return FeatureLearning(
            problem,
            kernel,
            ridge=self.ridge,
            solver=self.round_solver,
            epochs=self.round_epochs,
            memory=memory,
            seed=seed,
            metric=self.metric_options,
            choice=self.choice,
            held_out=None if held_out is None else Problem.of(*held_out),
            say=say,
            ranks=ranks,
        )
