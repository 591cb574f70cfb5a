"""`kl report`: one page of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recipes.run.imports import quick_imports

PAGE = "report.html"


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs of kl fit, folders of their versions (the latest is taken), or checkpoints in them.",
            metavar="RUN...",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write; default: report.html in the run's folder, or in the deepest folder that holds all "
            "runs.",
            metavar="FILE.html",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Write one self-contained HTML page of runs of kl fit, several side by side.

    Curves against the exact limit, final numbers, confusion, worst errors, spectrum, the options that differ, machine
    and commit. It reads what the runs have left in their folders and computes nothing. For example:

    kl report lightning_logs/digits-laplacian lightning_logs/digits-gaussian
    """
    with quick_imports():
        from callbacks.figures import CYCLE
        from kl.errors import InputError
        from kl.system.files import written_whole
        from recipes.output.report import print_json
        from recipes.report.folders import common_folder, find_run, labels_of
        from recipes.report.page import page
        from recipes.report.reading import read_run
        from recipes.run.build import check_new_file

    found = list({each.folder.resolve(): each for each in map(find_run, runs)}.values())
    if len(found) > len(CYCLE):
        raise InputError(f"runs must be at most {len(CYCLE)}, each with a colour; got {len(found)}: leave some out")
    folders = [each.folder for each in found]
    path = output or common_folder(folders) / PAGE
    check_new_file("output", path)
    if path.suffix.lower() not in (".html", ".htm"):  # a checkpoint, say, would be overwritten
        raise InputError(f"output must be a file whose name ends in .html; got {str(path)!r}")
    read = [read_run(each, label) for each, label in zip(found, labels_of(folders), strict=True)]
    html = page(read).encode(errors="replace")  # names of folders and of a file may hold what is no character
    try:
        with written_whole(path) as file:
            file.write(html)
    except OSError as error:
        raise InputError(
            f"output {path} cannot be written: {error.strerror or error}: give another --output"
        ) from error
    if json:
        described = [{"folder": str(run.folder), "finished": run.finished, "notes": run.notes} for run in read]
        print_json({"output": str(path.absolute()), "bytes": len(html), "runs": described})
        return
    for each in found:
        if each.said:
            typer.echo(each.said)
    typer.echo(f"page: {path} ({len(html) / 1e6:.2f} MB)")
