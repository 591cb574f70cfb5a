"""Run the numeric tests as other processors would compute them: `python tests/cpus.py [--core]`.

torch chooses its own loops by ATEN_CPU_CAPABILITY and oneDNN its matrix products by ONEDNN_MAX_CPU_ISA; both can be
held below what the processor has. A sum taken by other units, or by more threads, has other last bits: no test may hang
on them. Without VNNI int8 products are not exact, and the tests of 8-bit features are skipped.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("default", "avx2", "avx512")
NEEDS = {
    "AVX2": "avx2",
    "AVX512_CORE": "avx512",
    "AVX512_CORE_VNNI": "avx512",
}  # of oneDNN's names, what torch calls that level


class Setting(NamedTuple):
    """The units and threads of one run; None leaves the choice to the library."""

    aten: str | None
    onednn: str | None
    threads: int

    def __str__(self) -> str:
        return f"ATEN_CPU_CAPABILITY={self.aten or '-'} ONEDNN_MAX_CPU_ISA={self.onednn or '-'} threads={self.threads}"

    def environment(self) -> dict[str, str]:
        """This process's variables, with those of the setting."""
        unset = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
        ours = {
            "ATEN_CPU_CAPABILITY": self.aten,
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "KL_TEST_THREADS": str(self.threads),
        }
        return {k: v for k, v in os.environ.items() if k not in unset} | {k: v for k, v in ours.items() if v}

    def runs_here(self) -> bool:
        """Whether the processor has the units."""
        has = LEVELS.index(torch.backends.cpu.get_cpu_capability().lower())
        return all(LEVELS.index(level) <= has for level in (self.aten or "default", NEEDS.get(self.onednn, "default")))


# Every value of each variable, with one thread and with two; what the processor chooses with one thread is `make test`.
SETTINGS = (
    Setting("default", "AVX2", 1),
    Setting("avx2", "AVX2", 2),
    Setting("avx2", None, 1),
    Setting("avx512", "AVX512_CORE", 1),
    Setting("default", "AVX512_CORE_VNNI", 2),
    Setting(None, None, 2),
)
CORE = (Setting("default", "AVX2", 2), Setting("avx2", "AVX512_CORE", 1))
CORE_FILES = (
    "tests/kl/kernels/test_kernels.py",
    "tests/kl/kernels/test_relu.py",
    "tests/kl/products/test_blocks.py",
    "tests/kl/products/test_kept.py",
    "tests/kl/rows/test_int8.py",
    "tests/kl/exact/test_interpolate.py",
    "tests/kl/exact/test_conjugate_gradients.py",
    "tests/kl/eigenpro/test_fitted.py",
    "tests/kl/eigenpro/test_optimizer.py",
)


def main() -> int:
    """Exit code 1 where a test fails under any setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", action="store_true", help="two settings and the files nearest to the products")
    core = parser.parse_args().core
    files = CORE_FILES if core else ("tests",)
    failed = []
    for setting in CORE if core else SETTINGS:
        if not setting.runs_here():
            print(f"{setting}: this processor has no such units", flush=True)
            continue
        start = time.monotonic()
        count = max(1, min(4, (os.cpu_count() or 1) // setting.threads))
        workers = ["--numprocesses", str(count), "--dist", "loadfile"]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "numeric and not slow", *workers, *files]
        done = subprocess.run(command, cwd=ROOT, env=setting.environment(), capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [done.stderr]
        print(f"{setting}: {lines[-1].strip('= ')} ({time.monotonic() - start:.0f} s)", flush=True)
        if done.returncode:
            print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
            failed.append(setting)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
