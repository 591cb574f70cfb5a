"""What machines that are trained with EigenPro's plan share: its options, its parameters, and their checkpoints."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, ClassVar

from torch import Tensor

from kl.eigenpro.parameters import EigenProPlan
from kl.errors import CheckpointError
from kl.machines.machine import TrainedExpansion
from kl.metrics import error

log = logging.getLogger(__name__)


class PlannedMachine(TrainedExpansion):
    """A machine whose batch, step size and preconditioner are those of an `EigenProPlan`.

    Attributes:
        plan: the plan of the run, known while fitting.
        vectors, weights: E and D of the preconditioner.
        eigenvalues: largest first, known while fitting.
    """

    vectors: Tensor
    weights: Tensor
    plan: EigenProPlan | None = None
    eigenvalues: Tensor | None = None
    step_size: float
    """eta, after any cuts."""
    _extra_types: ClassVar[dict[str, Any]] = {**TrainedExpansion._extra_types, "plan": dict | None}
    _of_a_run = (*TrainedExpansion._of_a_run, "guard", "_last_batch")
    _last_batch: tuple[Tensor, Tensor] | None = None  # f(X_B) and Y_B

    @property
    def batch_rows(self) -> int:
        """m."""
        assert self.plan is not None  # setup() made it
        return self.plan.batch_size

    @property
    def parameters_chosen(self) -> dict[str, Any]:
        """The plan's parameters, with the step size as it is now."""
        return {**(asdict(self.plan) if self.plan is not None else {}), "step_size": self.step_size}

    def describe(self) -> str:
        """The plan's parameters on one line, with the step size as it is now."""
        assert self.plan is not None  # setup() made it
        return self.plan.describe_run(self.step_size)

    @property
    def planned_step_size(self) -> float:
        """eta as the rules have it, whatever was asked for."""
        assert self.plan is not None  # setup() made it
        return self.plan.optimal_step_size

    @property
    def batch_error(self) -> float | None:
        """The classification error on the batch of the last step, before that step; None where there is none."""
        if not self.is_classifier or self._last_batch is None:
            return None
        return error(*self._last_batch)

    def _extra_state(self) -> dict[str, Any]:
        return {"plan": asdict(self.plan) if self.plan else None}

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        super()._load_extra_state(extra, state, resuming)
        plan = None if extra["plan"] is None else EigenProPlan.restored(extra["plan"], state["vectors"])
        if resuming and len(state["vectors"]) != len(self.vectors):
            raise CheckpointError(
                f"the checkpoint was trained with a subsample of {len(state['vectors'])} rows; got "
                f"{len(self.vectors)}: resume with the same --subsample"
            )
        if resuming and extra["plan"] is not None:
            self._warn_of_other_options(extra["plan"])
        self.plan = plan
        if resuming:
            self.vectors, self.weights = (state[k].to(self.centers) for k in ("vectors", "weights"))

    def _warn_of_other_options(self, saved: dict[str, Any]) -> None:
        """Say which of the options asked for have no effect, since the checkpoint's go on."""
        for name, theirs in saved.items():
            ours = self.parameters_chosen.get(name)
            if self.hparams.get(name, "auto") != "auto" and ours != theirs:
                log.warning("%s %s has no effect: the run goes on with %s, the checkpoint's", name, ours, theirs)
