"""C++ of our own, compiled when kl is installed: once for each kind of processor, of which the best is taken.

Where kl was installed without a C++ compiler, or the processor is not known, torch computes the same more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

log = logging.getLogger(__name__)

VERSION = 7  # of the functions, as patch_sums.cpp has it

# The libraries from the best down, with the flags of /proc/cpuinfo that each needs, and the value of
# ATEN_CPU_CAPABILITY, torch's own switch, that allows it.
AVX512 = ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl")
LIBRARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "_avx512vnni": ((*AVX512, "avx512_vnni"), "avx512"),
    "_avx512": (AVX512, "avx512"),
    "_avxvnni": (("avx2", "fma", "avx_vnni"), "avx2"),
    "_avx2": (("avx2", "fma"), "avx2"),
    "_baseline": ((), ""),
}
ALLOWED = {"avx2": ("avx2",), "default": (), "": ("avx2", "avx512")}


SIZE, ADDRESS, NUMBER, REAL = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
FORMULAS = ("distances", "gaussian", "laplacian", "matern32", "matern52")
"""Functions of squared distances s, with t = rate sqrt(s): s itself, exp(-rate s), exp(-t), (1 + t) exp(-t) and
(1 + t + t^2 / 3) exp(-t)."""
_FORMULA: dict[str, list[Any]] = {  # of distances, and of what they are computed from
    "": [ADDRESS, SIZE, REAL, NUMBER],
    "_of_integers": [ADDRESS, ADDRESS, ADDRESS, REAL, SIZE, SIZE, REAL, NUMBER, ADDRESS],
    "_of_floats": [ADDRESS, ADDRESS, ADDRESS, SIZE, SIZE, REAL, NUMBER],
}
_ROWS = [ADDRESS, SIZE, ADDRESS, SIZE, SIZE, ADDRESS, SIZE, NUMBER, ADDRESS]
ARGUMENTS: dict[str, list[Any]] = {
    "patch_sums": [
        *(ADDRESS, SIZE, SIZE, SIZE, ADDRESS, ADDRESS, SIZE, NUMBER, NUMBER, ADDRESS, ADDRESS),
        *(ADDRESS, ADDRESS, SIZE, ADDRESS, SIZE, NUMBER, ADDRESS),
    ],
    **{formula + of: arguments for formula in FORMULAS for of, arguments in _FORMULA.items()},
    "add_digits": [ADDRESS, ADDRESS, ADDRESS, SIZE, SIZE, NUMBER, NUMBER, ADDRESS],
    "distances_of_few": [ADDRESS, ADDRESS, SIZE, SIZE, SIZE, NUMBER, ADDRESS],
    "relu": [ADDRESS, ADDRESS, ADDRESS, SIZE, SIZE, NUMBER, NUMBER, ctypes.c_double, NUMBER],
    "eigenpro_values": [ADDRESS, SIZE, ADDRESS, SIZE, SIZE, SIZE, NUMBER, ADDRESS, SIZE, ADDRESS, ADDRESS],
    "eigenpro_residual": [ADDRESS, SIZE, SIZE, ADDRESS, ADDRESS, ADDRESS, ctypes.c_double, ADDRESS],
    "eigenpro_update": [
        *(ADDRESS, SIZE, ADDRESS, SIZE, SIZE, SIZE, NUMBER, ADDRESS, ADDRESS, SIZE),
        *(ADDRESS, REAL, ADDRESS, ADDRESS, ADDRESS),
    ],
    "are_rows": [ADDRESS, SIZE, SIZE],
    "add_rows": _ROWS,
    "add_rows_to_doubles": _ROWS,
    "dot_rows": [*_ROWS, SIZE],
}
"""The functions and the types of their arguments."""
RESULTS = {"are_rows": NUMBER, "eigenpro_residual": ctypes.c_double}
"""The types of what they return; the others return nothing."""


@functools.cache
def processor_flags() -> frozenset[str]:
    """The instruction sets of this CPU by the names of /proc/cpuinfo; none where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return frozenset(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())


def usable_libraries() -> list[str]:
    """The libraries that this CPU can run, the best first; `_baseline` on processors that are not x86 alone."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["_baseline"]
    allowed = ALLOWED.get(os.environ.get("ATEN_CPU_CAPABILITY", ""), ("avx2", "avx512"))
    return [name for name, (flags, level) in LIBRARIES.items() if level in allowed and processor_flags() >= {*flags}]


@functools.cache
def load(name: str) -> ctypes.CDLL | None:
    """A library with the types of its functions; None if it was not compiled."""
    found = importlib.util.find_spec(f"{__name__}.{name}")
    if found is None or found.origin is None:
        return None
    try:
        code = ctypes.CDLL(found.origin)
        if code.version() != VERSION:
            raise OSError(f"{found.origin} is of another version of kl: install kl again")
        for function, arguments in ARGUMENTS.items():
            getattr(code, function).argtypes = arguments
            getattr(code, function).restype = RESULTS.get(function)
    except (OSError, AttributeError) as error:
        log.warning("compiled code cannot be used, and torch computes more slowly in its place: %s", error)
        return None
    return code


def best_name() -> str | None:
    """The name of the best library for this CPU that was compiled; None if there is none."""
    return next((name for name in usable_libraries() if load(name) is not None), None)


@functools.cache
def best() -> ctypes.CDLL | None:
    """The best library for this CPU that was compiled; None if there is none."""
    name = best_name()
    return None if name is None else load(name)


def code_for(*values: Tensor) -> ctypes.CDLL | None:
    """The best library, if it can work on these values: contiguous float32 on a CPU; None leaves them to torch.

    Autograd, torch.jit.trace and torch.compile do not see what compiled code does, and tensors of other classes may
    have no memory, so torch also computes what one of them has to follow.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return None
    return best() if all(map(_is_plain, values)) else None


def _is_plain(values: Tensor) -> bool:
    if values.device.type != "cpu" or values.dtype != torch.float32 or not values.is_contiguous():
        return False
    followed = (values.requires_grad and torch.is_grad_enabled()) or unpack_dual(values).tangent is not None
    return not followed and type(values) in (Tensor, torch.nn.Parameter)
