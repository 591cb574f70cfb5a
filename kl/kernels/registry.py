"""Kernels by name: what `--kernel`, configuration files and checkpoints are read with."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from kl.errors import InputError
from kl.kernels.base import Kernel
from kl.kernels.composite import Product, Scaled, Sum
from kl.kernels.inner_product import Polynomial
from kl.kernels.radial import (
    ExponentialPower,
    Gaussian,
    InverseMultiquadric,
    Laplacian,
    Matern32,
    Matern52,
)
from kl.kernels.relu import ReluNNGP, ReluNTK

_NAMED: dict[str, type[Kernel]] = {
    kernel.name: kernel
    for kernel in (
        Gaussian,
        Laplacian,
        ExponentialPower,
        Matern32,
        Matern52,
        InverseMultiquadric,
        Polynomial,
        ReluNTK,
        ReluNNGP,
    )
}
_ALIASES: dict[str, type[Kernel]] = {"dispersal": ExponentialPower}
# Only configurations hold these: on a command line there is no way to write their parts.
_COMBINING: dict[str, type[Kernel]] = {kernel.name: kernel for kernel in (Sum, Product, Scaled)}


def kernel_names() -> list[str]:
    """The names that `build_kernel` and `--kernel` know, aliases last."""
    return [*_NAMED, *_ALIASES]


def build_kernel(spec: str | Mapping[str, Any] | Kernel, **parameters: Any) -> Kernel:
    """Make a kernel from a name, from "package.module:Class", or from what `Kernel.config` returned.

    A module is looked for in the current directory first, as with `python -m`; that directory then stays
    on the import path.

    Args:
        spec: one of `kernel_names()`; "package.module:Class" for a class of your own; a `config()` dict; or a
            kernel, which is returned as it is, or as a copy where parameters are given.
        parameters: the kernel's parameters, which take precedence over those in `spec`. None means not given.

    Raises:
        InputError: the name, the module or the class is unknown or no kernel, or a parameter is unknown,
            missing or out of its range.

    Example:
        >>> build_kernel("laplacian", bandwidth=10)
        Laplacian(bandwidth=10.0)
        >>> build_kernel(build_kernel("relu-ntk", depth=2).config())
        ReluNTK(depth=2, bias=0.0)
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    if isinstance(spec, Kernel):
        if not given:
            return spec
        _check_parameters(type(spec).__name__, type(spec), given)
        return replace(spec, **given)  # type: ignore[type-var]
    if isinstance(spec, Mapping):
        stored = {str(name): _build_parts(value) for name, value in spec.items() if value is not None}
        if "kernel" not in stored:
            raise InputError(f'a kernel configuration must name its "kernel"; got only {sorted(stored)}')
        return build_kernel(stored.pop("kernel"), **{**stored, **given})
    if not isinstance(spec, str):
        raise InputError(f"kernel must be a name, a configuration or a Kernel; got {spec!r}")
    cls = _load_class(spec) if ":" in spec else _named_class(spec)
    _check_parameters(spec, cls, given, complete=True)
    return cls(**given)


def _build_parts(value: Any) -> Any:
    """Kernels in place of the configurations nested in a parameter."""
    if isinstance(value, Mapping) and "kernel" in value:
        return build_kernel(value)
    if isinstance(value, list | tuple):
        return [_build_parts(item) for item in value]
    return value


def _named_class(name: str) -> type[Kernel]:
    known = _NAMED | _ALIASES | _COMBINING
    if name in known:
        return known[name]
    close = get_close_matches(name.lower().replace("_", "-"), kernel_names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise InputError(
        f"unknown kernel {name!r}.{hint} Known: {', '.join(kernel_names())}; "
        "or package.module:Class for a kernel of your own"
    )


def _load_class(spec: str) -> type[Kernel]:
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise InputError(f"kernel {spec!r} must have the form package.module:Class")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        reason = (
            f"there is no module {error.name!r} in the current directory or the installed packages"
            if isinstance(error, ModuleNotFoundError) and absent
            else f"importing it failed with {type(error).__name__}: {' '.join(str(error).split())}"
        )
        raise InputError(f"kernel {spec!r}: {reason}") from error
    for part in class_name.split("."):
        if not hasattr(found, part):
            own = [name for name, value in vars(found).items() if _is_kernel_class(value)]
            raise InputError(
                f"kernel {spec!r}: {module_name} has no class {class_name!r}; kernels in it: {', '.join(own) or 'none'}"
            )
        found = getattr(found, part)
    if not _is_kernel_class(found):
        raise InputError(f"kernel {spec!r}: {class_name} must be a subclass of kl.Kernel that defines its formula")
    return found


def _is_kernel_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Kernel) and not inspect.isabstract(value)


def _check_parameters(name: str, cls: type[Kernel], given: Mapping[str, Any], complete: bool = False) -> None:
    accepted = inspect.signature(cls).parameters
    if unknown := [key for key in given if key not in accepted]:
        raise InputError(
            f"kernel {name} has no parameter {', '.join(unknown)}; it accepts {', '.join(accepted) or 'none'}"
        )
    missing = [key for key, value in accepted.items() if value.default is value.empty and key not in given]
    if missing and complete:
        raise InputError(f"kernel {name} needs {', '.join(missing)}; it accepts {', '.join(accepted)}")
