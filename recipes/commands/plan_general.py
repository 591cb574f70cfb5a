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
    from kl.general.estimate import estimate_general
    from recipes.commands.plan_common import described

    estimate = estimate_general(machine, datamodule.train_set.x, datamodule.num_rows)
    each = estimate.epoch_seconds + estimate.norm_seconds + estimate.training_error_seconds
    return {
        **described(machine, datamodule, datamodule.num_rows, epochs, device),
        **machine.parameters_chosen,
        "steps_per_epoch": estimate.steps_per_epoch,
        "seconds_planning": prepared,
        "seconds_projection": estimate.projection_seconds,
        "seconds_per_epoch": estimate.epoch_seconds,
        "seconds_norm": estimate.norm_seconds,
        "seconds_training_error": estimate.training_error_seconds,
        "seconds_total": prepared + epochs * each,
        "bytes_per_step": estimate.bytes_per_step,
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
