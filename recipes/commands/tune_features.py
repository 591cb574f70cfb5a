"""`kl tune --learn-features`: the parameters of a recursive feature machine, by a random search."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kl.checks import check_count
from kl.errors import InputError
from kl.system.files import written_whole

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl.kernels.kernel import Kernel
    from kl.tuning.features import FeaturePoint, FeatureTuning
    from recipes.commands.tune_options import TuneOptions
    from recipes.options.groups import DataOptions, RunOptions

log = logging.getLogger(__name__)

SCHEMA = 1
SHOWN = 10  # candidates in the table on the screen
OF_GRID = ("bandwidths", "ridges", "by", "folds", "metric", "finalists", "one_standard_error")
"""Options of the search without --learn-features alone."""


def check_feature_options(options: TuneOptions, validation: float) -> None:
    """Check that no option is given that the random search does not take.

    Raises:
        InputError: one is given, or a validation part is held out.
    """
    check_count("learn_features", options.learn_features)
    check_count("candidates", options.candidates)
    defaults = {each.name: each.default for each in fields(options)}
    for name in OF_GRID:
        if (value := getattr(options, name)) != defaults[name]:
            raise InputError(f"{name} is not for learn_features, whose search draws it; got {value}: leave it out")
    if validation:
        raise InputError(
            "validation rows would go unused, since learn_features scores candidates on 5 parts of the training rows: "
            "leave --validation out"
        )


def tune_features(
    datamodule: KernelDataModule,
    kernels: str | list[str | Kernel],
    subsample: int | str,
    data: DataOptions,
    options: TuneOptions,
    run: RunOptions,
    device: str,
    folder: Path,
) -> tuple[dict[str, Any], FeatureTuning]:
    """Search, fit the choice to all rows, evaluate it on the test set, and write the folder of results."""
    import kl
    from kl.features.chain import evaluate_solution
    from kl.machines.described import describe_data, scale_of
    from kl.metrics import evaluate_scores
    from kl.solve import Problem
    from kl.system.memory import peak_memory
    from recipes.output.hardware import origin

    assert options.learn_features is not None  # the command has seen to it
    start = time.perf_counter()
    x, y = datamodule.train_set.x.to(device), datamodule.train_set.y.to(device)
    tuning = kl.tune_features(
        *(x, y),
        kernels=kernels,
        rounds=options.learn_features,
        candidates=options.candidates,
        subsample=subsample,
        seed=run.seed,
        memory=run.memory,
        task=datamodule.task,
        progress=lambda line: log.info("%s", line),
    )
    seconds = time.perf_counter() - start
    fit = tuning.best.candidate.fit(Problem.of(x, y.double()), tuning.best.round, run.seed, run.memory)
    scale = scale_of(describe_data(datamodule))
    unit = 1.0 if scale is None else float(scale.square().mean())
    rows, test = datamodule.test_set, dict.fromkeys(("mse", "error", "error_noisy"))
    if rows is not None:
        outputs = evaluate_solution(fit.solution, rows.x.to(device)).cpu()
        classifier = datamodule.task == "classification"
        test = evaluate_scores(outputs, rows.y, rows.y_noisy, classifier, scale)  # type: ignore[assignment]
    results = {
        "schema": SCHEMA,
        **origin(),
        "data": datamodule.name,
        "data_source": datamodule.source,
        "n": len(x),
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "rows": tuning.rows,
        "best": point_values(tuning.best, unit),
        "points": [point_values(each, unit) for each in tuning.points],
        "options": vars(data) | vars(options) | vars(run),
        **{f"test_{name}": value for name, value in test.items()},
        "rkhs_norm": fit.solution.rkhs_norm,
        "seconds_tuning": seconds,
        "seconds_total": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory(device),
        "log_dir": str(folder),
    }
    write(folder, tuning, results, vars(data) | {"seed": run.seed}, fit.solution.kernel)
    return results, tuning


def point_values(point: FeaturePoint, unit: float) -> dict[str, Any]:
    """A candidate as plain values; errors are multiplied by the squared unit of the targets."""
    from recipes.output.report import kernel_results

    candidate = point.candidate
    chosen = {name: getattr(candidate, name) for name in ("metric", "bandwidth_factor", "ridge", "power")}
    errors = [error * unit for error in point.errors]
    return {
        **kernel_results(candidate.kernel),
        **chosen,
        "round": point.round,
        "mse": point.score * unit,
        "mse_of_rounds": errors,
        "parts": point.parts,
    }


def write(
    folder: Path, tuning: FeatureTuning, results: dict[str, Any], data_options: dict[str, Any], kernel: Kernel
) -> None:
    """Write config.yaml, results.csv and results.json, each whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    from recipes.options.config import dump_config
    from recipes.output.report import plain_values

    text = io.StringIO()
    names = [name for name in results["points"][0] if name not in ("kernel_parameters", "mse_of_rounds")]
    table = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    table.writerows(results["points"])
    config = fit_options(tuning.best, results["options"]["learn_features"], data_options, kernel)
    for name, content in (
        ("config.yaml", dump_config(config).encode()),
        ("results.csv", text.getvalue().encode()),
        ("results.json", json.dumps(plain_values(results), indent=1).encode() + b"\n"),
    ):
        with written_whole(folder / name) as file:
            file.write(content)


def fit_options(point: FeaturePoint, rounds: int, data_options: dict[str, Any], kernel: Kernel) -> dict[str, Any]:
    """The choice as options of `kl fit`: of the plain kernel, if round 0 was the best."""
    from recipes.commands.tune_output import fit_options

    candidate = point.candidate
    if point.round == 0:
        return fit_options(kernel, candidate.ridge, data_options)
    return {
        **fit_options(candidate.kernel, candidate.ridge, data_options),
        "learn_features": rounds,
        "metric": candidate.metric,
        "bandwidth_factor": candidate.bandwidth_factor,
        "metric_power": candidate.power,
    }


def print_results(results: dict[str, Any], tuning: FeatureTuning) -> None:
    """Print the best candidates, the test error of the first, and where the files are."""
    from recipes.commands.tune_output import print_end
    from recipes.output.report import kernel_text, print_table

    whole = [each for each in results["points"] if each["parts"] == results["best"]["parts"]]
    order = sorted(
        zip(whole, [each for each in tuning.points if each.parts == tuning.best.parts], strict=True),
        key=lambda pair: pair[0]["mse"],
    )
    rows = [
        (
            kernel_text(point.candidate.kernel),
            each["metric"],
            f"{each['bandwidth_factor']:.3g}",
            f"{each['ridge']:.2g}",
            f"{each['power']:g}",
            f"{each['round']}",
            f"{each['mse']:.3e}",
            f"{each['mse_of_rounds'][0]:.3e}",
        )
        for each, point in order[:SHOWN]
    ]
    size = f"n={results['n']} d={results['d']} c={results['c']}"
    tried = f"{len(whole)} candidates, {len(results['points']) - len(whole)} given up"
    print_table(
        f"{results['data']}  {size}  on 5 parts of {results['rows']} rows, {tried}",
        ("", "metric", "bandwidth, medians", "ridge", "power", "round", "mse", "mse of round 0"),
        rows,
    )
    print_end(results, "results.json, results.csv")
