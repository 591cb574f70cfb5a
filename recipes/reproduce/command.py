"""The command `kl reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from recipes.options.groups import Accelerator, DataDir, OutputOptions, _in_output, _in_run, takes

LOG_DIR = "lightning_logs/reproduce"


@dataclass(frozen=True)
class ReproduceOptions:
    """Which experiment, how large, and where its results go."""

    name: Annotated[
        str | None, typer.Argument(help="The experiment, or all; without it they are listed.", metavar="[NAME]")
    ] = None
    scale: Annotated[
        str,
        _in_run(
            help="tiny: seconds, on digits; quick: about a minute each, on digits where the sets are not on disk; "
            "full: the papers' sizes, hours in all.",
            metavar="tiny|quick|full",
        ),
    ] = "quick"
    data_dir: DataDir = None
    memory: Annotated[
        str, _in_run(help="Memory budget of each computation; auto: half of what is free.", metavar="auto|BYTES|8GB")
    ] = "auto"
    accelerator: Accelerator = "auto"
    log_dir: Annotated[
        str, _in_output(help="Where results are kept; what it holds is not computed again.", metavar="DIR")
    ] = LOG_DIR


@takes(ReproduceOptions, OutputOptions)
def reproduce(options: ReproduceOptions, output: OutputOptions) -> None:
    """Run an experiment of the papers and hold its results against the published numbers.

    An interrupted experiment goes on with the same command; finished points are never computed again. For example:

    kl reproduce convergence --scale quick
    """
    from pathlib import Path

    from recipes.options.groups import RunOptions
    from recipes.output.report import print_json, print_table
    from recipes.reproduce.experiments import EXPERIMENTS
    from recipes.reproduce.runner import choose, run_named
    from recipes.reproduce.setting import Setting
    from recipes.reproduce.sweep.point import Context
    from recipes.run.build import check_run
    from recipes.run.folders import require_writable
    from recipes.run.quiet import quiet_lightning

    setting = Setting(options.scale, Context(options.data_dir, options.accelerator, options.memory))
    if options.name is None:
        if output.json:
            print_json({each.name: {"title": each.title, "source": each.source} for each in EXPERIMENTS.values()})
        else:
            rows = [(each.name, each.title, each.source) for each in EXPERIMENTS.values()]
            print_table("kl reproduce NAME, or all:", ("", "", "source"), rows)
        return
    choose(options.name)
    check_run(RunOptions(memory=options.memory, accelerator=options.accelerator))
    require_writable(options.log_dir)
    quiet_lightning()
    run_named(options.name, setting, Path(options.log_dir), as_json=output.json)
