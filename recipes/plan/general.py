"""The plan of `kl fit --solver eigenpro3` and `eigenpro4`; the exact limit is not planned."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from recipes.plan.prepared import PreparedRun, RunForecast, Table, parameter_rows, time_table, traffic_row
from recipes.plan.rounds import forecast_rounds

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import GeneralKernelMachine

TIMED = 128  # images of which the features are computed to see how long it takes
UNEVEN = 0.1  # by how much the diagonal of the assumed metric differs among the features


def assume_kernel(machine: GeneralKernelMachine, datamodule: KernelDataModule) -> None:
    """Give a machine that learns its metric one near the identity, because a plan makes no rounds.

    The rows under it cost what they cost under a learnt metric; they are no 8-bit features.
    """
    import torch

    from kl.features.learnt import LearntKernel

    assert machine.features is not None  # the caller has seen to it
    x, seed = datamodule.train_set.x, machine.hparams["seed"]
    root = 1 + UNEVEN * torch.rand(x.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    root = root if machine.features.metric == "diagonal" else root.diag()
    machine.use_kernel(LearntKernel(machine.kernel.resolve(x, seed=seed), root, 0, (), ""))


def plan_general(machine: GeneralKernelMachine, run: PreparedRun) -> RunForecast:
    """Seconds of a run with centres of its own, and of the rounds before it if it learns a metric."""
    from kl.estimate import estimate_general

    rows, features = run.datamodule.train_set, machine.features
    found: dict[str, Any] = {"seconds_planning": run.seconds_spent, "round_solver": None, "seconds_rounds": 0.0}
    if features is not None:
        learning = machine.learning(rows.x, rows.y, run.device)
        rounds = forecast_rounds(learning, machine.kernel, machine.origin)
        all_rounds = rounds.first + features.rounds * rounds.each
        found |= {"round_solver": rounds.solver, "chains": rounds.chains, "seconds_rounds": all_rounds}
        found["round_rows"] = len(learning.whole.group)
    found |= estimate_general(machine, rows.x, run.datamodule.num_rows)
    found["seconds_features"] = seconds_of_features(run)
    each = found["seconds_per_epoch"] + found["seconds_norm"] + found["seconds_training_error"]
    each += found["seconds_features"] or 0
    total = run.seconds_spent + found["seconds_rounds"] + run.epochs * each
    return RunForecast({**found, "seconds_total": total}, tables)


def seconds_of_features(run: PreparedRun) -> float | None:
    """Seconds in which an epoch's images become features of patches; None if they do not, or only once.

    A stream's do while the images before them are used, so that an epoch may take less than the sum of both.
    """
    import torch

    datamodule = run.datamodule
    patches, rows = datamodule.patches, datamodule.num_rows
    if patches is None or patches.image is None or not (datamodule.streamed or datamodule.augmentation):
        return None
    timed = min(TIMED, rows)
    images = torch.zeros(timed, *patches.image, dtype=torch.uint8, device=run.device)
    start = time.perf_counter()
    patches.transform(images).cpu()
    return (time.perf_counter() - start) * rows / timed


def tables(results: dict[str, Any]) -> list[Table]:
    """Two tables for people."""
    r = results
    rows: list[tuple[str, ...]] = [
        ("centres p", f"{r['centers']}"),
        *parameter_rows(r),
        ("steps between projections T", f"{r['projection_period']}"),
        ("projection by", f"{r['projection']}"),
        ("steps an epoch", f"{r['steps_per_epoch']}"),
        *traffic_row(r),
    ]
    times = [
        ("data and plan", r["seconds_planning"]),
        *rounds_row(r),
        ("a projection", r["seconds_projection"]),
        *([] if r["seconds_features"] is None else [("an epoch's features of patches", r["seconds_features"])]),
        ("an epoch's steps and projections", r["seconds_per_epoch"]),
        ("an epoch's norm", r["seconds_norm"]),
        ("an epoch's training error", r["seconds_training_error"]),
    ]
    title = "training" if r["round_solver"] is None else "training, parameters of the plain kernel"
    return [(title, ("", ""), rows), time_table(r, times)]


def rounds_row(results: dict[str, Any]) -> list[tuple[str, float | None]]:
    """One row with the seconds of all rounds of a metric; no row where none is learnt."""
    r = results
    if r["round_solver"] is None:
        return []
    count = r["features"]["rounds"] + 1
    return [
        (
            f"{count} rounds of {r['chains']} fit(s) by {r['round_solver']} on {r['round_rows']} rows",
            r["seconds_rounds"],
        )
    ]
