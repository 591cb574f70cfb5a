"""`kl predict`: classes and scores from a checkpoint, without the training data."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recipes.options.groups import DELIMITER_HELP, MAX_PIXELS_HELP, OwnKernels
from recipes.run.imports import quick_imports

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kl.machines.function import KernelFunction

log = logging.getLogger(__name__)

BATCH = 4096
REACH = 1e-6  # share of K(x, x); a row is far if its kernel values add up to at most this share


def predict(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A best.ckpt or last.ckpt of kl fit, or a file of kl export or kl interpolate --save.",
            show_default=False,
        ),
    ],
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            help="A .npz or .pt with x (or x_test), a .npy or .pt of one array, an image, a folder of them, or a "
            ".csv or .parquet with the columns of the training table.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="The .csv, .json or .npz file to write; - is CSV on standard output.")
    ],
    kernel: OwnKernels = None,
    max_pixels: Annotated[int | None, typer.Option(help=MAX_PIXELS_HELP)] = None,
    delimiter: Annotated[str | None, typer.Option(help=DELIMITER_HELP, metavar="CHARACTER|tab")] = None,
    accelerator: Annotated[str, typer.Option(help="Hardware.", metavar="auto|cpu|gpu")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Write the class, its margin over the next and all scores of every input row, and probabilities.

    The margin is the largest score less the second largest. For regression there are only the outputs. A row is far
    where no centre is near: its class means nothing. Probabilities are there if leave-one-out predictions gave
    the model a temperature: kl interpolate, the estimators, and kl fit of at most 5000 rows.
    """
    with quick_imports():
        import torch

        from kl.errors import InputError
        from kl.loading import load_function
        from kl.system.wording import counted
        from recipes.commands.predictions import STANDARD_OUTPUT, Predictions, check_output, write
        from recipes.options.groups import RunOptions
        from recipes.output.report import print_json
        from recipes.run.build import check_run, import_own_first
        from recipes.run.processes import device_of

    run = RunOptions(accelerator=accelerator)
    check_run(run)
    check_output(output)
    if json and output == STANDARD_OUTPUT:
        raise InputError("output - writes the rows to standard output, where json writes, too: drop one of them")
    import_own_first()
    machine = load_function(checkpoint, kernel or None).to(device_of(run))
    names, x = read_inputs(source, machine, max_pixels, delimiter)
    with torch.inference_mode():
        parts = [scores_of(machine, rows.to(machine.alpha.device)) for rows in x.split(BATCH)]
    scores, far = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    require_finite(source, names, x, scores, machine)
    classes = None
    if machine.is_classifier:
        classes = machine.data_info.get("class_names") or [str(k) for k in range(scores.shape[1])]
    probabilities = None if classes is None else machine.probabilities_of(scores)
    targets = list((machine.data_info.get("table") or {}).get("targets", []))
    named = targets if len(targets) == scores.shape[1] else None
    predictions = Predictions(names, machine.in_target_units(scores), far, classes, probabilities, named)
    if far.any():
        log.warning(
            "%d of %s: far from every centre, and what is predicted there means nothing (far: true): give rows in the "
            "units of the training rows",
            int(far.sum()),
            counted(len(far), "row"),
        )
    write(output, predictions)
    if json:
        print_json({"rows": len(names), "far": int(far.sum()), "output": str(output), "columns": predictions.columns})
    elif output != STANDARD_OUTPUT:
        typer.echo(f"{counted(len(names), 'row')} written to {output}")


def scores_of(
    machine: KernelFunction,
    x: Tensor,  # shape: (m, d)
) -> tuple[Tensor, Tensor]:
    """f(x), shape (m, c), and which rows are far, shape (m,).

    A row is far if its scores are all 0 or, with a shift-invariant kernel, if its kernel values add up to no more than
    REACH K(x, x).
    """
    scores = machine(x)
    far = (scores == 0).all(dim=1)
    if machine.kernel.shift_invariant:
        least = REACH * machine.kernel.diag(x)
        # |f_k(x)| <= max_j |alpha_jk| sum_j |K(x, z_j)|, so only rows of small scores can be far.
        small = scores.abs().amax(dim=1) <= least * machine.alpha.detach().abs().max()
        if small.any():
            far[small] |= machine.kernel_sums(x[small]) <= least[small]
    return scores, far


