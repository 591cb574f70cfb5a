"""The parameters of an EigenPro run, as a plan chooses them and as a checkpoint stores them."""

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
    lambda_1: float  # lambda_1 before damping, as estimated on the subsample
    lambda_1_damped: float  # lambda_1(K_P), the larger of the two estimates below; the step size uses it
    lambda_1_subsample: float  # the estimate on the subsample that P was built from
    lambda_1_check: float  # the estimate on a second, independent sample
    ridge: float = 0.0  # included in beta; ridge / n is included in the three values of lambda_1(K_P)

    @property
    def optimal_step_size(self) -> float:
        """The eta that the rules give, whatever step size the user asked for."""
        return optimal_step_size(self.batch_size, self.beta, self.lambda_1_damped)

    def describe(self) -> str:
        """The parameters on one line."""
        return (
            f"s {self.subsample}, q {self.top_q} (lambda_1 {self.lambda_1:.3g} -> {self.lambda_1_damped:.3g}), "
            f"batch {self.batch_size} (critical {self.critical_batch_size}), step size {self.step_size:.4g}"
        )

    def describe_run(self, step_size: float) -> str:
        """The parameters of a run on one line, with its current step size."""
        return (
            f"batch {self.batch_size} (critical {self.critical_batch_size}), step size {step_size:.4g}, "
            f"q {self.top_q}, s {self.subsample}"
        )

    @classmethod
    def restored(
        cls,
        values: Any,
        vectors: Tensor,  # E of the checkpoint's preconditioner, shape: (s, q)
        remedy: str = "",
    ) -> EigenProPlan:
        """The plan that a checkpoint stores as a dict; `remedy` is what messages say to do, "" what helps with a file.

        Raises:
            CheckpointError: the dict does not hold a plan's fields, a field is out of its range, or `vectors` does not
                have the plan's s and q.
        """
        require_arguments("plan", cls, values, remedy)
        for name, value in values.items():
            if not (value >= 0 if name in ("top_q", "ridge") else value > 0):
                raise CheckpointError(f"its plan must have {name} above 0; got {value}: {remedy or 'train again'}")
        plan = cls(**values)
        if vectors.shape != (plan.subsample, plan.top_q):
            raise CheckpointError(
                f"its vectors must have shape {(plan.subsample, plan.top_q)}, as its plan says; got "
                f"{tuple(vectors.shape)}: {remedy or 'train again'}"
            )
        return plan

    def require_same_run(self, own: EigenProPlan) -> None:
        """Check that a run with the plan `own` can resume with this plan, which comes from a checkpoint.

        Raises:
            CheckpointError: the two plans differ in the rows of the subsample or in the ridge.
        """
        if self.subsample != own.subsample:
            raise CheckpointError(
                f"the checkpoint was trained with a subsample of {self.subsample} rows; got {own.subsample}: resume "
                "with the same subsample"
            )
        if self.ridge != own.ridge:
            raise CheckpointError(
                f"the checkpoint was trained with ridge {self.ridge:g}; got {own.ridge:g}: resume with the same ridge"
            )


def warn_of_other_options(theirs: Mapping[str, Any], own: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Warn of requested options that have no effect, because the run goes on with the checkpoint's values."""
    for name, value in theirs.items():
        if asked.get(name, "auto") != "auto" and own.get(name) != value:
            log.warning("%s %s has no effect: the run goes on with %s, the checkpoint's", name, own.get(name), value)
