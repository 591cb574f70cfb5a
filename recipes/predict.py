"""`kl predict`: classes and scores from a checkpoint, with no training data at hand."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recipes.options import MAX_PIXELS_HELP

if TYPE_CHECKING:
    from torch import Tensor

    from kl.expansion import KernelExpansion

BATCH = 4096


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="The last.ckpt of a run of kl fit.", show_default=False)],
    source: Annotated[
        Path, typer.Option("--input", help="A .npz with x (or x_test), an image, or a folder of images.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The .csv file to write.")],
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            help="A kernel of your own in the checkpoint, whose code runs, package.module:Class; again for another.",
            metavar="NAME",
        ),
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(help=MAX_PIXELS_HELP)] = None,
    accelerator: Annotated[str, typer.Option(help="Hardware.", metavar="auto|cpu|gpu")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Write the class, its margin over the next and all scores of every input row to a CSV file.

    The margin is the largest score less the second largest. For regression there are only the outputs.
    """
    import torch

    import kl
    from kl.wording import counted
    from recipes.build import check_run, device_of, import_own_first
    from recipes.options import RunOptions
    from recipes.report import print_json

    run = RunOptions(accelerator=accelerator)
    check_run(run)
    import_own_first()
    machine = kl.load_machine(checkpoint, kernel or None).to(device_of(run))
    names, x = read_inputs(source, machine, max_pixels)
    with torch.inference_mode():
        scores = torch.cat([machine(rows.to(machine.device)).cpu() for rows in x.split(BATCH)])
    header, rows = table_of(machine, names, scores)
    write_csv(output, header, rows)
    if json:
        print_json({"rows": len(rows), "output": str(output), "columns": header})
    else:
        typer.echo(f"{counted(len(rows), 'row')} written to {output}")


def read_inputs(source: Path, machine: KernelExpansion, max_pixels: int | None = None) -> tuple[list[str], Tensor]:
    """A name for every row, and the features, shape (m, d).

    Raises:
        InputError: the input is none of the three kinds, or does not fit the machine.
    """

    import numpy as np

    from datamodules.arrays import features_of, read_first
    from datamodules.images import MAX_PIXELS, check_max_pixels, decode_image
    from datamodules.listing import EXTENSIONS, image_files
    from kl import InputError
    from kl.encoding import FeatureEncoding

    if not source.exists():
        raise InputError(f"input must be a .npz file, an image or a folder of images; there is no {source}")
    width, encoding = machine.centers.shape[1], FeatureEncoding.from_dict(machine.data_info["encoding"])
    if source.suffix == ".npz":
        key, array = read_first(source, ("x", "x_test"))
        given = math.prod(array.shape[1:])
        if array.ndim > 1 and given != width:
            raise InputError(f"input {source}: {key} must have {width} features, as in training; got {given}")
        x = features_of(f"{key} of input {source}", array, encoding)
        return [str(i) for i in range(len(x))], x
    shape = machine.data_info.get("image_shape")
    if not shape:
        raise InputError(f"input must be a .npz file, since this machine was not trained on images; got {source}")
    files = [source]
    if source.is_dir():
        files = list(image_files(source).values())
        if not files:
            raise InputError(f"input {source} holds no images ({', '.join(EXTENSIONS)})")
    channels, height, wide = shape
    background = machine.data_info["background"]
    limit = MAX_PIXELS if max_pixels is None else check_max_pixels(max_pixels)
    pixels = [decode_image(path, str(path), channels == 1, (height, wide), background, limit) for path in files]
    return [str(path) for path in files], features_of(f"input {source}", np.stack(pixels), encoding)


def table_of(machine: KernelExpansion, names: list[str], scores: Tensor) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the CSV file."""
    columns = scores.shape[1]
    values = scores.tolist()
    if not machine.is_classifier:
        return ["row", *(f"output_{k}" for k in range(columns))], [[n, *v] for n, v in zip(names, values, strict=True)]
    classes = machine.data_info.get("class_names") or [str(k) for k in range(columns)]
    top = scores.topk(2, dim=1)
    margin = (top.values[:, 0] - top.values[:, 1]).tolist()
    best = [classes[k] for k in top.indices[:, 0].tolist()]
    header = ["row", "class", "margin", *(f"score_{name}" for name in classes)]
    return header, [[n, b, g, *v] for n, b, g, v in zip(names, best, margin, values, strict=True)]


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write the file whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    from kl import InputError
    from kl.files import written_whole

    if path.is_dir() or not path.name or (path.exists() and not path.is_file()) or path.is_symlink():
        raise InputError(f"output must be the path of a .csv file to write; {str(path)!r} is something else")
    try:
        with written_whole(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(text).writerows([header, *rows])
            text.detach()  # flushes, and leaves the file open
    except OSError as error:
        raise InputError(f"output {path} cannot be written: {error.strerror}: give another --output") from error
