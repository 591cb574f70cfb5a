"""Data modules from untrusted checkpoints, of which only the options are used."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import pytorch_lightning as pl

from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import errors_name, read_checkpoint, require_values

Module = TypeVar("Module", bound=pl.LightningDataModule)


def restored(cls: type[Module], path: Any, **options: Any) -> Module:
    """A data module of a class with the options that a checkpoint file holds; no code from the file is run.

    Args:
        cls: the class; the file cannot choose it.
        path: a file on disk.
        options: options that take precedence over the file's.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no such options.
    """
    checkpoint = read_checkpoint(path)
    with errors_name(path):
        stored = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY)
        require_values("data module", stored, {})
        known = option_names(cls)
        if unknown := sorted(map(str, set(stored) - known)):  # type: ignore[arg-type]
            raise CheckpointError(
                f"its data module has the option {unknown[0]}, which {cls.__name__} has not: call load_from_checkpoint "
                "of the class that the run has used"
            )
        try:
            return cls(**{**stored, **options})  # type: ignore[dict-item]
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"its data module's options are not those of a {cls.__name__}: {error}") from error


def option_names(cls: type) -> set[str]:
    """Names of the arguments of a class and, if it takes **options, of its bases."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names.update(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def plain_value(value: Any) -> Any:
    """The value as str, int, float, bool, None or a list of them, else NotImplemented."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        values = [plain_value(item) for item in value]
        return NotImplemented if any(item is NotImplemented for item in values) else values
    if isinstance(value, Mapping) and all(type(name) is str for name in value):
        named = {name: plain_value(item) for name, item in value.items()}
        return NotImplemented if any(item is NotImplemented for item in named.values()) else named
    if hasattr(value, "item") and math.prod(getattr(value, "shape", (2,))) == 1:
        return plain_value(value.item())
    return NotImplemented
