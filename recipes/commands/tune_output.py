"""What `kl tune` leaves: results.json, results.csv, tune.png and config.yaml in a folder, and a table on the screen."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kl.system.files import written_whole
from recipes.options.config import dump_config
from recipes.output.hardware import origin
from recipes.output.report import kernel_results, kernel_text, plain_values, print_table, readable_seconds, shortest

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl.kernels.kernel import Kernel
    from kl.tuning.result import Tuning, TuningPoint

SCHEMA = 1
SHOWN = 10  # candidates in the table on the screen
PARAMETERS = ("bandwidth", "depth", "bias", "power", "degree", "p", "q")  # of kernels, that have an option


def tuning_results(tuning: Tuning, datamodule: KernelDataModule, by: str, options: dict[str, Any]) -> dict[str, Any]:
    """The search as plain values, by the names of `kl tune --json`."""
    return {
        "schema": SCHEMA,
        **origin(),
        "data": datamodule.name,
        "data_source": datamodule.source,
        "n": len(datamodule.train_set),
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "label_noise": datamodule.label_noise,
        "by": by,
        "metric": tuning.metric,
        "stage": tuning.stage,
        "remarks": list(tuning.remarks),
        "best": point_values(tuning.best),
        "points": [point_values(each) for each in tuning.points],
        "options": options,
    }


def point_values(point: TuningPoint) -> dict[str, Any]:
    """A candidate as plain values."""
    names = ("ridge", "score", "standard_error", "mse", "output_mse", "error", "log_loss", "rkhs_norm", "rows", "stage")
    return {**kernel_results(point.kernel), **{name: getattr(point, name) for name in names}}


def write_tuning(folder: Path, tuning: Tuning, results: dict[str, Any], data_options: dict[str, Any]) -> None:
    """Write all files of the folder, each whole or not at all, results.json last.

    Raises:
        OSError: a file cannot be written.
    """
    from callbacks.figures import PRINT_DPI
    from recipes.commands.tune_figure import draw_tuning

    figure = draw_tuning(tuning, f"kl tune: {results['data']}, n={results['n']}, by {results['by']}")
    image = io.BytesIO()
    figure.savefig(image, dpi=PRINT_DPI, format="png")
    figure.clear()
    config = fit_options(tuning.kernel, tuning.ridge, data_options)
    for name, content in (
        ("config.yaml", dump_config(config).encode()),
        ("results.csv", as_csv(results["points"]).encode()),
        ("tune.png", image.getvalue()),
        ("results.json", json.dumps(plain_values(results), indent=1).encode() + b"\n"),
    ):
        with written_whole(folder / name) as file:
            file.write(content)


def fit_options(kernel: Kernel, ridge: float, data_options: dict[str, Any]) -> dict[str, Any]:
    """The choice as options of `kl fit` and `kl interpolate`, with the data that it was made on."""
    config = kernel.config()
    parameters = {name: config[name] for name in PARAMETERS if name in config}
    return {**data_options, "kernel": config["kernel"], **parameters, "ridge": ridge}


def as_csv(points: list[dict[str, Any]]) -> str:
    """The candidates as CSV, one a line; what does not apply is empty."""
    text = io.StringIO()
    fields = [name for name in points[0] if name not in ("kernel_parameters", "output_mse")]
    writer = csv.DictWriter(text, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(points)
    return text.getvalue()


def print_tuning(tuning: Tuning, results: dict[str, Any]) -> None:
    """Print the best candidates, the test error of the first, and where the files are."""
    classes = tuning.best.error is not None
    header = ("", "ridge", *(("error", "log loss") if classes else ()), "mse", "+-", "RKHS norm")
    best = [tuning.best, *(each for each in tuning.ranked() if each != tuning.best)]
    rows = [
        (
            kernel_text(each.kernel),
            f"{each.ridge:g}",
            *((f"{each.error:.2%}", f"{each.log_loss:.4f}") if classes else ()),
            f"{each.mse:.3e}",
            f"{each.standard_error:.2%}" if tuning.metric == "error" else f"{each.standard_error:.1e}",
            f"{each.rkhs_norm:.6g}",
        )
        for each in best[:SHOWN]
    ]
    size = f"n={results['n']} d={results['d']} c={results['c']}"
    print_table(
        f"{results['data']}  {size}  by {results['by']} on {tuning.best.rows} rows, {len(tuning.points)} candidates; "
        f"+- is the standard error of {tuning.metric.replace('_', ' ')}",
        header,
        rows,
    )
    for remark in tuning.remarks:
        typer.echo(f"note: {remark}")
    print_end(results, "results.json, results.csv, tune.png")


def print_end(results: dict[str, Any], files: str) -> None:
    """Print the test error of the best candidate, and where the files are."""
    if results["test_mse"] is not None:
        error = "" if results["test_error"] is None else f"error {results['test_error']:.2%}, "
        typer.echo(f"test of the first, solved on all rows: {error}mse {results['test_mse']:.3e}")
    folder = shortest(Path(results["log_dir"]).absolute())
    typer.echo(
        f"{readable_seconds(results['seconds_total'])} in all; results: {folder}: {files}; "
        f"train it: kl fit --config {folder}/config.yaml"
    )
