"""Peak memory of training runs, each in a process of its own, against the budgets they were given."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from kl.rows.int8 import encode
from recipes.bench import record
from recipes.bench.child import run_child
from recipes.bench.parts.training import budget_for
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData

KERNEL = "gaussian"
EPOCHS = 2


def memory_tasks(bench: Bench) -> list[Task]:
    """One task for each budget."""
    n, d = min(bench.sizes.train, len(bench.data.x)), bench.data.x.shape[1]
    data = bench.data.first(n)
    none, everything = (budget_for(data, keep, bench.sizes.subsample) for keep in (False, True))
    budgets = {"none of K": none, "half of K": none + 2 * n * n, "all of K": everything}
    return [
        Task(
            "memory",
            f"budget for {name}",
            bench.guess(n, d, EPOCHS, 8),
            lambda name=name, budget=budget: [measure_memory(bench, data, name, budget)],  # type: ignore[misc]
        )
        for name, budget in budgets.items()
    ]


def measure_memory(bench: Bench, data: BenchData, name: str, budget: int) -> Measurement:
    """The peak beyond what Python, torch and Lightning take themselves, as a ratio to the budget."""
    import numpy as np

    labels = data.labels if data.labels is not None else data.y[:, 0]
    with tempfile.TemporaryDirectory(prefix="kl-bench-") as folder:
        file, spec = Path(folder, "rows.npz"), Path(folder, "spec.json")
        np.savez(file, x=data.x.numpy(), y=data.y.numpy(), labels=labels.numpy())
        spec.write_text(
            json.dumps(
                {
                    "file": str(file),
                    "classes": data.labels is not None,
                    "kernel": bench.kernels[KERNEL].config(),
                    "epochs": EPOCHS,
                    "budget": budget,
                    "accelerator": bench.accelerator,
                    "seed": bench.seed,
                    "subsample": bench.sizes.subsample,
                }
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-P", "-m", "recipes.bench.parts.memory_child", str(spec)]
        outcome = run_child(command, bench.sizes.time_limit)
    values = outcome.values
    used = None if outcome.error else values["peak_bytes"] - values["before_bytes"]
    return Measurement(
        "memory",
        f"{KERNEL}, budget for {name}",
        len(data.x),
        data.x.shape[1],
        ratio=None if used is None else used / budget,
        against="the budget",
        target=record.MEMORY,
        error=outcome.error,
        detail={"budget_bytes": budget, "used_bytes": used, "coded": encode(data.x) is not None, **values},
    )
