"""The results that a command prints: a table for people, one JSON object for machines."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recipes.output.fit_table import fit_columns, rows_of
from recipes.output.remedies import as_options

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from callbacks import LearntFeatures
    from datamodules import KernelDataModule
    from kl import Kernel
    from kl.machines.machine import TrainedExpansion

WIDE = 200  # characters of a line without a terminal
FAR_MSE, FAR_DISTANCE = 1.05, 0.1  # times the limit's mse, and share of |f*|: a run above both is far from its limit


def readable_seconds(seconds: float) -> str:
    """Seconds as text: in seconds, minutes, hours or days."""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def print_fit(results: dict[str, Any], machine: TrainedExpansion, as_json: bool) -> None:
    """Print the results of a training run, which `fit_results` returned."""
    from kl.exact.interpolate import RESIDUAL_ACCEPTED

    if as_json:
        print_json(with_whole_paths(results))
        return
    columns = fit_columns(results)
    header = ("", *(heading for heading, _ in columns))
    held = f" ({results['validation_rows']} held out)" if results["best_epoch"] is not None else ""
    size = f"n={results['n']}{held} d={results['d']} c={results['c']}"
    print_table(f"{results['data']}  {size}  {problem_text(machine)}", header, rows_of(columns))
    seconds = results["seconds_per_epoch"]
    epoch = f", {sum(seconds) / len(seconds):.2f} s an epoch" if seconds else ""
    typer.echo(
        f"{machine.describe()}; "
        f"{results['seconds_total']:.1f} s in all{epoch}; peak memory {results['peak_memory_bytes'] / 1e9:.2f} GB"
    )
    if (results["exact_relative_residual"] or 0) > RESIDUAL_ACCEPTED:
        typer.echo(
            f"exact limit: the kernel matrix is singular; this is its least-squares solution, with relative residual "
            f"{results['exact_relative_residual']:.1e}"
        )
    if results["exact_skipped"]:
        typer.echo(f"exact limit: {results['exact_skipped']}")
    if far := far_from_limit(results):
        typer.echo(far)
    if results["checkpoint"]:
        typer.echo(f"checkpoint:  {results['checkpoint']}")
        if results["last_checkpoint"] != results["checkpoint"]:
            typer.echo(f"last epoch:  {results['last_checkpoint']}")
        if results["convergence_figure"]:
            typer.echo(f"figure:      {results['convergence_figure']}")
        if results["features_figure"]:
            typer.echo(f"features:    {results['features_figure']}")
        typer.echo(f"curves:      {command_here('tensorboard')} --logdir {Path(results['log_dir']).parent.parent}")
        typer.echo(f"report:      {command_here('kl')} report {shlex.quote(results['log_dir'])}")


PATHS = ("log_dir", "checkpoint", "last_checkpoint", "convergence_figure", "features_figure")


def with_whole_paths(results: dict[str, Any]) -> dict[str, Any]:
    """The results with absolute paths, for scripts elsewhere."""
    return results | {name: str(Path(results[name]).absolute()) for name in PATHS if results[name]}


def far_from_limit(results: dict[str, Any]) -> str | None:
    """A line with the remedy if the run could still gain from going on to its limit; None if not, or if none is known.

    It could if its mse is more than 5% above the limit's on the validation rows, without them on the test rows, else on
    the training rows, and if its RKHS distance to the limit is more than a tenth of the limit's norm. Both are asked,
    because the mse of a run on its way is often the better one, and a small mse differs by much from one of rounding.
    """
    distance, norm = results["distance_to_exact"], results["exact_rkhs_norm"]
    if distance is None or not norm or distance <= FAR_DISTANCE * norm:
        return None
    parts = {"val": "validation", "test": "test", "train": "training"}
    known = [
        (label, results[f"{part}_mse"], results[f"exact_{part}_mse"])
        for part, label in parts.items()
        if results[f"{part}_mse"] is not None and results[f"exact_{part}_mse"] is not None
    ]
    if not known or known[0][1] <= FAR_MSE * known[0][2]:
        return None
    label, ours, limit = known[0]
    name = "ridge solution" if results["ridge"] else "exact limit"
    remedy = "give more --epochs"
    if results["centers"] is None:
        remedy += f", or take the {name} itself by kl interpolate --save"
    return (
        f"still far from the {name}: {label} mse {ours:.3g}, and {limit:.3g} there; the RKHS distance is "
        f"{distance / norm:.0%} of |f*|: {remedy}"
    )


def fit_results(
    trainer: pl.Trainer, machine: TrainedExpansion, datamodule: KernelDataModule, seconds_total: float
) -> dict[str, Any]:
    """The numbers of a training run, by the names of `kl fit --json`; call it on every rank."""
    import callbacks
    from kl.probabilities import SCORES
    from kl.system.memory import peak_memory

    held_out = datamodule.validation_set
    found: dict[type, Any] = {type(callback): callback for callback in trainer.callbacks}  # type: ignore[attr-defined]
    limit = found.get(callbacks.ExactInterpolation)
    exact = (limit.results if limit else None) or {}
    timing, scores = found[callbacks.Timing], found.get(callbacks.FinalScores)
    stop = found.get(callbacks.StopWhenInterpolated)
    chosen = machine.parameters_chosen
    saver = trainer.checkpoint_callback
    last_path = Path(saver.best_model_path) if saver and saver.best_model_path else None  # type: ignore[attr-defined]
    learnt, drawn = found.get(callbacks.LearntFeatures), found.get(callbacks.ConvergenceFigure)
    chooser, keeper = found.get(callbacks.BestEpoch), found.get(callbacks.BestCheckpoint)
    best, last = (chooser.best, chooser.last) if chooser else (None, None)
    values = best or callbacks.epoch_values(trainer, machine)
    test = "val" if held_out is None else "test"  # a run with a validation part ends with a pass over the test set
    checkpoint = keeper.path if keeper and best else last_path
    return {
        "data": datamodule.name,
        "data_source": datamodule.source,
        "solver": machine.method,
        **kernel_results(machine.kernel),
        "n": datamodule.num_rows,
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "ridge": machine.ridge,
        "label_noise": datamodule.label_noise,
        "noise_kind": datamodule.noise_kind,
        "ranks": trainer.world_size,
        "epochs": trainer.current_epoch,
        "interpolated_epoch": stop.stopped_epoch if stop else None,
        "validation": datamodule.validation,
        "validation_rows": 0 if held_out is None else len(held_out),
        "best_epoch": best and best["epoch"],
        **named_values(values, held_out is not None),
        "test_mse": machine.eval_metrics.get(f"{test}/mse"),
        "test_error": machine.eval_metrics.get(f"{test}/error"),
        "test_error_noisy": machine.eval_metrics.get(f"{test}/error_noisy"),
        **{f"test_{name}": scores.results.get(name) if scores else None for name in SCORES},
        "last": last and {"epoch": last["epoch"], **named_values(last, validated=True)},
        "exact_train_mse": exact.get("exact_train_mse"),
        "exact_train_error": exact.get("exact_train_error"),
        "exact_loo_mse": exact.get("exact_loo_mse"),
        "exact_loo_error": exact.get("exact_loo_error"),
        **{f"exact_{name}": exact.get(f"exact_{name}") if held_out is not None else None for name in VALIDATED},
        "exact_test_mse": exact.get("exact_test_mse"),
        "exact_test_error": exact.get("exact_test_error"),
        "exact_test_error_noisy": exact.get("exact_test_error_noisy"),
        "exact_rkhs_norm": exact.get("exact_rkhs_norm"),
        "exact_relative_residual": exact.get("relative_residual"),
        "exact_jitter": exact.get("jitter"),
        "exact_seconds": exact.get("seconds"),
        "exact_skipped": as_options(limit.skipped) if limit and limit.skipped else None,
        "batch_size": chosen.get("batch_size"),
        "memory_batch_size": chosen.get("memory_batch_size"),
        "critical_batch_size": chosen.get("critical_batch_size"),
        "step_size": chosen.get("step_size"),
        "centers": chosen.get("centers"),
        "projection_period": chosen.get("projection_period"),
        "projection": chosen.get("projection"),
        "preconditioner_rank": chosen.get("preconditioner_rank"),
        "top_q": chosen.get("top_q"),
        "subsample": chosen.get("subsample"),
        **rounds_results(machine, learnt),
        "seconds_total": seconds_total,
        "seconds_per_epoch": list(timing.seconds_per_epoch),
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
        "log_dir": trainer.log_dir,
        "checkpoint": checkpoint and shortest(checkpoint),
        "last_checkpoint": last_path and shortest(last_path),
        "convergence_figure": drawn and drawn.path and shortest(drawn.path.resolve()),
    }


VALIDATED = ("val_mse", "val_error", "val_error_noisy")


def named_values(values: dict[str, Any], validated: bool) -> dict[str, Any]:
    """An epoch's values by the names of `kl fit --json`; `validated` says whether val/* is of a validation part."""
    return {
        "train_mse": values.get("train/mse"),
        "train_error": values.get("train/error"),
        "train_mse_running": values.get("train/mse_running"),
        "train_error_running": values.get("train/error_running"),
        **{name: values.get(name.replace("_", "/", 1)) if validated else None for name in VALIDATED},
        "rkhs_norm": values["rkhs/norm"],
        "rkhs_norm_per_class": values["rkhs/norm_per_class"],
        "distance_to_exact": values.get("exact/distance"),
    }


