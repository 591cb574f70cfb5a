"""The names of kl's own kernels, and what their parameters are checked with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kl.errors import InputError
from kl.kernels.inner_product import Polynomial
from kl.kernels.kernel import Kernel, Product, Scaled, Sum
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


def named_class(name: str) -> type[Kernel]:
    """The class of one of kl's own kernels.

    Raises:
        InputError: there is none of this name.
    """
    known = _NAMED | _ALIASES | _COMBINING
    if name in known:
        return known[name]
    close = get_close_matches(name.lower().replace("_", "-"), kernel_names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise InputError(
        f"unknown kernel {name!r}.{hint} Known: {', '.join(kernel_names())}; "
        "or package.module:Class for a kernel of your own"
    )


def check_parameters(name: str, cls: type[Kernel], given: Mapping[str, Any], complete: bool = False) -> None:
    """Check that a kernel has these parameters and, if they are to be complete, that it needs no others.

    Raises:
        InputError: it has not, or does.
    """
    accepted = inspect.signature(cls).parameters
    if unknown := [str(key) for key in given if key not in accepted]:
        raise InputError(
            f"kernel {name} has no parameter {', '.join(unknown)}; it accepts {', '.join(accepted) or 'none'}"
        )
    missing = [key for key, value in accepted.items() if value.default is value.empty and key not in given]
    if missing and complete:
        raise InputError(f"kernel {name} needs {', '.join(missing)}; it accepts {', '.join(accepted)}")
