"""The command `kl bench`: its options, and what runs when no sub-command is typed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from recipes.bench.distributed import distributed
from recipes.options import Accelerator, Data, DataDir, OutputOptions, _in_data, _in_output, _in_run, takes

app = typer.Typer(help="Measure this machine: the limit, epochs, exact solves, other libraries, growth, memory.")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, on which data, and where."""

    data: Data = "mnist"
    data_dir: DataDir = None
    train_size: Annotated[int | None, _in_data(help="Training rows of the largest run; default: by --scale.")] = None
    scale: Annotated[
        str, _in_run(help="quick: about a minute on two cores; full: the sizes of record.", metavar="quick|full")
    ] = "quick"
    only: Annotated[
        str | None,
        _in_run(
            help="Parts to run, of limit,epochs,exact,peers,growth,memory,general; default: all.", metavar="PART,..."
        ),
    ] = None
    time_limit: Annotated[
        float | None, _in_run(help="Seconds that each peer may take; default: 60, with --scale full 900.")
    ] = None
    peer_python: Annotated[
        str | None, _in_run(help="A Python that has the other libraries; default: this one.", metavar="PATH")
    ] = None
    accelerator: Accelerator = "auto"
    seed: Annotated[int, _in_run(help="Seed of subsets, batch order and subsample.")] = 0
    log_dir: Annotated[
        str | None, _in_output(help="Folder of the results.  [default: lightning_logs/bench/version_N]", metavar="DIR")
    ] = None


@takes(BenchOptions, OutputOptions)
def bench(options: BenchOptions, output: OutputOptions) -> None:
    """Measure what this machine reaches, as ratios to plain matrix products and to other libraries.

    For example: kl bench --data mnist --scale quick
    """
    from recipes.bench.runner import run_bench

    run_bench(options, as_json=output.json)


def _unless_subcommand(function: Callable[..., None]) -> Callable[..., None]:
    """The callback of a group that runs `function` where no sub-command was typed."""

    @functools.wraps(function)
    def callback(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            function(context=context, **given)

    parameters = list(inspect.signature(function).parameters.values())  # `takes` has given it the context
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {p.name: p.annotation for p in parameters}
    return callback


app.callback(invoke_without_command=True)(_unless_subcommand(bench))
app.command("distributed")(distributed)
if importlib.util.find_spec("recipes.stability") is not None:
    app.command("stability")(importlib.import_module("recipes.stability").stability)
