"""`kl tune`: kernel, bandwidth and ridge, chosen without a validation set."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.commands.tune_options import GRID_KERNELS, TuneOptions
from recipes.options.groups import DataOptions, OutputOptions, RunOptions, takes
from recipes.run.imports import quick_imports

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl.kernels.kernel import Kernel
    from kl.tuning.progress import TuningProgress

log = logging.getLogger(__name__)

SAID_EVERY = 1.0  # seconds between two lines of progress, at least


@takes(DataOptions, TuneOptions, RunOptions, OutputOptions)
def tune(data: DataOptions, options: TuneOptions, run: RunOptions, output: OutputOptions) -> None:
    """Choose kernel, bandwidth and ridge by exact leave-one-out scores: no validation set, one decomposition a kernel.

    The best is then solved on all training rows, and the test set is read once. The folder of results has tables, a
    figure, and a config.yaml for kl fit and kl interpolate. The same command given again goes on after an interrupt.

    With --learn-features the candidates are recursive feature machines, drawn at random, scored on 5 parts of the rows.

    For example: kl tune --data digits --kernels laplacian,gaussian
    """
    with quick_imports():
        import kl
        from kl.exact.limit import NoLimit, evaluate_on, exact_limit
        from kl.machines.described import describe_data, scale_of
        from kl.system.memory import peak_memory
        from kl.tuning.features import KERNELS
        from recipes.commands.tune_features import check_feature_options, print_results, tune_features
        from recipes.commands.tune_output import print_tuning, tuning_results, write_tuning
        from recipes.output.report import print_json
        from recipes.run.build import build_data, check_run, import_own_first
        from recipes.run.folders import check_name, folder_name, require_writable
        from recipes.run.processes import device_of

    check_run(run)
    if run.precision != "high":
        raise kl.InputError(f"precision must be high, since scores are computed in float64; got {run.precision!r}")
    check_name(options.name)
    import_own_first()
    learning = options.learn_features is not None
    if learning:
        check_feature_options(options, data.validation)
    elif options.candidates != TuneOptions.candidates:
        raise kl.InputError(
            f"candidates is for learn_features; got {options.candidates}: give --learn-features 5 as well"
        )
    by_default = options.kernels is None
    if by_default:
        options = replace(options, kernels=",".join(KERNELS) if learning else GRID_KERNELS)
    kernels, bandwidths, ridges = build_kernels(options), read_bandwidths(options.bandwidths), read_ridges(options)
    if data.augment is not None:
        raise kl.InputError(
            f"augment is for kl fit and kl interpolate; got {data.augment!r}: leave it out, and give it to those with "
            "the chosen kernel and ridge"
        )
    by = choose_by(options.by, data.validation)
    subsample = read_subsample(options.subsample)
    folder = Path(options.log_dir, folder_name(options.name or data.data))
    require_writable(str(folder))
    datamodule = build_data(data, run.seed, shift=all(each.shift_invariant for each in kernels), memory=run.memory)
    datamodule.prepare_data()
    datamodule.setup()
    start, device = time.perf_counter(), device_of(run)
    if learning:
        searched = searched_kernels(options, by_default)
        found_features, tried = tune_features(datamodule, searched, subsample, data, options, run, device, folder)
        if output.json:
            print_json(found_features)
        else:
            print_results(found_features, tried)
        return
    x, y = datamodule.train_set.x.to(device), datamodule.train_set.y.to(device)
    tuning = kl.tune(
        x,
        y,
        kernels=kernels,
        bandwidths=bandwidths,
        ridges=ridges,
        by=held_out(datamodule) if by == "validation" else by,
        folds=options.folds,
        metric=options.metric,
        subsample=subsample,
        finalists=options.finalists,
        one_standard_error=options.one_standard_error,
        seed=run.seed,
        memory=run.memory,
        task=datamodule.task,
        progress=Speaker(),
        folder=folder / "points",
    )
    seconds = time.perf_counter() - start
    # With leave-one-out predictions where kl fit and kl interpolate take them, so that these read the solution.
    found = exact_limit(tuning.kernel, x, y, ridge=tuning.ridge, memory=run.memory, leave_one_out=None)
    if isinstance(found, NoLimit):
        raise found.reason
    scale = scale_of(describe_data(datamodule))
    if scale is not None:
        tuning = tuning.in_units(scale.tolist())
    test = evaluate_on(datamodule.test_set, found.solution, datamodule.task == "classification", scale)
    results = tuning_results(tuning, datamodule, by, vars(data) | vars(options) | vars(run)) | {
        **{f"test_{name}": value for name, value in test.items()},
        "rkhs_norm": found.solution.rkhs_norm,
        "seconds_tuning": seconds,
        "seconds_total": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory(device),
        "log_dir": str(folder),
    }
    write_tuning(folder, tuning, results, vars(data) | {"seed": run.seed})
    if output.json:
        print_json(results)
    else:
        print_tuning(tuning, results)


class Speaker:
    """Logs progress: at most a line a second, and the end of each stage."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, progress: TuningProgress) -> None:
        """Log a report, unless the last one was a moment ago."""
        if progress.done == progress.total or time.monotonic() - self._said >= SAID_EVERY:
            log.info("%s", progress)
            self._said = time.monotonic()


