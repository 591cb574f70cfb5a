"""Plant each fault in a copy of the project and run the tests that must find it.

`PYTHONPATH=.:tests python -m mutants`, or with names (or parts of names) of faults or areas: `python -m mutants exact`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants import ROOT, Mutant
from mutants.areas import AREAS

FOLDERS = ("kl", "datamodules", "callbacks", "recipes", "tests", "docs")
TIMEOUT = 600  # seconds that the tests of one fault may take


def main() -> int:
    """Exit code 1 where a fault was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of faults or areas; default: all")
    wanted = parser.parse_args().names
    chosen = [
        mutant
        for area, mutants in AREAS.items()
        for mutant in mutants
        if not wanted or any(name in f"{area}: {mutant.name}" for name in wanted)
    ]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "Makefile"):
            shutil.copy(ROOT / name, copy / name)
        for count, mutant in enumerate(chosen, start=1):
            start = time.monotonic()
            found = _is_found(copy, mutant)
            word = "found" if found else "SURVIVED"
            print(f"[{count}/{len(chosen)}] {word} in {time.monotonic() - start:.0f} s: {mutant.name}", flush=True)
            if not found:
                survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults found")
    return 1 if survivors else 0


def _is_found(copy: Path, mutant: Mutant) -> bool:
    """Whether a test fails, and not for want of tests or of a file that can be imported."""
    target = copy / mutant.file
    sound = target.read_text(encoding="utf-8")
    target.write_text(mutant.planted(), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
        *shlex.split(mutant.tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("KL_DATA_DIR", str(ROOT.parent / "shared" / "data"))
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return True  # a fault that hangs shows
    finally:
        target.write_text(sound, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
        )
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
