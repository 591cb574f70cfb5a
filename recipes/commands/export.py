"""`kl export`: the part of a checkpoint that predicts, in the smallest file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recipes.options.groups import OwnKernels

if TYPE_CHECKING:
    from kl import KernelModel


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="The best.ckpt or last.ckpt of a run of kl fit.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", help="The file to write, which kl predict reads.")],
    kernel: OwnKernels = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Write the weights and centres of a checkpoint, and nothing of its training.

    Centres that are 8-bit pixels take a byte a feature. kl predict gives the same scores; kl fit cannot resume from it.
    """
    import kl
    from recipes.output.report import print_json
    from recipes.run.build import check_new_file, import_own_first

    check_new_file("output", output)
    import_own_first()
    model = kl.KernelModel.from_machine(kl.load_machine(checkpoint, kernel or None))
    save_model("output", model, output)
    before, after = checkpoint.stat().st_size, output.stat().st_size
    (p, d), c = model.centers.shape, model.alpha.shape[1]
    if json:
        print_json({"output": str(output), "bytes": after, "bytes_before": before, "p": p, "d": d, "c": c})
    else:
        typer.echo(f"p={p} d={d} c={c}: {after / 1e6:.2f} MB written to {output} ({before / 1e6:.2f} MB before)")


def save_model(option: str, model: KernelModel, path: Path) -> None:
    """Write the model, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    from kl import InputError

    try:
        model.save(path)
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {error.strerror or error}") from error
