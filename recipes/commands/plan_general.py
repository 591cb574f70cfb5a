"""The part of `kl plan` that is about general kernel models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import GeneralKernelMachine
    from kl.machines.machine import TrainedExpansion


def plan_general(
    machine: GeneralKernelMachine, datamodule: KernelDataModule, epochs: int, prepared: float, device: str
) -> dict[str, Any]:
    """The plan of `kl fit --solver eigenpro3` and `eigenpro4`; the exact limit is not planned."""
    from kl.estimate import estimate_general
    from recipes.commands.plan_common import described

    found = estimate_general(machine, datamodule.train_set.x, datamodule.num_rows)
    each = found["seconds_per_epoch"] + found["seconds_norm"] + found["seconds_training_error"]
    return {
        **described(machine, datamodule, datamodule.num_rows, epochs, device),
        **machine.parameters_chosen,
        "seconds_planning": prepared,
        **found,
        "seconds_total": prepared + epochs * each,
    }


def print_general(results: dict[str, Any], machine: TrainedExpansion) -> None:
    """Three tables for people."""
    from kl.system.wording import counted
    from recipes.commands.plan_common import parameter_rows, print_memory, traffic_row
    from recipes.output.report import print_table, readable_seconds

    r = results
    print_memory(r, machine)
    print_table(
        "training",
        ("", ""),
        [
            ("centres p", f"{r['centers']}"),
            *parameter_rows(r),
            ("steps between projections T", f"{r['projection_period']}"),
            ("projection by", f"{r['projection']}"),
            ("steps an epoch", f"{r['steps_per_epoch']}"),
            *traffic_row(r),
        ],
    )
    rows = [
        ("data and plan", readable_seconds(r["seconds_planning"])),
        ("a projection", readable_seconds(r["seconds_projection"])),
        ("an epoch's steps and projections", readable_seconds(r["seconds_per_epoch"])),
        ("an epoch's norm", readable_seconds(r["seconds_norm"])),
        ("an epoch's training error", readable_seconds(r["seconds_training_error"])),
        (f"all of it, {counted(r['epochs'], 'epoch')}", readable_seconds(r["seconds_total"])),
    ]
    print_table("predicted time", ("", ""), rows)
