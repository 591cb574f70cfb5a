"""`kl bench tables` from its options to its folder: all cells in order, with an estimate of the time left."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from kl.checks import check_count, check_one_of, check_positive, check_seed
from kl.errors import InputError
from recipes.bench.tables.cells import DONE, Asked, Cell, keep, kept
from recipes.bench.tables.methods import METHODS
from recipes.bench.tables.options import TablesOptions
from recipes.bench.tables.output import print_results, write_csv
from recipes.bench.tables.plot import write_figure
from recipes.bench.tables.protocol import SCALES, Protocol
from recipes.bench.tables.sets import choose_sets, count_splits, find_sets, task_of
from recipes.bench.tables.summary import ranked, summarised
from recipes.bench.tables.worker import Worker

log = logging.getLogger(__name__)

SCHEMA = 1


def run_tables(options: TablesOptions, as_json: bool = False) -> dict[str, Any]:
    """Measure every method on every split, write results.json, results.csv and ranks.png, print tables or the JSON.

    Raises:
        InputError: an option has an invalid value, the folder has no such set, or it cannot be written.
    """
    from recipes.bench.output import write_results
    from recipes.output.hardware import origin
    from recipes.output.report import print_json
    from recipes.run.folders import require_writable

    check_one_of("scale", options.scale, SCALES)
    protocol = Protocol.of(options.scale, check_seed("seed", options.seed))
    if options.seconds is not None:
        protocol = protocol.within(check_positive("seconds", options.seconds))
    splits = protocol.splits if options.splits is None else check_count("splits", options.splits)
    methods = choose_methods(options.methods)
    sets = choose_sets(find_sets(options.data_dir), options.sets, options.scale)
    folder = Path(options.log_dir or Path("lightning_logs", "tables", options.scale))
    require_writable(str(folder))
    cells_asked = asked_cells(sets, methods, protocol, splits)
    start, code = time.perf_counter(), origin()  # before the hours in which files may change
    cells = measure_all(cells_asked, folder)
    results = {**code, **results_of(options, protocol, sets, cells, folder)}
    results["seconds_total"] = time.perf_counter() - start
    write_results(folder, results)
    write_csv(folder / "results.csv", cells)
    write_figure(folder / "ranks.png", results["ranks"])
    if as_json:
        print_json(results)
    else:
        print_results(results)
    return results


def choose_methods(asked: str | None) -> list[str]:
    """The methods that --methods names, each once.

    Raises:
        InputError: there is no such method.
    """
    names = list(METHODS) if asked is None else list(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        if name not in METHODS:
            raise InputError(f"methods must be of {', '.join(METHODS)}, separated by commas; got {name!r}")
    return names


def asked_cells(sets: dict[str, Path], methods: list[str], protocol: Protocol, most: int | None) -> list[Asked]:
    """The cells of the first `most` splits of each set, None of all: the methods of a split one after the other."""
    counts = {name: count_splits(path) for name, path in sets.items()}
    return [
        Asked(name, str(path), split, method, protocol)
        for name, path in sets.items()
        for split in range(counts[name] if most is None else min(counts[name], most))
        for method in methods
    ]


def measure_all(todo: list[Asked], folder: Path) -> list[Cell]:
    """The cells, from their files where they are kept there; the others are measured, and kept at once."""
    from recipes.output.report import readable_seconds

    found = {asked: cell for asked in todo if (cell := kept(folder, asked)) is not None}
    if found:
        log.info("%d of %d fits are in %s", len(found), len(todo), folder)
    left = [asked for asked in todo if asked not in found]
    spent: dict[str, list[float]] = defaultdict(list)
    with Worker(todo[0].protocol.threads) as worker:
        for i, asked in enumerate(left):
            seconds = sum(fmean(spent[each.method] or [each.protocol.seconds]) for each in left[i:])
            log.info(
                "[%d/%d] %s, split %d: %s; about %s left",
                *(i + 1, len(left), asked.set, asked.split, asked.method, readable_seconds(seconds)),
            )
            began = time.perf_counter()
            cell = worker.measure(asked)
            spent[asked.method].append(time.perf_counter() - began)
            if cell.state != DONE:
                log.warning("%s on %s, split %d: %s: %s", cell.method, cell.set, cell.split, cell.state, cell.reason)
            keep(folder, asked, cell)
            found[asked] = cell
    return [found[asked] for asked in todo]


def results_of(
    options: TablesOptions, protocol: Protocol, sets: dict[str, Path], cells: list[Cell], folder: Path
) -> dict[str, Any]:
    """What results.json holds beside the command, the commit and the seconds."""
    from recipes.output.hardware import machine

    summary = summarised(cells)
    rows = {name: [cell for cell in cells if cell.set == name and cell.train_rows] for name in sets}
    return {
        "schema": SCHEMA,
        "machine": machine("cpu"),
        "options": asdict(options),
        "protocol": asdict(protocol),
        "budget": protocol.budget,
        "sets": {
            name: {
                "metric": "error" if task_of(path) == "classification" else "rmse",
                "train_rows": max((cell.train_rows or 0 for cell in rows[name]), default=None),
                "features": max((cell.features or 0 for cell in rows[name]), default=None),
            }
            for name, path in sets.items()
        },
        "summary": summary,
        "ranks": ranked(summary),
        "cells": [asdict(cell) for cell in cells],
        "log_dir": str(folder),
    }
