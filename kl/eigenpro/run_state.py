"""The state of an EigenPro 2 run: copied from a run, and checked before another run resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kl.eigenpro.divergence import MAX_STEP_CUTS
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
# Values of the state that must be those of the run that resumes from it.
SAME = ("kernel", "seed", "precision", "rank", "ranks", "subsample", "ridge")
REMEDY = "give what state_dict() of a run has returned"


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
    require_values("state", state, TYPES, REMEDY)
    own, tensors = _values(run, inputs), _tensors(run)
    for name in tensors:
        if not isinstance(state.get(name), Tensor):
            raise CheckpointError(f"the state has no tensor {name}: {REMEDY}")
    plan = EigenProPlan.restored(state["plan"], state["vectors"], REMEDY)
    if state["data"] != own["data"]:
        raise CheckpointError(
            "the state must be of a run on this run's data; its x, y or weights were others: make the run on the rows "
            "of the state's run, in the same order"
        )
    ours, theirs = {**own, **asdict(run.plan)}, {**state, **asdict(plan)}
    for name in SAME:
        if theirs[name] != ours[name]:
            raise CheckpointError(
                f"the state's {name} must be that of this run, {ours[name]}; got {theirs[name]}: make the run with the "
                f"state's {name}"
            )
    _require_values(state)
    shapes: dict[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in tensors.items()}
    shapes |= {"vectors": (plan.subsample, plan.top_q), "weights": (plan.top_q,)}
    for name, tensor in tensors.items():
        _require_tensor(name, state[name], shapes[name], tensor.dtype)
    run.go_on_with(plan, Preconditioner(*(state[name].to(run.alpha.device) for name in ("vectors", "weights"))))
    with torch.no_grad():
        run.alpha.copy_(state["alpha"])
    run.fitted.load_state_dict({name: state[f"fitted.{name}"] for name in run.fitted.state_dict()})
    run.step_size, run.epoch = state["step_size"], state["epoch"]
    if run.guard is not None:
        run.guard.cuts = state["cuts"]


def _require_values(state: Mapping[str, Any]) -> None:
    if not state["step_size"] > 0:
        raise CheckpointError(f"the state's step_size must be above 0; got {state['step_size']}: {REMEDY}")
    if state["epoch"] < 0:
        raise CheckpointError(f"the state's epoch must be 0 or above; got {state['epoch']}: {REMEDY}")
    if not 0 <= state["cuts"] <= MAX_STEP_CUTS:
        raise CheckpointError(f"the state's cuts must be from 0 to {MAX_STEP_CUTS}; got {state['cuts']}: {REMEDY}")


def _require_tensor(name: str, got: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if got.shape != shape or got.dtype != dtype:
        raise CheckpointError(
            f"the state's {name} must have shape {tuple(shape)} and type {dtype}; got {tuple(got.shape)} and "
            f"{got.dtype}: {REMEDY}"
        )
    if not bool(torch.isfinite(got).all()):
        raise CheckpointError(f"the state's {name} must be finite; it holds NaN or infinity: {REMEDY}")


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
