"""One benchmark from its options to its folder: the tasks in order, with an estimate of the time left."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipes.bench.options import BenchOptions
from recipes.bench.parts.epochs import epoch_tasks
from recipes.bench.parts.exact import exact_tasks
from recipes.bench.parts.general import general_tasks
from recipes.bench.parts.growth import exponents, growth_tasks
from recipes.bench.parts.limit import MM, Limits, mm_rate
from recipes.bench.parts.memory import memory_tasks
from recipes.bench.parts.patches import patch_tasks
from recipes.bench.parts.peers import check_python, peer_tasks
from recipes.bench.parts.roofline import Roofline
from recipes.bench.parts.tune import tune_tasks
from recipes.bench.record import Measurement, Task, one_line
from recipes.bench.settings import Bench, choose_parts, choose_sizes, chosen_kernels, read_data
from recipes.output.hardware import machine, origin

log = logging.getLogger(__name__)

SCHEMA = 1
PLAIN_BATCH = 1024  # rows of a batch for the limit without a training run


def run_bench(options: BenchOptions, as_json: bool = False) -> dict[str, Any]:
    """Measure what the options ask for, write results.json and results.png, print a table or the JSON.

    Raises:
        InputError: an option has an invalid value, the data is not available, or the folder cannot be written.
    """
    from recipes.bench.output import print_results, write_figure, write_results
    from recipes.options.groups import RunOptions
    from recipes.output.report import print_json, readable_seconds
    from recipes.run.build import check_run
    from recipes.run.folders import new_version, require_writable

    choose_parts(options)
    check_run(RunOptions(accelerator=options.accelerator, seed=options.seed))
    check_python(options.peer_python)
    parent = Path(options.log_dir) if options.log_dir else Path("lightning_logs", "bench")
    require_writable(str(parent))
    bench = prepare(options)
    folder = parent if options.log_dir else new_version(parent)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    results: dict[str, Any] = {
        "schema": SCHEMA,
        **origin(),
        "machine": machine(bench.device),
        "data": {
            "name": bench.data.name,
            "n": len(bench.data.x),
            "d": bench.data.x.shape[1],
            "c": bench.data.y.shape[1],
        },
        "options": asdict(options),
        "sizes": asdict(bench.sizes),
        "log_dir": str(folder),
        "measurements": [],
        "seconds_total": 0.0,
    }
    found: list[Measurement] = []
    tasks = tasks_of(bench)
    spent_on, guessed = 0.0, 0.0
    for i, task in enumerate(tasks):
        left = sum(each.seconds for each in tasks[i:]) * (spent_on / guessed if guessed else 1.0)
        log.info("[%d/%d] %s: %s; about %s left", i + 1, len(tasks), task.part, task.name, readable_seconds(left))
        began = time.perf_counter()
        found += run_task(task)
        spent_on, guessed = spent_on + time.perf_counter() - began, guessed + task.seconds
        results["measurements"] = [each.as_dict() for each in (*limit_rows(bench), *found, *exponents(found))]
        results["seconds_total"] = time.perf_counter() - start
        write_results(folder, results)  # after each task, so that an interruption loses no measurement
    write_figure(folder, results)
    if as_json:
        print_json(results)
    else:
        print_results(results)
    return results


def prepare(options: BenchOptions) -> Bench:
    """Read the data and choose sizes and kernels."""
    from recipes.options.groups import RunOptions
    from recipes.run.processes import device_of

    data = read_data(options)
    sizes = choose_sizes(options, len(data.x))
    device = device_of(RunOptions(accelerator=options.accelerator))
    return Bench(
        data,
        chosen_kernels(data, options.seed),
        sizes,
        Limits(sizes.repeats, device),
        Roofline(sizes.repeats, device),
        mm_rate(device),
        "gpu" if device == "cuda" else "cpu",
        options.seed,
    )


def tasks_of(bench: Bench) -> list[Task]:
    """The tasks of the requested parts, in the order of the parts."""
    makers = {
        "limit": limit_tasks,
        "epochs": epoch_tasks,
        "exact": exact_tasks,
        "peers": peer_tasks,
        "growth": growth_tasks,
        "memory": memory_tasks,
        "general": general_tasks,
        "tune": tune_tasks,
        "patches": patch_tasks,
    }
    return [task for part in bench.sizes.parts for task in makers[part](bench)]


def run_task(task: Task) -> list[Measurement]:
    """The task's measurements; if the task fails, one measurement with the error."""
    try:
        return task.run()
    except Exception as error:  # one failure must not cost the measurements of the others
        log.warning("%s: %s failed: %s", task.part, task.name, one_line(error))
        return [Measurement(task.part, task.name, error=one_line(error))]


def limit_tasks(bench: Bench) -> list[Task]:
    """The limit on all training rows, in batches of `PLAIN_BATCH` rows."""
    x = bench.data.first(bench.sizes.train).x

    def measure() -> list[Measurement]:
        bench.limits.of(x, PLAIN_BATCH)
        return []  # `limit_rows` lists it with those that other parts measured

    return [Task("limit", MM, bench.guess(len(x), x.shape[1], bench.sizes.repeats, 1.0), measure)]


def limit_rows(bench: Bench) -> list[Measurement]:
    """Every limit, and every part of the roofline, that has been measured."""
    products = [
        Measurement(
            "limit",
            f"float32 mm, batches of {m}",
            n,
            d,
            limit.seconds,
            detail={"gflops": limit.gflops, "variant": limit.variant, "batch_size": m},
        )
        for (n, d, m), limit in bench.limits.measured.items()
    ]
    parts = [
        Measurement("limit", name, detail={"rate": rate, "units": units})
        for name, (rate, units) in bench.roofline.measured.items()
    ]
    return products + parts