def rounds_results(machine: TrainedExpansion, learnt: LearntFeatures | None) -> dict[str, Any]:
    """The rounds of a machine that learns its metric, and what it has learnt; None for other machines."""
    from callbacks.learnt_features import feature_importances

    found: dict[str, Any] = dict.fromkeys(
        ("round", "round_scores", "round_ridge", "feature_importances", "features_figure")
    )
    if machine.learns_kernel:
        found |= {"round": machine.round, "round_scores": list(machine.scores), "round_ridge": machine.features.ridge}
        found["feature_importances"] = feature_importances(machine)
        if learnt is not None:
            found |= {"round_scores": learnt.scores, "features_figure": learnt.path and shortest(learnt.path.resolve())}
    return found


def kernel_results(kernel: Kernel) -> dict[str, Any]:
    """The kernel by name, its bandwidth, and all its parameters."""
    config = kernel.config()
    name = config.pop("kernel")
    return {"kernel": name, "bandwidth": getattr(kernel, "bandwidth", None), "kernel_parameters": config}


def kernel_text(kernel: Kernel) -> str:
    """The kernel on one line, its numbers to six digits."""
    return re.sub(r"\d+\.\d{6,}", lambda match: f"{float(match[0]):.6g}", str(kernel))


def problem_text(machine: TrainedExpansion) -> str:
    """The kernel and, if it is not 0, the ridge on one line."""
    return kernel_text(machine.kernel) + (f"  ridge={machine.ridge:g}" if machine.ridge else "")


def print_json(results: dict[str, Any]) -> None:
    """Print one JSON object on standard output; NaN and infinity become null."""
    print(json.dumps(plain_values(results)))


def command_here(name: str) -> str:
    """The name of a command, or the path of the one beside this Python if none is on the PATH."""
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) or not beside.exists():
        return name
    return shortest(beside)


def shortest(path: Path) -> str:
    """The path relative to the current folder if it lies in there, else unchanged."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table on standard output, as wide as the terminal; without a terminal, up to `WIDE` characters wide."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    typer.echo(title)
    table = Table(show_header=any(header), box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def dump_record(record: dict[str, Any]) -> str:
    """A record as JSON; NaN and infinity become null."""
    return json.dumps(plain_values(record), indent=1) + "\n"


def plain_values(value: Any) -> Any:
    """The value with None in place of NaN and infinity, and lists in place of tuples."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
