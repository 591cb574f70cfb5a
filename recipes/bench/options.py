"""The options of `kl bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recipes.options.groups import Accelerator, Data, DataDir, _in_data, _in_output, _in_run


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
            help="Parts to run, of limit,epochs,exact,peers,growth,memory,general,tune,patches; default: all.",
            metavar="PART,...",
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
