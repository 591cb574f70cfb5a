"""The state of an EigenPro 2 run: copied from a run, and checked before another run resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.preconditioner import Preconditioner
from kl.errors import CheckpointError
from kl.machines.checkpoints import require_values

TYPES = {
    "kernel": dict,
    "data": str,
    "seed": int,
    "precision": str,
    "rank": int,
    "ranks": int,
    "plan": dict,
    "epoch": int,
    "step_size": float,
    "cuts": int,
}
SAME = ("kernel", "seed", "precision", "rank", "ranks")  # of the state and of the run that resumes from it


@dataclass(frozen=True)
class RunInputs:
    """What a run is made from, besides its kernel and plan; the seed draws the order of its weights."""

    data: str  # the key of x, y and the weights
    seed: int
    precision: str


def state_of(run: EigenProIteration, inputs: RunInputs) -> dict[str, Any]:
    """Copies of the run's tensors, and plain values."""
    return {**_values(run, inputs), **{name: tensor.detach().clone() for name, tensor in _tensors(run).items()}}


def load_state(run: EigenProIteration, inputs: RunInputs, state: Mapping[str, Any]) -> None:
    """Resume a run from a state.

    Raises:
        CheckpointError: the state is invalid, or of other data, kernel, seed, precision, subsample, ridge or ranks.
    """
    require_values("state", state, TYPES)
    own = _values(run, inputs)
    if state["data"] != own["data"]:
        raise CheckpointError(
            "the state must be of a run on this run's data; its x, y or weights were others: make the run on the rows "
            "of the state's run, in the same order"
        )
    for name in SAME:
        if state[name] != own[name]:
            raise CheckpointError(
                f"the state's {name} must be that of this run, {own[name]}; got {state[name]}: make the run with the "
                f"state's {name}"
            )
    tensors = _tensors(run)
    for name in tensors:
        if not isinstance(state.get(name), Tensor):
            raise CheckpointError(f"the state has no tensor {name}: give what state_dict() of a run has returned")
    plan = EigenProPlan.restored(state["plan"], state["vectors"])
    plan.require_same_run(run.plan)
    shapes: dict[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in tensors.items()}
    shapes |= {"vectors": (plan.subsample, plan.top_q), "weights": (plan.top_q,)}
    for name, tensor in tensors.items():
        got = state[name]
        if got.shape != shapes[name] or got.dtype != tensor.dtype:
            raise CheckpointError(
                f"the state's {name} must have shape {tuple(shapes[name])} and type {tensor.dtype}; got "
                f"{tuple(got.shape)} and {got.dtype}: make the run on the same data, with the same options"
            )
    run.go_on_with(plan, Preconditioner(*(state[name].to(run.alpha.device) for name in ("vectors", "weights"))))
    with torch.no_grad():
        run.alpha.copy_(state["alpha"])
    run.fitted.load_state_dict({name: state[f"fitted.{name}"] for name in run.fitted.state_dict()})
    run.step_size, run.epoch = state["step_size"], state["epoch"]
    if run.guard is not None:
        run.guard.cuts = state["cuts"]


def _values(run: EigenProIteration, inputs: RunInputs) -> dict[str, Any]:
    return {
        "kernel": run.kernel.config(),
        **asdict(inputs),
        "rank": run.ranks.rank,
        "ranks": run.ranks.size,
        "plan": asdict(run.plan),
        "epoch": run.epoch,
        "step_size": run.step_size,
        "cuts": run.cuts,
    }


def _tensors(run: EigenProIteration) -> dict[str, Tensor]:
    preconditioner = {"vectors": run.preconditioner.vectors, "weights": run.preconditioner.weights}
    return {"alpha": run.alpha, **preconditioner, **run.fitted.state_dict(prefix="fitted.")}