def searched_kernels(options: TuneOptions, by_default: bool) -> str | list[str | Kernel]:
    """The kernels of --learn-features: by name, so that their exponents are searched, unless parameters are given.

    Args:
        options: the options.
        by_default: whether --kernels was left out.

    Raises:
        InputError: as `build_kernels`.
    """
    given = named_kernels(options)
    if by_default and not any(given.values()):
        return "auto"  # which looks at the number of columns
    kernels = zip(given.items(), build_kernels(options), strict=True)
    return [kernel if parameters else name for (name, parameters), kernel in kernels]


def build_kernels(options: TuneOptions) -> list[Kernel]:
    """The kernels that --kernels names, each with those parameters that it has.

    Raises:
        InputError: a kernel is unknown, or none of them has a parameter that is given.
    """
    import kl

    return [kl.build_kernel(name, **parameters) for name, parameters in named_kernels(options).items()]


def named_kernels(options: TuneOptions) -> dict[str, dict[str, Any]]:
    """The names in --kernels, each with those of the given parameters that the kernel has.

    Raises:
        InputError: a kernel is unknown, or none of them has a parameter that is given.
    """
    import inspect

    import kl
    from kl.kernels.registry import kernel_class

    names = parts_of("kernels", GRID_KERNELS if options.kernels is None else options.kernels, "laplacian,gaussian")
    accepted = {name: set(inspect.signature(kernel_class(name)).parameters) for name in names}
    given = {name: getattr(options, name) for name in ("depth", "bias", "power", "degree", "p", "q")}
    given = {name: value for name, value in given.items() if value is not None}
    for parameter in given:
        if not any(parameter in each for each in accepted.values()):
            raise kl.InputError(
                f"{parameter} must be a parameter of one of the kernels; got kernels {', '.join(names)}: leave "
                f"--{parameter} out, or add a kernel that has it"
            )
    return {name: {key: value for key, value in given.items() if key in accepted[name]} for name in names}


def read_bandwidths(text: str) -> list[float] | str:
    """The numbers of --bandwidths, or "auto".

    Raises:
        InputError: the text is neither.
    """
    from kl.checks import check_positive

    if text.strip() == "auto":
        return "auto"
    numbers = numbers_of("bandwidths", text, "auto, or 1,2,4")
    return [check_positive("bandwidths", each, remedy="leave it out, or give auto") for each in numbers]


def read_ridges(options: TuneOptions) -> list[float]:
    """The numbers of --ridges.

    Raises:
        InputError: the text holds something else, or a negative number.
    """
    from kl.tuning.tune import check_ridges

    return check_ridges(numbers_of("ridges", options.ridges, "0,1e-6,1e-3,1"))


def read_subsample(text: str) -> int | str:
    """The number of --subsample, or "auto".

    Raises:
        InputError: the text is neither.
    """
    from recipes.run.build import parse_auto

    return parse_auto("subsample", text, int)


def choose_by(by: str, validation: float) -> str:
    """What --by means: "loo", "kfold" or "validation".

    Raises:
        InputError: there is no such choice, or it does not go with --validation.
    """
    import kl
    from kl.checks import check_one_of

    check_one_of("by", by, ("auto", "loo", "kfold", "validation"))
    if by == "auto":
        return "validation" if validation else "loo"
    if by == "validation" and not validation:
        raise kl.InputError(
            "by validation needs rows to score on, and none are held out: give --validation 0.1 as well"
        )
    if by != "validation" and validation:
        raise kl.InputError(
            f"by {by} leaves rows out of the training set, so those of validation {validation:g} would go unused: "
            "leave --validation out, or give --by validation"
        )
    return by


def parts_of(name: str, text: str, example: str) -> list[str]:
    """The parts of a list that is separated by commas.

    Raises:
        InputError: a part is empty.
    """
    import kl

    parts = [each.strip() for each in text.split(",")]
    if not all(parts):
        raise kl.InputError(
            f"{name} must be separated by commas, none of them empty; got {text!r}: try --{name} {example}"
        )
    return parts


def numbers_of(name: str, text: str, example: str) -> list[float]:
    """The numbers of a list that is separated by commas.

    Raises:
        InputError: a part is no number.
    """
    import kl

    found = []
    for part in parts_of(name, text, example):
        try:
            found.append(float(part))
        except ValueError as error:
            raise kl.InputError(
                f"{name} must be numbers separated by commas; got {part!r}: try --{name} {example}"
            ) from error
    return found


def held_out(datamodule: KernelDataModule) -> Any:
    """The rows that --validation holds out, with labels as noisy as those of the training set."""
    rows = datamodule.validation_set
    assert rows is not None
    return rows.x, rows.y if rows.y_noisy is None else rows.y_noisy
