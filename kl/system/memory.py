"""Memory: how much is free, how much was used, and how users write it."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from kl.errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
KEPT_ROWS = "K(X, X), kept rows"  # the name of an item of `TrainingMemory`
UNLIMITED = 2**60  # bytes; control groups without a limit state a number beyond this


@dataclass(frozen=True)
class TrainingMemory:
    """The memory plan of a run: bytes by item, and which kernel values the run keeps.

    The plan does not count Python, its libraries and the test set, about 1 GB together.
    """

    budget: int
    items: dict[str, int]
    keep_columns: bool
    """Whether K(X, X_S) is kept."""
    kept_rows: int
    """Rows of K(X, X) that are kept."""

    @property
    def total(self) -> int:
        """Bytes of all items."""
        return sum(self.items.values())

    @property
    def before_training(self) -> int:
        """Bytes of all items but the kept rows of K, which are computed only when training starts."""
        return self.total - self.items.get(KEPT_ROWS, 0)


def parse_memory(text: str | int, device: torch.device | str = "cpu", sharing: int = 1) -> int:
    """Bytes from "400MB", "8GB", a number of bytes, or "auto": half of what is free on the device now.

    Args:
        text: what the user wrote.
        device: where the memory is needed.
        sharing: processes that take the same amount; "auto" divides that half among them.

    Raises:
        InputError: the text is none of these, or not above 0.
    """
    if text == "auto":
        return max(1, free_memory(device) // 2 // sharing)
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)", str(text).strip())
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise InputError(
            f"memory must be auto, a number of bytes, or a number with KB, MB or GB; got {text!r}: try memory='4GB'"
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
    """Bytes that this process could still take on the device."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE) if meminfo.exists() else None
    # Without /proc/meminfo there is no portable way to ask without another dependency; 4 GB is what any laptop has.
    available = int(found[1]) * 1024 if found else 4 * 10**9
    return max(1, min([available, *(size for size in (*_free_in_groups(), *_free_in_limits()) if size is not None)]))


def _free_in_limits(status: Path = Path("/proc/self/status")) -> list[int | None]:
    """Bytes that the limits of this process (`ulimit -v`, `ulimit -d`) leave free, None for a limit that is not set.

    The first limit counts addresses, used or not, so addresses that libraries only reserve are subtracted.

    Args:
        status: the process's own use, lines of "name: number kB".
    """
    if not status.exists():  # only Linux tells the use
        return []
    text = status.read_text()
    free: list[int | None] = []
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, used = resource.getrlimit(limit)[0], re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        known = most != resource.RLIM_INFINITY and used is not None
        free.append(max(0, most - int(used[1]) * 1024) if known and used else None)
    return free


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int | None]:
    """Bytes free in each control group that the process is part of, None for a group without a limit.

    A container sees the whole machine's memory in /proc/meminfo but may use only what its groups allow. Pages that only
    hold a copy of a file count as free, as in /proc/meminfo.

    Args:
        root: where the groups are mounted.
        own: the groups of the process, lines of "number:controllers:path".
    """
    if not own.exists():  # not on Linux
        return []
    free = []
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.lstrip("/")
        # The path may name a group of the host that the container does not see; the container's group is then the top.
        free += [_free_in(each, *names) for each in (group, *group.parents) if each == top or top in each.parents]
    return free


def _free_in(group: Path, limit: str, used: str, cache: str) -> int | None:
    """Limit less use of one control group in bytes, None if it has no limit or cannot be read."""
    try:
        most = (group / limit).read_text().strip()
        if not most.isdigit() or int(most) >= UNLIMITED:  # version 2 writes "max", version 1 a number beyond all memory
            return None
        stat = re.search(rf"^{cache} (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        return max(0, int(most) - int((group / used).read_text()) + (int(stat[1]) if stat else 0))
    except (OSError, ValueError):
        return None


def peak_memory(device: torch.device | str = "cpu") -> int:
    """The most bytes held so far: by the process on a CPU, by torch's allocator on a GPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, whose value of a child starts with the peak of its parent.
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if peak:
            return int(peak[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, Linux kilobytes
