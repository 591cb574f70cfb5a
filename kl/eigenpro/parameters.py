"""EigenPro's parameters as a plan has chosen them, and what a checkpoint holds of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kl.eigenpro.rules import optimal_step_size
from kl.errors import CheckpointError
from kl.machines.checkpoints import require_arguments

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EigenProPlan:
    """The parameters of an EigenPro run and the estimates they follow from."""

    subsample: int  # s
    top_q: int  # q
    batch_size: int  # m
    memory_batch_size: int  # m_G
    critical_batch_size: int  # m*
    step_size: float  # eta
    beta: float  # max_x K_P(x, x)
    lambda_1: float  # lambda_1 of K(X_S, X_S)/s
    lambda_1_damped: float  # the larger of the two estimates of lambda_1(K_P), which the step size uses
    lambda_1_subsample: float  # the estimate on the subsample that P was built from
    lambda_1_check: float  # the estimate on a second, independent sample
    ridge: float = 0.0  # beta contains it, and the three estimates of lambda_1(K_P) its n-th part

    @property
    def optimal_step_size(self) -> float:
        """eta by the rules, whatever step size was asked for."""
        return optimal_step_size(self.batch_size, self.beta, self.lambda_1_damped)

    def describe(self) -> str:
        """The parameters on one line."""
        return (
            f"s {self.subsample}, q {self.top_q} (lambda_1 {self.lambda_1:.3g} -> {self.lambda_1_damped:.3g}), "
            f"batch {self.batch_size} (critical {self.critical_batch_size}), step size {self.step_size:.4g}"
        )

    def describe_run(self, step_size: float) -> str:
        """The parameters of a run on one line, with its step size as it is now."""
        return (
            f"batch {self.batch_size} (critical {self.critical_batch_size}), step size {step_size:.4g}, "
            f"q {self.top_q}, s {self.subsample}"
        )

    @classmethod
    def restored(
        cls,
        values: Any,
        vectors: Tensor,  # E of the preconditioner beside it, shape: (s, q)
    ) -> EigenProPlan:
        """The plan that a checkpoint holds as a dict.

        Raises:
            CheckpointError: the dict does not hold a plan's fields, one is out of its range, or the plan is not that of
                the preconditioner.
        """
        require_arguments("plan", cls, values)
        for name, value in values.items():
            if not (value >= 0 if name in ("top_q", "ridge") else value > 0):
                raise CheckpointError(f"its plan must have {name} above 0; got {value}: train again")
        plan = cls(**values)
        if vectors.shape != (plan.subsample, plan.top_q):
            raise CheckpointError(
                f"its vectors must have shape {(plan.subsample, plan.top_q)}, as its plan says; got "
                f"{tuple(vectors.shape)}: train again"
            )
        return plan

    def require_same_run(self, own: EigenProPlan) -> None:
        """Check that a run with the plan `own` can go on with this plan, a checkpoint's.

        Raises:
            CheckpointError: the checkpoint's subsample has another number of rows, or its ridge is another.
        """
        if self.subsample != own.subsample:
            raise CheckpointError(
                f"the checkpoint was trained with a subsample of {self.subsample} rows; got {own.subsample}: resume "
                "with the same --subsample"
            )
        if self.ridge != own.ridge:
            raise CheckpointError(
                f"the checkpoint was trained with ridge {self.ridge:g}; got {own.ridge:g}: resume with the same --ridge"
            )


def warn_of_other_options(theirs: Mapping[str, Any], own: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Say which of the options asked for have no effect, because the checkpoint's values go on."""
    for name, value in theirs.items():
        if asked.get(name, "auto") != "auto" and own.get(name) != value:
            log.warning("%s %s has no effect: the run goes on with %s, the checkpoint's", name, own.get(name), value)
