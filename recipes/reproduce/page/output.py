"""The output of an experiment in its folder and on the screen."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kl.system.files import written_whole
from recipes.output.report import plain_values, print_table
from recipes.reproduce.page.presentation import HEADER, Presentation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_experiment(folder: Path, record: dict[str, Any], shown: Presentation) -> None:
    """Write results.json, results.csv, a PNG and an SVG file of each figure, and an event file for TensorBoard."""
    from callbacks.figures import as_svg

    with written_whole(folder / "results.json") as file:
        file.write(json.dumps(plain_values(record), indent=1).encode() + b"\n")
    with written_whole(folder / "results.csv") as file:
        file.write(as_csv(shown.rows).encode())
    for name, figure in shown.figures.items():
        with written_whole(folder / f"{name}.png") as file:
            file.write(as_png(figure))
        with written_whole(folder / f"{name}.svg") as file:
            file.write(as_svg(figure).encode())
    write_events(folder, shown.figures)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Records as CSV, with a header of all their fields in the order in which they first appear."""
    fields = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_png(figure: Figure) -> bytes:
    """The figure as PNG in print resolution."""
    from callbacks.figures import PRINT_DPI

    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=PRINT_DPI)
    return data.getvalue()


def write_events(folder: Path, figures: dict[str, Figure]) -> None:
    """Write the figures for TensorBoard, in place of those of an earlier run."""
    from torch.utils.tensorboard import SummaryWriter

    from callbacks.figures import pixels

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_image(name, pixels(figure), dataformats="HWC")
    for new in folder.glob("events.out.tfevents.*"):
        new.rename(folder / "events.out.tfevents.0.reproduce")  # without the machine's name


def print_experiment(record: dict[str, Any], shown: Presentation, folder: Path) -> None:
    """Print the tables, the claims and sentences, and the paths of the figures."""
    typer.echo(f"{record['experiment']} ({record['scale']}): {record['title']}  [{record['source']}]")
    for warning in record["warnings"]:
        typer.echo(f"note: {warning}")
    if shown.comparisons:
        print_table("ours beside the published numbers", HEADER, [each.cells() for each in shown.comparisons])
    for table in shown.tables:
        print_table(table.title, table.header, list(table.rows))
    for claim in shown.claims:
        typer.echo(f"- {claim.text} [{claim.source}]: {claim.verdict}. {claim.seen}")
    for sentence in shown.sentences:
        typer.echo(f"- {sentence}")
    names = ", ".join(f"{name}.png" for name in shown.figures)
    typer.echo(f"results: {folder}: results.json, results.csv, {names} (and .svg)")
