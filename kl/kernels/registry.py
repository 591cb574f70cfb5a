"""Kernels by what a user types after `--kernel` or writes in Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kl.errors import InputError
from kl.kernels.configured import is_named, kernel_from_config, names_in, own_classes
from kl.kernels.kernel import Kernel, kernel_name
from kl.kernels.names import check_parameters, named_class
from kl.system.user_modules import import_user_class


def build_kernel(spec: str | Mapping[str, Any] | Kernel, **parameters: Any) -> Kernel:
    """Make a kernel from a name, from "package.module:Class", or from what `Kernel.config` returned.

    The module of "package.module:Class" is looked for in the current directory first (`kl.system.user_modules`), and
    its code runs. Pass only names that the user typed, never a name that a file holds. A configuration runs no code.

    Args:
        spec: one of `kernel_names()`; "package.module:Class" for a class of your own; a `config()` dict of kl's own
            kernels; or a kernel, which is returned as it is, or as a copy with the parameters replaced.
        **parameters: the kernel's parameters, which take precedence over those in `spec`. None means not given.

    Returns:
        The kernel.

    Raises:
        InputError: the name, the module or the class is unknown or no kernel, or a parameter is unknown, missing or out
            of its range.

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
        check_parameters(type(spec).__name__, type(spec), given)
        return replace(spec, **given)  # type: ignore[type-var]
    if isinstance(spec, Mapping):
        return kernel_from_config({**spec, **given})
    if not isinstance(spec, str):
        raise InputError(f"kernel must be a name, a configuration or a Kernel; got {spec!r}")
    cls = kernel_class(spec)
    check_parameters(spec, cls, given, complete=True)
    return cls(**given)


def kernel_class(spec: str) -> type[Kernel]:
    """The class that a name or "package.module:Class" means; for the latter the code of that module runs.

    Raises:
        InputError: the name or the class is unknown, or the class is no kernel.
    """
    return _load_class(spec) if ":" in spec else named_class(spec)


GivenKernel = Kernel | type[Kernel] | str
"""How a user gives the kernel of a file: as a kernel, as its class, by its name, or as "package.module:Class"."""


def given_kernels(given: GivenKernel | Sequence[GivenKernel] | None) -> list[Kernel | type[Kernel]]:
    """The kernels or classes of kernels that a user gave for a file.

    Raises:
        InputError: one is not a kernel, a class of kernels or the name of one.
    """
    items: list[Any] = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[arg-type]
    found: list[Kernel | type[Kernel]] = []
    for item in items:
        if isinstance(item, str):
            found.append(kernel_class(item))
        elif isinstance(item, Kernel) or _is_kernel_class(item):
            found.append(item)
        else:
            raise InputError(f"kernel must be a Kernel, a class of kernels or its name; got {item!r}")
    return found


def stored_kernel(config: Any, given: Sequence[Kernel | type[Kernel]] = ()) -> Kernel:
    """The kernel of a configuration that a file holds; classes outside kl must be given by the user.

    Args:
        config: what `Kernel.config` returned.
        given: the kernel itself, which replaces the configuration; or the classes outside kl that the configuration
            names; see `given_kernels`.

    Raises:
        InputError: `config` is no configuration, it names a class outside kl that was not given, or it does not name a
            class that was given.
    """
    classes: set[type[Kernel]] = set()
    for item in given:
        classes |= {type(item), *own_classes(item)} if isinstance(item, Kernel) else {item}
    names = names_in(config)
    for cls in classes:
        if not any(is_named(cls, name) for name in names):
            raise InputError(
                f"kernel must be what the file names, {', '.join(sorted(names)) or 'none'}; got {kernel_name(cls)}: "
                "give that, or leave it out where it is one of kl's"
            )
    if len(given) == 1 and isinstance(given[0], Kernel):
        return given[0]
    return kernel_from_config(config, classes)


def _load_class(spec: str) -> type[Kernel]:
    module, found = import_user_class(f"kernel {spec!r}", spec)
    module_name, _, class_name = spec.partition(":")
    if found is None:
        own = ", ".join(name for name, value in vars(module).items() if _is_kernel_class(value)) or "none"
        raise InputError(f"kernel {spec!r}: {module_name} has no class {class_name!r}; kernels in it: {own}")
    if not _is_kernel_class(found):
        raise InputError(f"kernel {spec!r}: {class_name} must be a subclass of kl.Kernel that defines its formula")
    return found


def _is_kernel_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Kernel) and not inspect.isabstract(value)
