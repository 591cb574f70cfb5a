"""Checks of numbers and choices: each returns the value as a plain Python value, or raises with what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch

from kl.errors import InputError


def check_positive(name: str, value: Any, more: str = "", remedy: str = "") -> float:
    """`value` as a float, if it is a finite number above 0.

    Args:
        name: what the message calls the value.
        value: the value.
        more: further values that the caller allows, for the message.
        remedy: what to do, for the message.

    Raises:
        InputError: the value is anything else.
    """
    if not _is_finite(value) or value <= 0:
        raise InputError(f"{name} must be a finite number above 0 {more}".rstrip() + _got(value, remedy))
    return float(value)  # numpy's floats would not load from a checkpoint with weights_only=True


def check_not_negative(name: str, value: Any, remedy: str = "") -> float:
    """`value` as a float, if it is a finite number, 0 or above.

    Args:
        name: what the message calls the value.
        value: the value.
        remedy: what to do, for the message.

    Raises:
        InputError: the value is anything else.
    """
    if not _is_finite(value) or value < 0:
        raise InputError(f"{name} must be a finite number, 0 or above{_got(value, remedy)}")
    return float(value)


def check_one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`, if it is one of the allowed values.

    Raises:
        InputError: the value is anything else.
    """
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def check_count(name: str, value: Any) -> int:
    """`value` as an int, if it is a whole number, 1 or above.

    Raises:
        InputError: the value is anything else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number, 1 or above; got {value!r}")
    return int(value)


def check_count_or_none(name: str, value: Any, or_none: str) -> int | None:
    """`value` as an int, if it is a whole number, 1 or above; None, which means `or_none`, stays None.

    Raises:
        InputError: the value is anything else.
    """
    if value is None:
        return None
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise InputError(
            f"{name} must be a whole number of at least 1, or left out (None) for {or_none}; got {value!r}"
        )
    return count


def check_seed(name: str, value: Any) -> int:
    """`value` as an int, if it is a whole number from 0 to 2^63 - 1.

    Raises:
        InputError: the value is anything else.
    """
    try:
        seed = operator.index(value)
    except TypeError:
        seed = -1
    if not 0 <= seed < 2**63:
        raise InputError(f"{name} must be a whole number from 0 to 2^63 - 1; got {value!r}")
    return seed


def check_device(name: str, value: Any) -> torch.device:
    """`value` as a device, if torch can compute there in float64.

    Raises:
        InputError: the value names no device, or one that this computer does not have.
    """
    try:
        return torch.empty(0, dtype=torch.float64, device=value).device
    except (RuntimeError, TypeError, AssertionError) as error:  # AssertionError: this torch was built without CUDA
        found = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise InputError(f"{name} must be one that torch can use here, of {found}; got {value!r}") from error


def plain(value: Any) -> Any:
    """A NumPy or torch scalar as a plain number, because checkpoints are loaded with weights_only=True.

    An array of more numbers becomes a list, which the checks above refuse.
    """
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError):  # torch's and NumPy's answers to other than one number
        return value.tolist()


def _got(value: Any, remedy: str) -> str:
    return f"; got {value!r}{remedy and f': {remedy}'}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
