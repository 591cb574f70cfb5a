"""The state of an EigenPro 2 run: copied from a run, and checked before another run resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.preconditioner import Preconditioner
from kl.errors import CheckpointError
from kl.machines.checkpoints import require_values

TYPES = {"kernel": dict, "data": str, "ranks": int, "plan": dict, "epoch": int, "step_size": float, "cuts": int}
SAME = ("kernel", "data", "ranks")  # values in which a run must agree with the state that it resumes from


def state_of(run: EigenProIteration, data_key: str) -> dict[str, Any]:
    """Copies of the run's tensors, and plain values; `data_key` identifies the data of the run."""
    return {**_values(run, data_key), **{name: tensor.detach().clone() for name, tensor in _tensors(run).items()}}


def load_state(run: EigenProIteration, data_key: str, state: Mapping[str, Any]) -> None:
    """Resume a run on the data of `data_key` from a state.

    Raises:
        CheckpointError: the state is invalid, or of other data, kernel, subsample, ridge or number of ranks.
    """
    require_values("state", state, TYPES)
    own = _values(run, data_key)
    for name in SAME:
        if state[name] != own[name]:
            raise CheckpointError(
                f"the state's {name} must be that of this run, {own[name]}; got {state[name]}: make the run on the "
                "same data, with the same options"
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


def _values(run: EigenProIteration, data_key: str) -> dict[str, Any]:
    return {
        "kernel": run.kernel.config(),
        "data": data_key,
        "ranks": run.ranks.size,
        "plan": asdict(run.plan),
        "epoch": run.epoch,
        "step_size": run.step_size,
        "cuts": run.cuts,
    }


def _tensors(run: EigenProIteration) -> dict[str, Tensor]:
    preconditioner = {"vectors": run.preconditioner.vectors, "weights": run.preconditioner.weights}
    return {"alpha": run.alpha, **preconditioner, **run.fitted.state_dict(prefix="fitted.")}
