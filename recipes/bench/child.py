"""Work in a child process with a time limit, so that its crash or hang is only a line in the table."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

from recipes.bench.record import one_line


@dataclass(frozen=True)
class Outcome:
    """The last line of a child process's standard output as JSON, or the reason why there is none."""

    values: dict[str, Any]
    error: str | None


def run_child(command: list[str], time_limit: float, **environment: str) -> Outcome:
    """Run a command that ends by printing one JSON object, whose "error" is not null if the command failed.

    `environment` is added to the environment variables of this process.
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
