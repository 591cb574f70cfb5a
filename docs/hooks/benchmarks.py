"""The tables of `kl bench` of record: every measurement of each machine, and every set of `kl bench tables`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments import table

from recipes.bench.output import HEADER, TITLES, row_of
from recipes.bench.tables.output import loss_text

BENCH = Path(__file__).resolve().parents[2] / "lightning_logs" / "reference" / "bench"
RUNS = (
    "epochs-epyc/results.json",
    "epochs-epyc-60000/results.json",
    "growth/results.json",
    "epochs/results.json",
    "results.json",
    "general/results.json",
)


def measurements() -> str:
    """A section for each run of record, with a table for each of its parts."""
    return "\n\n".join(run(json.loads((BENCH / name).read_text(encoding="utf-8"))) for name in RUNS)


def run(record: dict[str, Any]) -> str:
    """The tables of one run, under its machine."""
    machine, parts = record["machine"], [each["part"] for each in record["measurements"]]
    texts = [
        f"### {machine['cpu']}, {', '.join(dict.fromkeys(part for part in parts if part != 'limit'))}",
        f"{machine['cores']} cores, torch {machine['torch']}, commit {record['commit'][:7]}, {record['date'][:10]}. "
        f"Command: `{record['command']}`",
    ]
    for part in dict.fromkeys(parts):
        rows = [row_of({"mm_ratio": None} | each) for each in record["measurements"] if each["part"] == part]
        used = [i for i in range(len(HEADER)) if i == 0 or any(row[i] for row in rows)]
        texts += [f"**{TITLES[part]}**", table([HEADER[i] for i in used], [[row[i] for i in used] for row in rows])]
    return "\n\n".join(texts)


def sets() -> str:
    """Test losses of every method on every set, the best of each set with a star."""
    record = json.loads((BENCH / "tables" / "results.json").read_text(encoding="utf-8"))
    found = {(each["set"], each["method"]): each for each in record["summary"]}
    methods = record["ranks"]["methods"]
    rows = [
        [name, facts["metric"], str(facts["train_rows"]), *(loss_text(found[name, each], found) for each in methods)]
        for name, facts in record["sets"].items()
    ]
    return table(["set", "metric", "n", *methods], rows)
