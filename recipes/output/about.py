"""What a report of a fault needs to say: versions, the processor and its units, threads, memory, and devices."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from recipes.output.hardware import commit, cpu_model, version

LIBRARIES = ("pytorch-lightning", "torchmetrics", "torchvision", "numpy", "scipy", "scikit-learn", "pandas")
UNITS = {
    "x86": {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx512_vnni": "AVX-512 VNNI",
        "avx512_bf16": "AVX-512 BF16",
        "avx_vnni": "AVX-VNNI",
        "amx_int8": "AMX int8",
        "amx_bf16": "AMX bfloat16",
    },
    "arm": {
        "asimd": "NEON",
        "asimddp": "dot products",
        "i8mm": "int8 matrices",
        "bf16": "bfloat16",
        "sve": "SVE",
        "sme": "SME",
    },
}
"""Units that decide how fast kl computes: their flags in /proc/cpuinfo, and how people call them."""


def about_lines() -> list[str]:
    """The lines that `kl --version` prints; the first has the version of kl alone."""
    from kl import __version__

    facts = {
        "commit": commit(),  # None where kl is installed
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **_of_torch(),
        "packages": ", ".join(f"{name} {version(name) or 'not installed'}" for name in LIBRARIES),
    }
    return [f"kl {__version__}", *(f"{name + ':':<11}{value}" for name, value in facts.items() if value)]


def _of_torch() -> dict[str, str]:
    """What is known through torch; a torch that cannot be imported says why, because that may be the fault itself."""
    try:
        import torch

        from kl.compiled import best_name
        from kl.system.memory import format_memory, free_memory
        from kl.system.wording import counted
    except (ImportError, OSError) as error:
        return {"torch": f"cannot be imported: {' '.join(str(error).split())}", "CPU": cpu_model()}
    cores = os.cpu_count()
    threads = f"{counted(cores, 'core') if cores else 'unknown cores'}, {counted(torch.get_num_threads(), 'thread')}"
    return {
        "torch": str(torch.__version__),
        "CPU": f"{cpu_model()}; {threads} of torch",
        "CPU units": f"{cpu_units()}; torch takes {torch.backends.cpu.get_cpu_capability()}",
        "compiled": (
            best_name() or "none: kl was installed without a C++ compiler, or the processor is not known"
        ).strip("_"),
        "memory": f"{format_memory(free_memory())} free",
        "devices": _devices(),
    }


def cpu_units(info: Path = Path("/proc/cpuinfo")) -> str:
    """The units of the processor that are there, and those that are not.

    Args:
        info: what Linux writes of the processor, a line "flags : ..." (x86) or "Features : ..." (ARM).
    """
    text = info.read_text() if info.exists() else ""
    found = re.search(r"^(flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    if found is None:
        return f"not known, because {platform.system() or 'this system'} does not list them in {info}"
    units, flags = UNITS["x86" if found[1] == "flags" else "arm"], set(found[2].split())
    seen, missing = ([name for flag, name in units.items() if (flag in flags) is wanted] for wanted in (True, False))
    return f"{', '.join(seen) or 'none'} (not seen: {', '.join(missing) or 'none'})"


def _devices() -> str:
    """The accelerators that torch sees."""
    import torch

    from kl.system.memory import format_memory

    names = []
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        names.append(f"cuda:{i} {facts.name}, {format_memory(facts.total_memory)}")
    if names:
        names.append(f"CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        names.append("MPS, which kl does not use")
    return "; ".join(names) or "the CPU alone (no CUDA device, no MPS)"
