"""Work in a process of its own, with a time limit: a crash or a hang there is a line in the table here."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

from recipes.bench.record import one_line


@dataclass(frozen=True)
class Outcome:
    """What a child process said: its last line of standard output as JSON, or why there is none."""

    values: dict[str, Any]
    error: str | None


def run_child(command: list[str], time_limit: float, **environment: str) -> Outcome:
    """Run a command that ends by printing one JSON object, whose "error" is not null where it failed.

    `environment` are variables that it has beside this process's.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired:
        return Outcome({}, f"timed out after {time_limit:g} s")
    except OSError as error:
        return Outcome({}, one_line(error))
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    try:
        values = json.loads(lines[-1]) if lines else None
    except ValueError:
        values = None
    if done.returncode == 0 and isinstance(values, dict):
        return Outcome(values, values.get("error"))
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    died = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Outcome({}, f"{died}: {said[-1] if said else 'nothing said'}"[:200])
