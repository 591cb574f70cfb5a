"""What the plans of all solvers have in common: the data and the memory, the table of it, and words for seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl.machines.machine import TrainedExpansion


def described(
    machine: TrainedExpansion, datamodule: KernelDataModule, n: int | None, epochs: int, device: str
) -> dict[str, Any]:
    """The data, the kernel and the memory of a prepared machine."""
    from recipes.output.report import kernel_results

    memory = machine.memory
    return {
        "data": datamodule.name,
        "data_source": datamodule.source,
        "solver": machine.method,
        **kernel_results(machine.kernel),
        "ridge": machine.ridge,
        "n": n,
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "epochs": epochs,
        "device": device,
        "ranks": machine.ranks.size,
        "memory_items": dict(memory.items),
        "memory_total": memory.total,
        "memory_budget": memory.budget,
    }


def print_memory(results: dict[str, Any], machine: TrainedExpansion) -> None:
    """The table of memory, under the title of the plan."""
    from kl.system.memory import format_memory
    from recipes.output.report import print_table, problem_text

    r = results
    print_table(
        f"{r['data']}  n={r['n']} d={r['d']} c={r['c']}  {problem_text(machine)}  on {r['device']}",
        ("memory" if r["ranks"] == 1 else f"memory of each of {r['ranks']} ranks", ""),
        [(name, format_memory(size)) for name, size in r["memory_items"].items()]
        + [("total", format_memory(r["memory_total"])), ("budget", format_memory(r["memory_budget"]))],
    )


def parameter_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The parameters of EigenPro, by rows of a table."""
    return [
        ("batch m", f"{results['batch_size']}"),
        ("critical batch m*", f"{results['critical_batch_size']}"),
        ("damped directions q", f"{results['top_q']}"),
        ("subsample s", f"{results['subsample']}"),
        ("step size", f"{results['step_size']:.4g}"),
    ]


def traffic_row(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What several ranks exchange, one row; none of a single one. The seconds of a plan do not count it."""
    from kl.system.memory import format_memory

    return [("sent to each rank in a step", format_memory(results["bytes_per_step"]))] if results["ranks"] > 1 else []
