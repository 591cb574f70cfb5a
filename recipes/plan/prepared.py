"""The common parts of all solvers' plans: the planned run, its memory, and rows of the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl.machines.machine import TrainedExpansion

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, header, rows


@dataclass(frozen=True)
class PreparedRun:
    """A training run whose data are read and whose machine has its parameters."""

    datamodule: KernelDataModule
    epochs: int
    device: str
    memory: str | None
    """The value of --memory; None if the exact limit is left out."""
    seconds_reading_data: float
    seconds_planning: float

    @property
    def seconds_spent(self) -> float:
        """Seconds until the machine had its parameters, with those of reading the data."""
        return self.seconds_reading_data + self.seconds_planning


@dataclass(frozen=True)
class RunForecast:
    """A solver's forecast of a prepared run, besides its memory and its parameters."""

    results: dict[str, Any]
    """The values for --json; names of seconds begin with seconds_."""
    tables: Callable[[dict[str, Any]], list[Table]]
    """Makes the tables for people, which follow the table of the memory, from all results."""


def plan_memory(machine: TrainedExpansion, run: PreparedRun) -> RunForecast:
    """The plan of a solver without a forecast of its own: its parameters, and the seconds spent so far."""
    from recipes.output.report import readable_seconds

    def tables(results: dict[str, Any]) -> list[Table]:
        chosen = [(name.replace("_", " "), f"{value}") for name, value in machine.parameters_chosen.items()]
        times = [("data and plan", readable_seconds(run.seconds_spent)), ("an epoch", "not predicted for this solver")]
        return [("training", ("", ""), [*chosen]), ("predicted time", ("", ""), [*times])]

    return RunForecast({"seconds_planning": run.seconds_spent}, tables)


def described(machine: TrainedExpansion, run: PreparedRun) -> dict[str, Any]:
    """The data, the kernel and the memory of a prepared machine."""
    from recipes.output.report import kernel_results

    memory, datamodule = machine.memory, run.datamodule
    return {
        "data": datamodule.name,
        "data_source": datamodule.source,
        "solver": machine.method,
        **kernel_results(machine.kernel),
        "ridge": machine.ridge,
        "n": datamodule.num_rows,
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "epochs": run.epochs,
        "device": run.device,
        "ranks": machine.ranks.size,
        "memory_items": dict(memory.items),
        "memory_total": memory.total,
        "memory_budget": memory.budget,
    }


def memory_table(results: dict[str, Any], machine: TrainedExpansion) -> Table:
    """The bytes by item, under the title of the plan."""
    from kl.system.memory import format_memory
    from recipes.output.report import problem_text

    r = results
    items = [(name, format_memory(size)) for name, size in r["memory_items"].items()]
    return (
        f"{r['data']}  n={r['n']} d={r['d']} c={r['c']}  {problem_text(machine)}  on {r['device']}",
        ("memory" if r["ranks"] == 1 else f"memory of each of {r['ranks']} ranks", ""),
        [*items, ("total", format_memory(r["memory_total"])), ("budget", format_memory(r["memory_budget"]))],
    )


def parameter_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The parameters of EigenPro, by rows of a table."""
    return [
        ("batch m", f"{results['batch_size']}"),
        ("critical batch m*", f"{results['critical_batch_size']}"),
        ("damped directions q", f"{results['top_q']}"),
        ("subsample s", f"{results['subsample']}"),
        ("step size", f"{results['step_size']:.4g}"),
    ]


def traffic_row(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row with the bytes that ranks exchange, which a plan's seconds do not count; no row for a single rank."""
    from kl.system.memory import format_memory

    return [("sent to each rank in a step", format_memory(results["bytes_per_step"]))] if results["ranks"] > 1 else []


def time_table(
    results: dict[str, Any],
    parts: list[tuple[str, float | None]],  # None: not predicted
) -> Table:
    """The predicted seconds by part, and in total."""
    from kl.system.wording import counted
    from recipes.output.report import readable_seconds

    rows = [*parts, (f"all of it, {counted(results['epochs'], 'epoch')}", results["seconds_total"])]
    return "predicted time", ("", ""), [(name, "" if s is None else readable_seconds(s)) for name, s in rows]
