"""The names of kl's own kernels, and the check of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from kl.errors import InputError
from kl.kernels.kernel import Kernel, is_ours


def kernel_names() -> list[str]:
    """The names that `build_kernel` and `--kernel` know.

    Returns:
        The names in the order in which the kernels are defined, then the aliases. Sums, products and multiples have no
        name that a user could type.

    Example:
        >>> import kl
        >>> kl.kernel_names()[:2], "relu-ntk" in kl.kernel_names()
        (['gaussian', 'laplacian'], True)
    """
    typed = [cls for cls in _classes().values() if not cls.is_combination]
    return [*(cls.name for cls in typed), *(alias for cls in typed for alias in cls.aliases)]


def named_class(name: str) -> type[Kernel]:
    """The class of the kl kernel that has this name or alias.

    Raises:
        InputError: no kernel has this name.
    """
    known = _classes()
    known |= {alias: cls for cls in known.values() for alias in cls.aliases}
    if name in known:
        return known[name]
    close = get_close_matches(name.lower().replace("_", "-"), kernel_names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise InputError(
        f"unknown kernel {name!r}.{hint} Known: {', '.join(kernel_names())}; "
        "or package.module:Class for a kernel of your own"
    )


def _classes() -> dict[str, type[Kernel]]:
    """kl's own kernels by their names: every class in kl.kernels that has a name."""
    return {cls.name: cls for cls in _below(Kernel) if is_ours(cls) and cls.name}


def _below(cls: Any) -> Iterator[type[Kernel]]:
    """All subclasses, in the order in which they are defined."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _below(subclass)


def check_parameters(name: str, cls: type[Kernel], given: Mapping[str, Any], complete: bool = False) -> None:
    """Check that a kernel has the given parameters and, with `complete`, that it needs no others.

    Raises:
        InputError: a parameter is unknown, or a needed one is missing.
    """
    accepted = inspect.signature(cls).parameters
    if unknown := [str(key) for key in given if key not in accepted]:
        raise InputError(
            f"kernel {name} has no parameter {', '.join(unknown)}; it accepts {', '.join(accepted) or 'none'}"
        )
    missing = [key for key, value in accepted.items() if value.default is value.empty and key not in given]
    if missing and complete:
        raise InputError(f"kernel {name} needs {', '.join(missing)}; it accepts {', '.join(accepted)}")