def require_finite(
    source: Path,
    names: list[str],
    x: Tensor,  # shape: (m, d)
    scores: Tensor,  # shape: (m, c)
    machine: KernelFunction,
) -> None:
    """Check that every row has finite scores.

    Raises:
        InputError: a score is not finite.
    """
    from kl import InputError

    bad = (~scores.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        reach, centers, weights = (float(v.detach().abs().max()) for v in (x[bad[0]], machine.centers, machine.alpha))
        raise InputError(
            f"input {source}: the scores of row {names[bad[0]]} ({len(bad)} of {len(names)} rows) are too large for "
            f"{str(scores.dtype).removeprefix('torch.')}: its features reach {reach:.3g}, the "
            f"centres' {centers:.3g}, the weights {weights:.3g}: "
            "remove such rows, or give another checkpoint"
        )


def read_inputs(
    source: Path, machine: KernelFunction, max_pixels: int | None = None, delimiter: str | None = None
) -> tuple[list[str], Tensor]:
    """A name for every row, and the features, shape (m, d).

    Raises:
        InputError: the input is of an unknown kind, or does not fit the machine.
    """

    import numpy as np

    from datamodules.images import MAX_PIXELS, check_max_pixels, decode_image
    from datamodules.listing import EXTENSIONS, image_files
    from datamodules.samples import features_of, require_alike
    from datamodules.single import ARRAY_FILES, read_array
    from datamodules.table_files import TABLE_FILES, encode_file
    from kl import InputError
    from kl.features.patches import patches_in
    from kl.rows.encoding import FeatureEncoding
    from kl.rows.table import TableEncoding

    if table := machine.data_info.get("table"):
        x = encode_file(source, TableEncoding.from_dict(table), delimiter)
        return [str(i) for i in range(len(x))], x
    if delimiter is not None:
        raise InputError(f"delimiter is of a CSV file, and the model was not trained on a table; got {delimiter!r}")
    if source.suffix.lower() in TABLE_FILES:
        raise InputError(
            f"input must be a {', '.join(ARRAY_FILES)} file, an image or a folder of images; the model was not "
            f"trained on a table, and {source} is one"
        )
    if not source.exists():
        raise InputError(
            f"input must be a {', '.join(ARRAY_FILES)} file, an image or a folder of images; there is no {source}"
        )
    encoding, patches = FeatureEncoding.from_dict(machine.data_info["encoding"]), patches_in(machine.data_info)
    shape = machine.data_info.get("image_shape") if patches is None else patches.image
    width = machine.centers.shape[1] if patches is None else math.prod(shape or ())

    def features(name: str, x: np.ndarray) -> Tensor:
        rows = features_of(name, x, encoding)
        return rows if patches is None else patches.transform_rows(rows)

    if source.suffix.lower() in ARRAY_FILES:
        key, array = read_array(source, ("x", "x_test"))
        given = math.prod(array.shape[1:])
        if array.ndim > 1 and given != width:
            raise InputError(f"input {source}: {key} must have {width} features, as in training; got {given}")
        require_alike(
            f"{key} of input {source}",
            array.shape[1:],
            "the training images",
            tuple(shape or ()),
        )
        x = features(f"{key} of input {source}", array)
        return [str(i) for i in range(len(x))], x
    if not shape:
        raise InputError(
            f"input must be a {', '.join(ARRAY_FILES)} file, since this machine was not trained on images; got {source}"
        )
    files = [source]
    if source.is_dir():
        files = list(image_files(source).values())
        if not files:
            raise InputError(f"input {source} holds no images ({', '.join(EXTENSIONS)})")
    channels, height, wide = shape
    background = machine.data_info["background"]
    limit = MAX_PIXELS if max_pixels is None else check_max_pixels(max_pixels)
    pixels = [decode_image(path, str(path), channels == 1, (height, wide), background, limit) for path in files]
    return [str(path) for path in files], features(f"input {source}", np.stack(pixels))
