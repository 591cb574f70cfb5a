"""From cells to what is reported: means by set and method, and ranks over sets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from recipes.bench.tables.cells import DONE, NOT_RUN, Cell
from recipes.bench.tables.ranks import LEVEL, critical_difference, friedman, mean_ranks


def summarised(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One dict for each set and method: mean and standard deviation over its splits, seconds, failures."""
    by_pair: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        by_pair[cell.set, cell.method].append(cell)
    return [_pair(name, method, found) for (name, method), found in by_pair.items()]


def _pair(name: str, method: str, cells: list[Cell]) -> dict[str, Any]:
    values = [cell.value for cell in cells if cell.value is not None]
    seconds = [cell.seconds for cell in cells if cell.seconds is not None and cell.state == DONE]
    tried = [cell.candidates for cell in cells if cell.candidates is not None]
    bad = [cell for cell in cells if cell.state not in (DONE, NOT_RUN)]
    left = [cell for cell in cells if cell.state == NOT_RUN]
    return {
        "set": name,
        "method": method,
        "metric": "error" if cells[0].task == "classification" else "rmse",
        "mean": fmean(values) if values else None,
        "std": stdev(values) if len(values) > 1 else None,
        "splits": len(cells),
        "seconds": fmean(seconds) if seconds else None,
        "candidates": fmean(tried) if tried else None,
        "failures": len(bad),
        "not_run": len(left),
        "reasons": sorted({cell.reason for cell in (*bad, *left) if cell.reason}),
    }


def ranked(summary: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean ranks by the mean loss of each set, and the critical difference; the best method comes first.

    A method that a rule leaves out on some set is not ranked. One that failed on a split ranks last on that set.
    """
    sets = list(dict.fromkeys(each["set"] for each in summary))
    left_out = {each["method"]: each["reasons"][0] for each in summary if each["not_run"]}
    methods = [name for name in dict.fromkeys(each["method"] for each in summary) if name not in left_out]
    found: dict[str, Any] = {"sets": len(sets), "left_out": left_out, "methods": methods, "mean_ranks": []}
    found |= {"critical_difference": None, "level": LEVEL, "friedman": None, "friedman_p": None}
    if not methods:
        return found
    losses = np.full((len(sets), len(methods)), math.nan)
    for each in summary:
        if each["method"] in methods and not each["failures"]:
            losses[sets.index(each["set"]), methods.index(each["method"])] = each["mean"]
    ranks = mean_ranks(losses)
    order = np.argsort(ranks, kind="stable")
    found |= {"methods": [methods[i] for i in order], "mean_ranks": ranks[order].tolist()}
    if len(methods) > 1:
        statistic, p = friedman(ranks, len(sets))
        difference = critical_difference(len(methods), len(sets))
        found |= {"critical_difference": difference, "friedman": statistic, "friedman_p": p}
    return found
