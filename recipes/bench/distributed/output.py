"""What `kl bench distributed` shows: tables on the screen, and results.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from kl.system.files import written_whole
from recipes.output.report import print_table


def print_results(results: dict[str, Any]) -> None:
    """Print the measurements, one table for each series."""
    machine = results["machine"]
    typer.echo(
        f"{results['options']['data']} on {machine['gpu'] or machine['cpu']}, {machine['cores']} cores, "
        f"{results['threads_per_rank']} a rank, torch {machine['torch']}"
    )
    header = ("ranks", "n", "s/epoch", "speed-up", "efficiency", "exchange", "bytes a step", "mm")
    for name in dict.fromkeys(run["series"]["name"] for run in results["runs"]):
        typer.echo("")
        print_table(name, header, [_row(run) for run in results["runs"] if run["series"]["name"] == name])
    typer.echo(f"results: {results['log_dir']}/results.json, results.png; {results['seconds_total']:.0f} s in all")


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    if run["error"]:
        return (str(run["ranks"]), str(run["n"]), run["error"], "", "", "", "", "")
    several, plain = run["ranks"] > 1, run.get("plain")
    return (
        str(run["ranks"]),
        str(run["n"]),
        f"{run['seconds']:.2f}",
        f"{run['speedup']:.2f}" if several and run["speedup"] is not None else "",
        f"{run['efficiency']:.0%}" if several else "",
        f"{run['in_collectives'] / run['seconds']:.0%}" if several else "",
        f"{run['received']:.0f}" if several else "",
        "" if plain is None else f"{run['seconds'] / plain:.2f}",
    )


def write_figure(folder: Path, results: dict[str, Any]) -> None:
    """Write results.png: efficiency over ranks."""
    from callbacks.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PRINT_DPI, figure_style, new_figure

    colours = (BLUE, ORANGE, GREEN, GREY)
    with figure_style():
        figure = new_figure(5.0, 3.4)
        axes = figure.subplots()
        for colour, name in zip(colours, dict.fromkeys(run["series"]["name"] for run in results["runs"]), strict=False):
            runs = [run for run in results["runs"] if run["series"]["name"] == name and "efficiency" in run]
            axes.plot(
                [run["ranks"] for run in runs], [run["efficiency"] for run in runs], "o-", color=colour, label=name
            )
        axes.axhline(1.0, color=BLACK, linewidth=0.8)
        machine = results["machine"]
        title = f"kl bench distributed: {results['options']['data']} on {machine['gpu'] or machine['cpu']}"
        axes.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.25), title=title)
        axes.set_xticks(sorted({run["ranks"] for run in results["runs"]}))
        axes.legend(fontsize="small")
    with written_whole(folder / "results.png") as file:
        figure.savefig(file, format="png", dpi=PRINT_DPI)
    figure.clear()
