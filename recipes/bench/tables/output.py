"""The output of `kl bench tables`: results.csv, and tables on the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import typer

from kl.system.files import written_whole
from recipes.bench.tables.cells import Cell
from recipes.output.report import print_table, readable_seconds

COLUMNS = (
    *("set", "task", "split", "method", "state", "value", "seconds", "predict_seconds", "candidates"),
    *("train_rows", "test_rows", "features", "reason"),
)


def write_csv(path: Path, cells: Sequence[Cell]) -> None:
    """Write a line for each cell; value is an error for classes, a root mean squared error for regression."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in cells)
    with written_whole(path) as file:
        file.write(text.getvalue().encode())


def print_results(results: dict[str, Any]) -> None:
    """Print the losses, the methods with their ranks, and the failures."""
    machine, summary, ranks = results["machine"], results["summary"], results["ranks"]
    methods = list(dict.fromkeys(each["method"] for each in summary))
    found = {(each["set"], each["method"]): each for each in summary}
    typer.echo(
        f"{len(results['sets'])} sets, {len(results['cells'])} fits on {machine['cpu']}, {machine['cores']} cores, "
        f"load {machine['load_average']:.1f} at the end; seconds are noisy where the machine is shared"
    )
    typer.echo(results["budget"] + "\n")
    rows = [
        (
            name,
            facts["metric"],
            str(facts["train_rows"]),
            *(loss_text(found[name, method], found) for method in methods),
        )
        for name, facts in results["sets"].items()
    ]
    title = "test loss, mean ± standard deviation over splits; * is the best mean of the set"
    print_table(title, ("set", "metric", "n", *methods), rows)
    places = dict(zip(ranks["methods"], ranks["mean_ranks"], strict=True))
    rows = [_method(method, [each for each in summary if each["method"] == method], places) for method in methods]
    header = ("method", "mean rank", "seconds of tuning and fitting", "candidates", "failures", "not run")
    print_table(f"methods over {ranks['sets']} sets", header, rows)
    for each in summary:
        for reason in each["reasons"] if each["failures"] else []:
            typer.echo(f"failed: {each['method']} on {each['set']}: {reason}")
    for method, reason in ranks["left_out"].items():
        typer.echo(f"not ranked: {method}: {reason}")
    if ranks["critical_difference"] is not None:
        typer.echo(
            f"critical difference of mean ranks {ranks['critical_difference']:.2f} (Nemenyi, {ranks['level']:.0%}); "
            f"Friedman's test p = {ranks['friedman_p']:.2g}"
        )
    files = "results.json, results.csv" + (", ranks.png" if ranks["critical_difference"] is not None else "")
    typer.echo(f"results: {results['log_dir']}/{files}; {readable_seconds(results['seconds_total'])} in this run")


def loss_text(each: dict[str, Any], found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The mean loss of a method on a set as text; a star marks the best of the set."""
    if each["mean"] is None:
        return "not run" if each["not_run"] else "failed"
    factor = 100 if each["metric"] == "error" else 1
    digits = ".1f" if factor == 100 else ".3g"
    best = min(other["mean"] for (name, _), other in found.items() if name == each["set"] and other["mean"] is not None)
    text = f"{each['mean'] * factor:{digits}}"
    text += "" if each["std"] is None else f" ± {each['std'] * factor:{'.1f' if factor == 100 else '.2g'}}"
    text += "%" if factor == 100 else ""
    text += f" ({each['failures']} of {each['splits']} failed)" if each["failures"] else ""
    return ("* " if each["mean"] == best else "") + text


def _method(method: str, rows: list[dict[str, Any]], places: dict[str, float]) -> tuple[str, ...]:
    seconds = [each["seconds"] for each in rows if each["seconds"] is not None]
    tried = [each["candidates"] for each in rows if each["candidates"] is not None]
    return (
        method,
        f"{places[method]:.2f}" if method in places else "",
        f"{fmean(seconds):.2f} (at most {max(seconds):.1f})" if seconds else "",
        f"{fmean(tried):.1f}" if tried else "",
        str(sum(each["failures"] for each in rows)),
        str(sum(each["not_run"] for each in rows)),
    )
