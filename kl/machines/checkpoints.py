"""What is in a checkpoint, which may come from anywhere: read without running code, checked before it is believed."""

from __future__ import annotations

import inspect
import math
import os
import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.system.saved import load_values

FLOATS = (torch.float32, torch.float64)
DTYPES = (*FLOATS, torch.int64, torch.bool)
REMEDY = "give the last.ckpt of a run of `kl fit`"


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a checkpoint file, on the CPU, with weights_only=True: no code of the file's choice runs.

    Raises:
        CheckpointError: there is no such file, or it is damaged or not a checkpoint.
    """
    _require_file(path)
    try:
        checkpoint = load_values(path)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path} is damaged or none: {error}: {REMEDY}, or train again") from error
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a checkpoint of a Lightning run: {REMEDY}")
    return checkpoint


def _require_file(path: str | os.PathLike[str]) -> None:
    """Not a pipe or a device, either, which would be waited for."""
    if not isinstance(path, str | os.PathLike):
        raise CheckpointError(f"checkpoint must be the path of a file; got a {type(path).__name__}")
    where = Path(path)
    try:
        if where.is_file():
            return
        what = "it is a folder" if where.is_dir() else "it is no regular file" if where.exists() else "there is none"
    except (OSError, ValueError) as error:  # a path that is too long, or holds a null character
        what = getattr(error, "strerror", None) or str(error)
    raise CheckpointError(f"checkpoint {path} cannot be read: {what}: {REMEDY}")


def require_weights_only(value: bool | None) -> None:
    """Check what Lightning's loaders are asked for: True, or None for its default, which is True here.

    Raises:
        InputError: it is False.
    """
    if value is False:
        raise InputError("weights_only must be True: a checkpoint does not get to say what code runs; got False")


@contextmanager
def errors_name(path: Any) -> Iterator[None]:
    """Let the errors of what is in a checkpoint begin with its path, if there is one."""
    try:
        yield
    except CheckpointError as error:
        if path is None:
            raise
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def faults_in(what: str) -> Iterator[None]:
    """Let what a part of a checkpoint is refused for be the checkpoint's fault, a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except InputError as error:
        raise CheckpointError(f"its {what}: {error}") from error


def require_values(what: str, values: Any, types: Mapping[str, Any]) -> None:
    """Check that a part of a checkpoint holds values of these names and types, as type hints; it may hold more.

    Raises:
        CheckpointError: it does not.
    """
    if not isinstance(values, dict):
        raise CheckpointError(f"its {what} must be a dict; got {_brief(values)}: {REMEDY}")
    for name, hint in types.items():
        if name not in values:
            raise CheckpointError(
                f"its {what} has no {name}: another version of kl wrote it, or it was changed; train again"
            )
        if not _fits(values[name], hint):
            raise CheckpointError(
                f"its {what} must have {name} of type {_called(hint)}; got {_brief(values[name])}: {REMEDY}"
            )


