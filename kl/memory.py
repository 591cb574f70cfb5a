"""Memory: how much there is, how much was used, and how users write it."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

from kl.errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_memory(text: str | int, device: torch.device | str = "cpu") -> int:
    """Bytes from "400MB", "8GB", a number of bytes, or "auto": half of what is free on the device now.

    Raises:
        InputError: the text is none of these, or not above 0.
    """
    if text == "auto":
        return free_memory(device) // 2
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)", str(text).strip())
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise InputError(
            f"memory must be auto, a number of bytes, or a number with KB, MB or GB; got {text!r}: try --memory 4GB"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_memory(size: int) -> str:
    """Bytes as users read them: "72 B", "1.3 GB"."""
    for unit in ("B", "KB", "MB"):
        if size < 1000 * _UNITS[unit]:
            break
    else:
        unit = "GB"
    return f"{size / _UNITS[unit]:.3g} {unit}"


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that a process could still take on the device."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        if available:
            return int(available[1]) * 1024
    return 4 * 10**9  # no portable way to ask without another dependency: what any laptop has


def peak_memory(device: torch.device | str = "cpu") -> int:
    """The most bytes held so far: of the process on a CPU, of torch's allocator on a GPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
