"""The sub-commands of `kl`.

Nothing here imports torch: `kl --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from recipes.bench import command as bench
from recipes.commands import data, export, fit, interpolate, predict, tune
from recipes.plan import command as plan
from recipes.report import command as report
from recipes.reproduce import command as reproduce

app = typer.Typer(
    help="Train kernel machines with EigenPro under PyTorch Lightning, next to their exact minimum-norm limit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: kl fit --data digits",
)
app.command("fit")(fit.fit)
app.command("interpolate")(interpolate.interpolate)
app.command("tune")(tune.tune)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("plan")(plan.plan)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


def _print_version(asked: bool) -> None:
    if asked:
        from recipes.output.about import about_lines

        typer.echo("\n".join(about_lines()))
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Versions, CPU and devices, for a bug report."
        ),
    ] = False,
) -> None:
    """Train kernel machines with EigenPro under PyTorch Lightning, next to their exact minimum-norm limit."""
