"""Kernels from configurations. A configuration may come from a file, so no code is imported for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from kl.errors import InputError
from kl.kernels.kernel import Kernel, is_ours, kernel_name
from kl.kernels.names import check_parameters, named_class

# Limits far above any real configuration, because a damaged or hostile file can hold a list that holds itself, or 2^30
# kernels in a few lines.
DEEPEST = 32  # kernels inside one another
LARGEST = 1000  # values in all


def kernel_from_config(config: Any, own: Collection[type[Kernel]] = (), depth: int = 0) -> Kernel:
    """Make the kernel that `Kernel.config` described.

    A configuration names kl's own kernels by their names, and any other class as "package.module:Class". The caller
    must give the classes outside kl, because a configuration may come from a file, which does not get to say what code
    is imported.

    Args:
        config: what `Kernel.config` returned.
        own: classes outside kl that the configuration may name. A class of a script or notebook, whose module is called
            __main__, is known by its class name alone.
        depth: how many kernels this configuration is nested in; 0 for the outermost.

    Returns:
        A kernel equal to the one that `Kernel.config` described.

    Raises:
        InputError: it is no such configuration, names a class that was not given, or has parameters that the kernel
            does not take.

    Example:
        >>> from kl.kernels import Gaussian
        >>> kernel_from_config((2.0 * Gaussian(3.0)).config())
        Scaled(part=Gaussian(bandwidth=3.0), scale=2.0)
    """
    if depth == 0:
        names_in(config)
    if not isinstance(config, Mapping) or not isinstance(config.get("kernel"), str):
        received = f"only {sorted(map(str, config))}" if isinstance(config, Mapping) else f"a {type(config).__name__}"
        raise InputError(f'a kernel configuration must name its "kernel"; got {received}')
    name = config["kernel"]
    cls = _own_class(name, own) if ":" in name else named_class(name)
    given = {
        key: _with_kernels(value, own, depth)
        for key, value in config.items()
        if key != "kernel" and value is not None  # None means not given
    }
    check_parameters(name, cls, given, complete=True)
    try:
        return cls(**given)
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise InputError(
            f"kernel {name} does not take the parameters {given}: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error


def names_in(config: Any) -> set[str]:
    """The names of all kernels in a configuration, or in what should be one.

    Raises:
        InputError: it holds too many values, or itself.
    """
    found: set[str] = set()
    todo, seen = [config], 0
    while todo:
        value, seen = todo.pop(), seen + 1
        if seen > LARGEST:
            raise InputError(f"a kernel configuration must hold at most {LARGEST} values; this one holds more")
        if isinstance(value, Mapping):
            if isinstance(value.get("kernel"), str):
                found.add(value["kernel"])
            todo.extend(value.values())
        elif isinstance(value, list | tuple):
            todo.extend(value)
    return found


def own_classes(kernel: Kernel) -> set[type[Kernel]]:
    """The classes outside kl that a kernel is made of."""
    found = set() if is_ours(type(kernel)) else {type(kernel)}
    return found.union(*(own_classes(part) for part in _parts(kernel)))


def is_named(cls: type[Kernel], name: str) -> bool:
    """Whether the name in a configuration means this class."""
    ours = kernel_name(cls)
    if name == ours or ":" not in name or ":" not in ours:
        return name == ours
    (module, _, qualname), (own_module, _, own_qualname) = name.partition(":"), ours.partition(":")
    return "__main__" in (module, own_module) and qualname == own_qualname  # every script is called that


def comes_from(kernel: Kernel, given: Kernel) -> bool:
    """Whether `given` is this kernel, or becomes this kernel when `given.resolve` is called on some data."""
    if type(kernel) is not type(given):
        return False
    if not is_ours(type(given)) and type(given).resolve is not Kernel.resolve:
        return True  # the class resolves by a rule of its own, which cannot be checked here
    return all(_follows(getattr(kernel, f.name), getattr(given, f.name)) for f in fields(kernel))  # type: ignore[arg-type]


def _follows(value: Any, given: Any) -> bool:
    if isinstance(value, Kernel) and isinstance(given, Kernel):
        return comes_from(value, given)
    if isinstance(value, tuple) and isinstance(given, tuple):
        return len(value) == len(given) and all(map(_follows, value, given))
    return bool(value == given) or given == "auto"


def _parts(kernel: Kernel) -> Iterator[Kernel]:
    for field in fields(kernel):  # type: ignore[arg-type]
        value = getattr(kernel, field.name)
        yield from (
            item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, Kernel)
        )


def _own_class(name: str, own: Collection[type[Kernel]]) -> type[Kernel]:
    for cls in own:
        if is_named(cls, name):
            return cls
    module, _, qualname = name.partition(":")
    importable = f"mine:{qualname}, where mine.py holds that class" if module == "__main__" else name
    raise InputError(
        f"kernel {name} is none of kl's, and a file does not get to say what code runs: if you trust that class, name "
        f"it yourself with kernel={importable}; in Python pass the class"
    )


def _with_kernels(value: Any, own: Collection[type[Kernel]], depth: int) -> Any:
    """The value of a parameter, with the configurations nested in it replaced by kernels."""
    if depth > DEEPEST:
        raise InputError(f"a kernel configuration must be nested at most {DEEPEST} deep; this one is deeper")
    if isinstance(value, Mapping) and "kernel" in value:
        return kernel_from_config(value, own, depth + 1)
    if isinstance(value, list | tuple):
        return [_with_kernels(item, own, depth + 1) for item in value]
    return value
