"""The contents of untrusted checkpoints: read without running code, and checked before use."""

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
    """The contents of a checkpoint file, on the CPU, with weights_only=True: no code from the file is run.

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


def machine_part(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that describes a machine, besides its tensors; it holds at least the machine's kind.

    Raises:
        CheckpointError: the checkpoint holds no kernel machine.
    """
    extra = checkpoint.get("kernel_machine")
    if extra is None:
        raise CheckpointError("the checkpoint holds no kernel machine; give one that `kl fit` wrote")
    require_values("kernel_machine", extra, {"kind": str})
    return extra


def _require_file(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is no regular file, such as a pipe or a device, because reading it could block forever."""
    if not isinstance(path, str | os.PathLike):
        raise CheckpointError(f"checkpoint must be the path of a file; got a {type(path).__name__}")
    where = Path(path)
    try:
        if where.is_file():
            return
        what = "it is a folder" if where.is_dir() else "it is no regular file" if where.exists() else "there is none"
    except (OSError, ValueError) as error:  # the path is too long, or holds a null character
        what = getattr(error, "strerror", None) or str(error)
    raise CheckpointError(f"checkpoint {path} cannot be read: {what}: {REMEDY}")


def require_weights_only(value: bool | None) -> None:
    """Check the argument `weights_only` of Lightning's loaders: it must be True, or None, which here means True.

    Raises:
        InputError: the value is False.
    """
    if value is False:
        raise InputError("weights_only must be True: a checkpoint does not get to say what code runs; got False")


@contextmanager
def errors_name(path: Any) -> Iterator[None]:
    """Put the path, if there is one, in front of the messages of `CheckpointError`s."""
    try:
        yield
    except CheckpointError as error:
        if path is None:
            raise
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def faults_in(what: str) -> Iterator[None]:
    """Turn an `InputError` about a part of a checkpoint into a `CheckpointError`: the checkpoint is at fault."""
    try:
        yield
    except CheckpointError:
        raise
    except InputError as error:
        raise CheckpointError(f"its {what}: {error}") from error


def require_values(what: str, values: Any, types: Mapping[str, Any], remedy: str = "") -> None:
    """Check that a part of a checkpoint holds values of these names and types; it may hold more.

    Args:
        what: the name of the part in messages.
        values: the part.
        types: names and type hints.
        remedy: what messages say to do; "" is what helps with a file.

    Raises:
        CheckpointError: a value is missing or of another type.
    """
    if not isinstance(values, dict):
        raise CheckpointError(f"its {what} must be a dict; got {_brief(values)}: {remedy or REMEDY}")
    for name, hint in types.items():
        if name not in values:
            raise CheckpointError(
                f"its {what} has no {name}: "
                + (remedy or "another version of kl wrote it, or it was changed; train again")
            )
        if not _fits(values[name], hint):
            raise CheckpointError(
                f"its {what} must have {name} of type {_called(hint)}; got {_brief(values[name])}: {remedy or REMEDY}"
            )


def require_arguments(what: str, cls: type, values: Any, remedy: str = "") -> None:
    """Check that a part of a checkpoint holds arguments of a class, of the types of its signature, and nothing else.

    Raises:
        CheckpointError: an argument is missing, unknown or of another type.
    """
    parameters = inspect.signature(cls).parameters
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    more = [name for name, each in parameters.items() if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    needed = [name for name, each in parameters.items() if each.default is each.empty and name not in more]
    require_values(what, values, {name: hints.get(name, Any) for name in needed}, remedy)
    unknown = [str(name) for name in values if name not in parameters]
    if unknown and not more:
        raise CheckpointError(
            f"its {what} must be among {', '.join(parameters)}; got {_brief(unknown[0])}: "
            + (remedy or "another version of kl wrote it, or it was changed; train again")
        )
    require_values(what, values, {name: hints.get(name, Any) for name in values}, remedy)


def require_like(what: str, found: Any, template: Any) -> None:
    """Check that a part of a checkpoint has the form of a template: the same names, and values of the same types.

    Counts must not be negative. A None in the template allows anything.

    Raises:
        CheckpointError: the part has another form.
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
    """Whether two tensors have the same dtype, shape and values; they may be on different devices."""
    return ours.dtype == theirs.dtype and torch.equal(ours.cpu(), theirs.cpu())


def require_lightning(checkpoint: dict[str, Any]) -> None:
    """Check the values that Lightning reads of a checkpoint before anything else.

    Raises:
        CheckpointError: a value is missing, or a version of Lightning with another format wrote the checkpoint.
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
    """Check that training can go on from a checkpoint, which must have been written at the end of an epoch.

    A callback that writes a checkpoint after a step is called before Lightning counts the step, and before the epoch's
    end.

    Raises:
        CheckpointError: the checkpoint was written inside an epoch, or its position in the epoch is missing.
    """
    loops = checkpoint.get("loops")
    require_values("loops", loops, {"fit_loop": dict})
    assert isinstance(loops, dict)  # require_values has checked it
    counts = ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.manual_optimization.optim_step_progress")
    require_values("fit_loop", loops["fit_loop"], dict.fromkeys(counts, dict))  # Lightning takes 0 for missing ones
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
    """Check that weights are plain, finite tensors, and that the named ones exist with these numbers of dimensions.

    Raises:
        CheckpointError: a tensor is missing, or is not of this form.
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
    """Check that weights have the names, shapes and dtypes of those expected.

    Args:
        state: the weights of the checkpoint.
        expected: tensors of the right names, shapes and dtypes.
        either: names of weights that may have any float dtype.

    Raises:
        CheckpointError: a name, shape or dtype is another.
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
    """Why a value is no plain tensor of finite values; "" if it is one."""
    if not isinstance(value, Tensor):
        return f"must be a tensor; got {_brief(value)}"
    if value.layout is not torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
        return f"must be a dense tensor of float32, float64 or int64; got {value.layout}, {value.dtype}"
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return (
            f"must hold all values of its shape {tuple(value.shape)}; it repeats a few"  # a copy would fill the memory
        )
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return "must be finite; it holds NaN or infinity"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of a type hint."""
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
    """A type hint as messages call it."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _brief(value: Any) -> str:
    """A value as messages show it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}, {text[:50]}..."
