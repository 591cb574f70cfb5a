"""The hardware and software that numbers were measured with."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("pytorch-lightning", "numpy", "scipy", "scikit-learn", "xrfm", "gpytorch", "pykeops")


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, memory, GPU, and the versions of the packages that compute."""
    import torch

    from kl.compiled import best_name
    from kl.system.memory import free_memory

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "free_memory_bytes": free_memory(),
        "compiled": best_name(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {name: version(name) for name in PACKAGES},
    }


def origin() -> dict[str, Any]:
    """The command that was typed, the commit of the code, and the date."""
    return {
        "command": shlex.join(["kl", *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def commit() -> str | None:
    """The commit of the code, with "+changes" if files differ from it; None outside a repository."""
    folder = Path(__file__).resolve().parents[2]
    try:
        if not (folder / ".git").exists():  # installed, perhaps inside someone else's repository
            return None
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor by name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
