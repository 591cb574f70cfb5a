"""What `kl bench distributed` shows: tables on the screen, and results.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from kl.system.files import written_whole
from kl.system.memory import format_memory
from recipes.output.report import print_table, readable_seconds


def print_results(results: dict[str, Any]) -> None:
    """What was measured, series by series, and what the model says of many GPUs."""
    machine = results["machine"]
    typer.echo(
        f"{results['options']['data']} on {machine['gpu'] or machine['cpu']}, {machine['cores']} cores, "
        f"{results['threads_per_rank']} a rank, torch {machine['torch']}"
    )
    header = ("ranks", "n", "s/epoch", "model", "speed-up", "efficiency", "exchange", "bytes a step", "formula", "mm")
    for name in dict.fromkeys(run["series"]["name"] for run in results["runs"]):
        typer.echo("")
        print_table(name, header, [_row(run) for run in results["runs"] if run["series"]["name"] == name])
    typer.echo("")
    rows = [
        (
            f"{each['n']:.0e}".replace("e+0", "e"),
            "" if each["p"] is None else f"{each['p']:.0e}".replace("e+0", "e"),
            str(each["ranks"]),
            readable_seconds(each["epoch"]),
            format_memory(each["memory"]) + (", K kept" if each["keeps_kernel"] else ""),
            f"{each['exchange'] / (each['exchange'] + each['computing']):.0%}",
            str(each["exchange_dominates_from"] or ""),
        )
        for each in results["model"]
    ]
    letters = ", ".join(f"{name} = {value}" for name, value in results["modelled"].items())
    title = f"model of GPUs whose rates are stated, not measured (kl.distributed.scaling.GPU); {letters}"
    print_table(title, ("n", "p", "GPUs", "an epoch", "memory of each", "exchange", "half from"), rows)
    typer.echo(f"results: {results['log_dir']}/results.json, results.png; {results['seconds_total']:.0f} s in all")


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    if run["error"]:
        return (str(run["ranks"]), str(run["n"]), run["error"], "", "", "", "", "", "", "")
    several, plain = run["ranks"] > 1, run.get("plain")
    return (
        str(run["ranks"]),
        str(run["n"]),
        f"{run['seconds']:.2f}",
        f"{run['predicted_seconds']:.2f}" if several else "",
        f"{run['speedup']:.2f}" if several and run["speedup"] is not None else "",
        f"{run['efficiency']:.0%}" if several else "",
        f"{run['in_collectives'] / run['seconds']:.0%}" if several else "",
        f"{run['received']:.0f}" if several else "",
        f"{run['formula_bytes']:.0f}" if several else "",
        "" if plain is None else f"{run['seconds'] / plain:.2f}",
    )


def write_figure(folder: Path, results: dict[str, Any]) -> None:
    """results.png: efficiency over ranks, and the model's epochs over GPUs."""
    from callbacks.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PRINT_DPI, figure_style, new_figure

    colours = (BLUE, ORANGE, GREEN, GREY)
    with figure_style():
        figure = new_figure(9.0, 3.4)
        left, right = figure.subplots(1, 2)
        for colour, name in zip(colours, dict.fromkeys(run["series"]["name"] for run in results["runs"]), strict=False):
            runs = [run for run in results["runs"] if run["series"]["name"] == name and "efficiency" in run]
            left.plot(
                [run["ranks"] for run in runs], [run["efficiency"] for run in runs], "o-", color=colour, label=name
            )
        left.axhline(1.0, color=BLACK, linewidth=0.8)
        left.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.25), title="Measured")
        left.set_xticks(sorted({run["ranks"] for run in results["runs"]}))
        left.legend(fontsize="small")
        kinds = dict.fromkeys((each["n"], each["p"]) for each in results["model"])
        for colour, (n, p) in zip(colours, kinds, strict=False):
            rows = [each for each in results["model"] if (each["n"], each["p"]) == (n, p)]
            label = f"n = {n:.0e}" + ("" if p is None else f", p = {p:.0e}")
            right.plot(
                [each["ranks"] for each in rows], [each["epoch"] for each in rows], "o-", color=colour, label=label
            )
        right.set(xlabel="GPUs", ylabel="seconds an epoch", yscale="log", title="Model, with stated rates")
        right.set_xscale("log", base=2)
        right.legend(fontsize="small")
        machine = results["machine"]
        figure.suptitle(f"kl bench distributed: {results['options']['data']} on {machine['gpu'] or machine['cpu']}")
    with written_whole(folder / "results.png") as file:
        figure.savefig(file, format="png", dpi=PRINT_DPI)
    figure.clear()