def require_arguments(what: str, cls: type, values: Any) -> None:
    """Check that a part of a checkpoint are arguments of a class, no others, of the types of its signature.

    Raises:
        CheckpointError: they are not.
    """
    parameters = inspect.signature(cls).parameters
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    more = [name for name, each in parameters.items() if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    needed = [name for name, each in parameters.items() if each.default is each.empty and name not in more]
    require_values(what, values, {name: hints.get(name, Any) for name in needed})
    unknown = [str(name) for name in values if name not in parameters]
    if unknown and not more:
        raise CheckpointError(
            f"its {what} must be among {', '.join(parameters)}; got {_brief(unknown[0])}: another version of kl wrote "
            "it, or it was changed; train again"
        )
    require_values(what, values, {name: hints.get(name, Any) for name in values})


def require_like(what: str, found: Any, template: Any) -> None:
    """Check that a part of a checkpoint has the form of a template: in dicts the same names, and values of its types.

    Counts are not negative. What is None in the template may be anything.

    Raises:
        CheckpointError: it has not.
    """
    if isinstance(template, dict):
        if not isinstance(found, dict) or set(found) != set(template):
            names = ", ".join(map(str, template)) or "nothing"
            raise CheckpointError(f"its {what} must hold {names}; got {_brief(found)}: {REMEDY}")
        for name, value in template.items():
            require_like(f"{what}: {name}", found[name], value)
    elif isinstance(template, list):
        if not isinstance(found, list) or len(found) != len(template):
            raise CheckpointError(f"its {what} must be a list of {len(template)}; got {_brief(found)}: {REMEDY}")
        for number, value in enumerate(template):
            require_like(f"{what}: {number}", found[number], value)
    elif template is not None and (not _fits(found, type(template)) or (type(template) is int and found < 0)):
        raise CheckpointError(f"its {what} must be like {template!r}; got {_brief(found)}: {REMEDY}")


def is_same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values, wherever they are."""
    return ours.dtype == theirs.dtype and torch.equal(ours.cpu(), theirs.cpu())


def require_lightning(checkpoint: dict[str, Any]) -> None:
    """Check what Lightning reads of a checkpoint before anything else.

    Raises:
        CheckpointError: it is missing, or of a version that wrote other checkpoints.
    """
    if "kernel_machine" in checkpoint and not {"loops", "hyper_parameters"} & checkpoint.keys():
        raise CheckpointError(
            "it keeps nothing of its training (kl export and kl interpolate --save write such files): resume from the "
            "last.ckpt of a run"
        )
    types = {"epoch": int, "global_step": int, "pytorch-lightning_version": str}
    require_values("top level", checkpoint, types)
    version = checkpoint["pytorch-lightning_version"]
    if not re.fullmatch(r"[2-9]\.\d+(\.\d+)*\w*", version):
        raise CheckpointError(f"it was written by Lightning {version[:20]!r}, before 2.0 or none: train again")
    if min(checkpoint["epoch"], checkpoint["global_step"]) < 0:
        raise CheckpointError(f"its epoch and global_step must be at least 0: {REMEDY}")


def require_epoch_end(checkpoint: dict[str, Any]) -> None:
    """Check that training can go on from a checkpoint: that it was written where an epoch had ended.

    A callback that writes one after a step is called before the step is counted, and before the epoch's end.

    Raises:
        CheckpointError: it was written inside an epoch, or does not say where.
    """
    loops = checkpoint.get("loops")
    require_values("loops", loops, {"fit_loop": dict})
    assert isinstance(loops, dict)  # require_values has seen to it
    counts = ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.manual_optimization.optim_step_progress")
    require_values("fit_loop", loops["fit_loop"], dict.fromkeys(counts, dict))  # Lightning takes 0 for those missing
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    require_values("batch_progress", progress, {"current": dict, "is_last_batch": bool})
    current = progress["current"]
    require_values("batch_progress", current, {"ready": int, "completed": int})
    if current["ready"] and not (progress["is_last_batch"] and current["completed"] == current["ready"]):
        raise CheckpointError(
            "the checkpoint was written inside an epoch, whose remaining batches are unknown: resume from one written "
            "at the end of an epoch, as `kl fit` and ModelCheckpoint(save_on_train_epoch_end=True) write them"
        )


def require_tensors(state: Any, dimensions: Mapping[str, int]) -> None:
    """Check that weights are plain, finite tensors, and that some are there with so many dimensions.

    Raises:
        CheckpointError: they are not.
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"its state_dict must be a dict; got {_brief(state)}: {REMEDY}")
    for name, value in state.items():
        fault = _fault_of(value)
        if fault or not isinstance(name, str):
            raise CheckpointError(f"its {_brief(name)} {fault or 'must have a name'}: {REMEDY}, or train again")
    for name, count in dimensions.items():
        if name not in state:
            raise CheckpointError(f"it has no {name}: another version of kl wrote it, or it was changed; train again")
        if state[name].ndim != count:
            raise CheckpointError(
                f"its {name} must have {count} dimensions; got shape {tuple(state[name].shape)}: {REMEDY}"
            )


def require_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    either: Collection[str] = (),
) -> None:
    """Check that weights have the names, shapes and dtypes of those expected; `either` may be of any float type.

    Raises:
        CheckpointError: they have others.
    """
    for name in sorted({*state, *expected}):
        if name not in expected or name not in state:
            verb = "has no" if name in expected else "has the unknown"
            raise CheckpointError(f"it {verb} {name}: another version of kl wrote it, or it was changed; train again")
        got, want = state[name], expected[name]
        allowed = FLOATS if name in either and want.dtype in FLOATS else (want.dtype,)
        if got.shape != want.shape or got.dtype not in allowed:
            kinds = " or ".join(str(each).removeprefix("torch.") for each in allowed)
            raise CheckpointError(
                f"its {name} must have shape {tuple(want.shape)} and type {kinds}, as its other parts say; got "
                f"{tuple(got.shape)} and {str(got.dtype).removeprefix('torch.')}: {REMEDY}"
            )


def _fault_of(value: Any) -> str:
    """Why this is no plain tensor of finite values; "" where it is one."""
    if not isinstance(value, Tensor):
        return f"must be a tensor; got {_brief(value)}"
    if value.layout is not torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
        return f"must be a dense tensor of float32, float64 or int64; got {value.layout}, {value.dtype}"
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"must hold all values of its shape {tuple(value.shape)}; it repeats a few"  # and would fill the memory
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return "must be finite; it holds NaN or infinity"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what a type hint asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (list, Sequence) and inner:
        return isinstance(value, list | tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return isinstance(value, origin or hint)


def _called(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _brief(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}, {text[:50]}..."
