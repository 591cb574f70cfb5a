"""The options of `kl bench tables`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recipes.options.groups import DataDir, _in_data, _in_output, _in_run


@dataclass(frozen=True)
class TablesOptions:
    """Which tables, which methods, and how much of each."""

    data_dir: DataDir = None
    sets: Annotated[
        str | None,
        _in_data(help="Sets by name; default: of --scale quick eight small ones, else all.", metavar="SET,..."),
    ] = None
    scale: Annotated[
        str,
        _in_run(
            help="quick: 2 splits, 1000 training rows at most, about 10 minutes on two cores; medium: as quick, of all "
            "sets, with more seconds and test rows, 1.5 hours; full: all splits, 10,000 training rows at most, days.",
            metavar="quick|medium|full",
        ),
    ] = "quick"
    splits: Annotated[int | None, _in_run(help="The first so many splits of each set; default: those of --scale.")] = (
        None
    )
    seconds: Annotated[
        float | None,
        _in_run(help="Seconds after which a method begins no candidate; default: 8, 15 or 600, those of --scale."),
    ] = None
    methods: Annotated[
        str | None,
        _in_run(help="Methods, of kl,svm,ridge,boosting,gp,rfm,xrfm; default: all.", metavar="METHOD,..."),
    ] = None
    seed: Annotated[int, _in_run(help="Seed of row limits, searches and folds.")] = 0
    log_dir: Annotated[
        str | None,
        _in_output(
            help="Folder of the results; the same command goes on there.  [default: lightning_logs/tables/SCALE]",
            metavar="DIR",
        ),
    ] = None
