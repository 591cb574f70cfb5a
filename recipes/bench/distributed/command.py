"""`kl bench distributed`: strong and weak scaling of training over ranks, and the bytes that the ranks exchange."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from recipes.options.groups import Accelerator, Data, DataDir, OutputOptions, _in_data, _in_output, _in_run, takes

log = logging.getLogger(__name__)

TIME_LIMIT = 900.0  # seconds of a run
BATCH, KERNEL = 500, {"kernel": "laplacian", "bandwidth": 10.0}  # of MNIST at scale [0, 1]


@dataclass(frozen=True)
class DistributedOptions:
    """What to measure, on which data, and where."""

    data: Data = "mnist"
    data_dir: DataDir = None
    train_size: Annotated[
        int | None, _in_data(help="Rows of the strong scaling, and half of them of each rank of the weak.")
    ] = None
    scale: Annotated[
        str, _in_run(help="quick: about a minute on two cores; full: the sizes of record.", metavar="quick|full")
    ] = "quick"
    ranks: Annotated[
        str, _in_run(help="Numbers of ranks; auto: 1, 2, 4, ... up to the cores or GPUs.", metavar="R,...|auto")
    ] = "auto"
    accelerator: Accelerator = "auto"
    seed: Annotated[int, _in_run(help="Seed of subsets, batch order and subsample.")] = 0
    log_dir: Annotated[str, _in_output(help="Folder of the results.", metavar="DIR")] = "lightning_logs/distributed"


@dataclass(frozen=True)
class Series:
    """Runs that differ only in the number of ranks."""

    name: str
    rows: int
    """n; for weak scaling, n per rank."""
    weak: bool = False
    """Whether n grows with the number of ranks, so that each rank does the same work in a step."""
    keep: bool = False
    """Whether K is kept."""
    centers: int = 0
    """The number of centres of EigenPro 4; 0 means EigenPro 2."""


@takes(DistributedOptions, OutputOptions)
def distributed(options: DistributedOptions, output: OutputOptions) -> None:
    """Measure strong and weak scaling over ranks, and count what they exchange.

    Every rank has the same number of threads, so that more ranks are more hardware. For example:

    kl bench distributed --data mnist --scale full
    """
    from kl.errors import KLError
    from recipes.bench.distributed.output import print_results, write_figure
    from recipes.bench.output import write_results
    from recipes.options.groups import RunOptions
    from recipes.output.hardware import machine, origin
    from recipes.output.report import print_json
    from recipes.run.build import check_run
    from recipes.run.folders import require_writable
    from recipes.run.processes import device_of

    run = RunOptions(accelerator=options.accelerator, seed=options.seed)
    check_run(run)
    device, folder = device_of(run), Path(options.log_dir)
    sizes = parse_ranks(options, device)
    series = choose_series(options, count_rows(options), max(sizes))
    require_writable(options.log_dir)
    threads = max(1, (os.cpu_count() or 1) // max(sizes))
    start, runs = time.perf_counter(), []
    todo = [(each, size) for each in series for size in sizes]
    for i, (each, size) in enumerate(todo):
        spent = time.perf_counter() - start
        left = f"; about {spent / i * (len(todo) - i):.0f} s left" if i else ""
        log.info("[%d/%d] %s on %d ranks%s", i + 1, len(todo), each.name, size, left)
        runs.append(run_one(options, each, size, threads, "gpu" if device == "cuda" else "cpu"))
    if all(run["error"] for run in runs):
        raise KLError(f"no run could be measured: {runs[0]['error']}")
    results: dict[str, Any] = {
        **origin(),
        "machine": machine(device),
        "options": asdict(options),
        "threads_per_rank": threads,
        "runs": with_speed(runs),
        "log_dir": str(folder),
        "seconds_total": time.perf_counter() - start,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder, results)
    write_figure(folder, results)
    if output.json:
        print_json(results)
    else:
        print_results(results)


def parse_ranks(options: DistributedOptions, device: str) -> list[int]:
    """The numbers of ranks to measure, the smallest first; 1 is always among them.

    Raises:
        InputError: --ranks or --scale has no valid value.
    """
    import torch

    from kl.checks import check_one_of
    from kl.errors import InputError
    from recipes.bench.record import SCALES
    from recipes.run.processes import check_most

    check_one_of("scale", options.scale, SCALES)
    there = torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1
    if options.ranks == "auto":
        return [2**i for i in range(int(math.log2(there)) + 1)]
    parts = options.ranks.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"ranks must be auto, or whole numbers such as 1,2,4; got {options.ranks!r}")
    sizes = sorted({1, *map(int, parts)})
    check_most("ranks", sizes[-1], on_gpu=device == "cuda")
    return sizes


def count_rows(options: DistributedOptions) -> int:
    """How many training rows the data has.

    Raises:
        InputError: the data is not available, or has fewer rows than --train-size.
    """
    from recipes.options.groups import DataOptions
    from recipes.run.build import build_data

    data = build_data(DataOptions(options.data, options.data_dir, train_size=options.train_size), options.seed)
    data.prepare_data()
    data.setup("fit")
    return len(data.train_set.x)


def choose_series(options: DistributedOptions, rows: int, ranks: int) -> list[Series]:
    """The series to measure at a scale, for data of `rows` rows and at most `ranks` ranks."""
    full = options.scale == "full"
    n = min(rows, options.train_size or (20_000 if full else 4_000))
    centers = min(n, 10_000 if full else 2_000)
    return [
        Series("strong, EigenPro 2, K not kept", n),
        Series("strong, EigenPro 2, K kept", n, keep=True),
        Series(f"strong, EigenPro 4, p = {centers}", n, centers=centers),
        Series("weak, EigenPro 2, K not kept", max(1, min(n // 2, rows // ranks)), weak=True),
    ]


def run_one(options: DistributedOptions, series: Series, ranks: int, threads: int, accelerator: str) -> dict[str, Any]:
    """Measure one run in processes of its own; returns its options and measurements, or its error."""
    from recipes.bench.child import run_child

    n = series.rows * (ranks if series.weak else 1)
    asked = {
        "data": options.data,
        "data_dir": options.data_dir,
        "n": n,
        "seed": options.seed,
        "kernel": KERNEL if options.data == "mnist" else {"kernel": "laplacian", "bandwidth": "auto"},
        "batch_size": min(BATCH, n),
        "subsample": min(1000, n, series.centers or n),
        "memory": f"{8 * n * n + 2_000_000_000}" if series.keep else "4GB",
        "centers": series.centers,
        "keep": series.keep,
        "accelerator": accelerator,
        "ranks": ranks,
        "epochs": 5 if options.scale == "full" else 3,
    }
    command = [sys.executable, "-m", "recipes.bench.distributed.child", json.dumps(asked)]
    outcome = run_child(command, TIME_LIMIT, OMP_NUM_THREADS=str(threads))
    if outcome.error:
        log.warning("%s on %d ranks: %s", series.name, ranks, outcome.error)
    return {"series": asdict(series), "ranks": ranks, "n": n, "error": outcome.error, **outcome.values}


def with_speed(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with their seconds of a step, speed-up and efficiency against the run of one rank in the same series."""
    first = {run["series"]["name"]: run for run in runs if run["ranks"] == 1 and not run["error"]}
    for run in runs:
        one, weak = first.get(run["series"]["name"]), run["series"]["weak"]
        if run["error"] or one is None:
            continue
        run["step_seconds"] = _step_seconds(run)
        run["speedup"] = None if weak else one["seconds"] / run["seconds"]
        run["efficiency"] = _step_seconds(one) / run["step_seconds"] / (1 if weak else run["ranks"])
    return runs


def _step_seconds(run: dict[str, Any]) -> float:
    return run["seconds"] * run["batch_size"] / run["n"]
