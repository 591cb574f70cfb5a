"""Our own C++ sources, compiled for this processor by the compiler that the machine has, if it has one."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O2", "-fwrapv", "-shared", "-fPIC")  # -fwrapv: int32 sums wrap round
NATIVE = ("-march=native",)
PATIENCE = 120  # seconds


class NotCompiledError(Exception):
    """A source could not be compiled or loaded; the message says why in one line."""


def compiled(source: Path, target: Sequence[str] = NATIVE) -> ctypes.CDLL:
    """The functions of a C++ file, compiled in about a second.

    The compiler is `$CXX`, or the first of c++, g++ and clang++ that is found. The library lies in a new folder that is
    deleted again, so that no process ever loads what another may have written.

    Args:
        source: the file.
        target: the compiler's options for the processor.

    Raises:
        NotCompiledError: there is no compiler, it fails, or what it made cannot be loaded.
    """
    named = os.environ.get("CXX")
    found = [path for name in ([named] if named else COMPILERS) if (path := shutil.which(name))]
    if not found:
        raise NotCompiledError(f"there is no compiler {named or ', '.join(COMPILERS)}")
    with tempfile.TemporaryDirectory(prefix="kl-") as folder:
        library = Path(folder) / f"{source.stem}.so"
        command = [found[0], *FLAGS, *target, "-o", str(library), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
                raise NotCompiledError(f"{found[0]} fails: {lines[0] if lines else f'exit code {done.returncode}'}")
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotCompiledError(f"{source.name} cannot be compiled or loaded: {error}") from error
