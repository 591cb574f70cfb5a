"""The data module, the kernel and the machine that options describe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kl.errors import InputError
from recipes.options.solvers import SOLVERS
from recipes.output.remedies import as_options
from recipes.run.mirror_images import check_mirrored, mirrored_kernel, takes_random_images, without_flip

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from datamodules import KernelDataModule
    from kl import Kernel
    from kl.machines.machine import TrainedExpansion
    from recipes.options.groups import DataOptions, ExactOptions, KernelOptions, RunOptions, SolverOptions


Number = TypeVar("Number", int, float)


def build_data(
    options: DataOptions, seed: int, centers: int = 0, shift: bool = True, memory: str = "auto"
) -> KernelDataModule:
    """The data module that --data and its options describe; a stream's sample has at least as many rows as centres.

    `shift` says whether features may be shifted, as with a shift-invariant kernel; `memory` is for reading a .npz file
    or a table.

    Raises:
        InputError: an option is out of its range or does not apply, or the data is not available.
    """
    from datamodules import ArrayDataModule, TableDataModule, build_datamodule

    import_own_first()
    extra: dict[str, Any] = {}
    if options.grayscale:
        extra["grayscale"] = True
    if options.data.startswith("stream:"):
        from datamodules.stream import SAMPLE_SIZE

        extra["sample_size"] = max(SAMPLE_SIZE, centers)
    if options.task != "auto":
        extra["task"] = options.task
    if not shift:
        extra["shift"] = False
    extra |= table_options(options)
    if (patches := patch_options(options)) is not None:
        extra["patches"] = {**patches, "seed": seed, "memory": memory}
    for name in ("augment", "image_size", "background", "max_pixels"):
        if getattr(options, name) is not None:
            extra[name] = getattr(options, name)
    datamodule = build_datamodule(
        options.data,
        data_dir=options.data_dir,
        train_size=options.train_size,
        test_size=options.test_size,
        label_noise=options.label_noise,
        noise_kind=options.noise_kind,
        noise_seed=seed,
        seed=seed,
        batch_size=None,
        validation=options.validation,
        **extra,
    )
    if isinstance(datamodule, ArrayDataModule | TableDataModule):
        datamodule.memory = memory
    return datamodule


TABLES = ("csv:", "parquet:")
TABLE_OPTIONS = {
    "target": "target",
    "test_data": "test_path",
    "test_share": "test_share",
    "categorical": "categorical",
    "numeric": "numeric",
    "drop": "drop",
    "delimiter": "delimiter",
}
"""Options of a table, and the arguments of `datamodules.TableDataModule` that they are."""


def table_options(options: DataOptions) -> dict[str, Any]:
    """The arguments that the options of a table are, without those that are not given.

    Raises:
        InputError: one is given, and the data are no table.
    """
    given = {name: value for name in TABLE_OPTIONS if (value := getattr(options, name)) is not None}
    if given and not options.data.startswith(TABLES):
        name = next(iter(given)).replace("_", "-")
        raise InputError(f"{name} is of a table; got --{name} with --data {options.data}: give --data csv:FILE")
    return {TABLE_OPTIONS[name]: value for name, value in given.items()}


PATCHES = "patches"


def patch_options(options: DataOptions) -> dict[str, Any] | None:
    """The arguments of `kl.Patches` that --features and its options are; None where the features are plain.

    Raises:
        InputError: --features has another value, or an option of patches is given without them.
    """
    named = {name: value for name, value in vars(options).items() if name.startswith("patch_")}
    given = {
        name.removeprefix("patch_"): each for name, each in named.items() if each is not None and each is not False
    }
    kind, colon, count = options.features.partition(":")
    if kind == PATCHES and (not colon or count.isdecimal()):
        found = {**given, **({"count": int(count)} if colon else {})}
        require_patches(found)
        counts = found.get("encoding") == "count"
        if (unused := "threshold" if counts else "active") in found:
            other = "soft or rectified" if counts else "count"
            raise InputError(
                f"--patch-{unused} is of --patch-encoding {other}; got {found[unused]}: leave it out, or give that "
                "encoding"
            )
        return found
    if options.features != "plain":
        raise InputError(f"features must be plain, {PATCHES} or {PATCHES}:COUNT; got {options.features!r}")
    if given:
        raise InputError(f"--patch-{next(iter(given))} is of image patches: give --features {PATCHES} as well")
    return None


def require_patches(options: dict[str, Any]) -> None:
    """Check arguments of `kl.Patches`, whose options have other names.

    Raises:
        InputError: one is out of its range; the message names the option.
    """
    from kl.features.patches import Patches

    try:
        Patches(**options)
    except InputError as error:
        raise InputError(as_options(f"patches: {error}")) from None


def build_kernel(options: KernelOptions) -> Kernel:
    """The kernel that --kernel and its options describe.

    Raises:
        InputError: the kernel is unknown, or a parameter is out of its range or not one of this kernel.
    """
    import kl

    import_own_first()
    bandwidth = None if options.bandwidth is None else parse_auto("bandwidth", options.bandwidth, float)
    return kl.build_kernel(
        options.kernel,
        bandwidth=bandwidth,
        depth=options.depth,
        bias=options.bias,
        power=options.power,
        degree=options.degree,
        p=options.p,
        q=options.q,
    )


def import_own_first() -> None:
    """Import this project's packages before a user's module, whose folder may have some of the same names."""
    import callbacks  # noqa: F401
    import datamodules  # noqa: F401
    import kl  # noqa: F401


def build_run(
    data: DataOptions, kernel: KernelOptions, solver: SolverOptions, exact: ExactOptions, run: RunOptions
) -> tuple[KernelDataModule, TrainedExpansion]:
    """The data module and the machine of a training run.

    Raises:
        InputError: an option is out of its range or does not apply, or the data is not available.
    """
    centers = solver.centers or "2000"
    sampled = int(centers) if "centers" in SOLVERS[solver.solver].arguments and centers.isdecimal() else 0
    mirrored = not takes_random_images(solver.solver) and check_mirrored(data, solver.solver)
    datamodule, chosen = build_data_and_kernel(data, kernel, run, mirrored, sampled)
    return datamodule, build_machine(chosen, solver, exact, run, datamodule)


def build_data_and_kernel(
    data: DataOptions, kernel: KernelOptions, run: RunOptions, mirrored: bool, centers: int = 0
) -> tuple[KernelDataModule, Kernel]:
    """The data module and the kernel on its rows; with `mirrored` a kernel that takes mirror images for the same.

    Raises:
        InputError: an option is out of its range or does not apply, or the data is not available.
    """
    chosen = build_kernel(kernel)
    if not mirrored:
        return build_data(data, run.seed, centers, chosen.shift_invariant, run.memory), chosen
    datamodule = build_data(without_flip(data), run.seed, shift=False, memory=run.memory)
    return datamodule, mirrored_kernel(chosen, datamodule)


def build_machine(
    kernel: Kernel,
    solver: SolverOptions,
    exact: ExactOptions,
    run: RunOptions,
    datamodule: KernelDataModule,
) -> TrainedExpansion:
    """The machine that --solver and its options describe, not yet fitted.

    Centres from a file are encoded like the training rows, so the training rows are read first.

    Raises:
        InputError: an option is out of its range.
    """
    from kl.checks import check_not_negative

    chosen, given = SOLVERS[solver.solver], {**vars(run), **vars(solver), **vars(exact)}
    kinds = {"batch_size": int, "step_size": float, "top_q": int, "subsample": int, "projection_period": int}
    read: dict[str, Callable[[Any], Any]] = {
        **{name: partial(parse_auto, name, kind=kind) for name, kind in kinds.items()},
        "centers": partial(read_centers, datamodule=datamodule),
        "ridge": partial(check_not_negative, "ridge"),
    }
    arguments = {
        chosen.named.get(name, name): read.get(name, _as_it_is)(given[name])
        for name in given
        if name in chosen.own_arguments
    }
    if solver.learn_features is not None:
        for argument, names in chosen.grouped.items():
            arguments[argument] = {inner: given[name] for name, inner in names.items()}
    return chosen.machine_class(kernel, **arguments, **chosen.fixed)  # type: ignore[call-arg, arg-type]


def _as_it_is(value: Any) -> Any:
    return value


def read_centers(text: str | None, datamodule: KernelDataModule) -> int | Tensor:
    """The number or the array that --centers means; 2000 if it is not given.

    Raises:
        InputError: it is neither a whole number nor a .npz file with an array centers.
    """
    from datamodules.samples import features_of, read_first

    if text is None:
        return 2000
    if text.endswith(".npz"):
        samples = read_first(text, ("centers",))[1]
        datamodule.prepare_data()
        datamodule.setup()
        return features_of("centers", samples, datamodule.encoding)
    if not text.isdecimal():
        raise InputError(f"centers must be a whole number of at least 1, or a .npz file; got {text!r}")
    return int(text)


def parse_auto(name: str, text: str, kind: type[Number]) -> Number | str:
    """The number that an option's text is, or "auto".

    Raises:
        InputError: the text is neither.
    """
    if str(text) == "auto":
        return "auto"
    try:
        return kind(text)  # type: ignore[call-arg]
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{name} must be {what} or auto; got {text!r}") from error


def check_new_file(option: str, path: Path) -> None:
    """Check the path of a file to write, before its content is computed.

    Raises:
        InputError: the folder is missing, or something that is no file is there.
    """
    if (path.exists() and not path.is_file()) or path.is_symlink():
        raise InputError(f"{option} must be the path of a file to write; {str(path)!r} is something else")
    if not path.parent.is_dir():
        what = "is no folder" if path.parent.exists() else "does not exist"
        raise InputError(f"{option}'s folder {str(path.parent)!r} {what}: make it, or give another --{option}")


def check_run(options: RunOptions) -> None:
    """Check the options that every computation has.

    Raises:
        InputError: an option is out of its range.
    """
    import torch

    from kl.checks import check_seed
    from kl.system.memory import parse_memory

    parse_memory(options.memory)
    check_seed("seed", options.seed)
    if options.precision not in ("high", "medium"):
        raise InputError(f"precision must be high or medium; got {options.precision!r}")
    if options.accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise InputError(f"accelerator must be auto, cpu or gpu; got {options.accelerator!r}")
    if options.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError(
            f"accelerator {options.accelerator!r} needs a CUDA device and torch sees none: use --accelerator cpu"
        )
