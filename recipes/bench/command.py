"""The command `kl bench`: its options, and what runs when no sub-command is typed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer

from recipes.bench.distributed.command import distributed
from recipes.bench.options import BenchOptions
from recipes.bench.tables.command import tables
from recipes.options.groups import OutputOptions, takes

app = typer.Typer(help="Measure this machine: the limit, epochs, exact solves, other libraries, growth, memory.")


@takes(BenchOptions, OutputOptions)
def bench(options: BenchOptions, output: OutputOptions) -> None:
    """Measure what this machine reaches, as ratios to plain matrix products and to other libraries.

    For example: kl bench --data mnist --scale quick
    """
    from recipes.bench.runner import run_bench

    run_bench(options, as_json=output.json)


def _unless_subcommand(function: Callable[..., None]) -> Callable[..., None]:
    """The callback of a group that runs `function` if no sub-command was typed."""

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
app.command("tables")(tables)
