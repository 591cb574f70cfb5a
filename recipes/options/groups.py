"""The options that commands share, each written once: dataclasses that become a command's signature.

A field's annotation holds its help and its panel; its default is the option's default.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from recipes.options.config import dump_config, load_config, refuse_code
from recipes.options.solvers import SOLVER_HELP, SOLVERS

Option = functools.partial(typer.Option, show_default=True)
_in_data = functools.partial(Option, rich_help_panel="Data")
_in_table = functools.partial(Option, rich_help_panel="Table (csv, parquet)")
_in_patches = functools.partial(Option, rich_help_panel="Image patches (--features patches)")
_in_kernel = functools.partial(Option, rich_help_panel="Kernel")
_in_solver = functools.partial(Option, rich_help_panel="Solver")
_in_run = functools.partial(Option, rich_help_panel="Run")
_in_output = functools.partial(Option, rich_help_panel="Output")

DATA_HELP = (
    "digits, mnist, fashion-mnist, cifar10, synthetic1, synthetic2 or another of `kl data list`, npz:FILE, csv:FILE, "
    "parquet:FILE, folder:DIR, stream:DIR, or package.module:Class."
)
KERNEL_HELP = (
    "gaussian, laplacian, exponential-power, matern32, matern52, inverse-multiquadric, polynomial, relu-ntk, "
    "relu-nngp, lpq-laplacian, dispersal, product-laplacian, or package.module:Class."
)

DELIMITER_HELP = "Between the columns of a CSV file; by default , ; tab or |, whichever the first lines have."
MAX_PIXELS_HELP = "An image file with more pixels is refused unread.  [default: 67108864]"

Data = Annotated[str, _in_data(help=DATA_HELP, metavar="NAME")]
DataDir = Annotated[
    str | None, _in_data(help="Folder of downloaded sets; default: $KL_DATA_DIR, else data/.", metavar="DIR")
]
Depth = Annotated[int | None, _in_kernel(help="Weight layers of relu-ntk and relu-nngp.  [default: 3]")]
Bias = Annotated[float | None, _in_kernel(help="Bias of relu-ntk, relu-nngp and polynomial.")]
Power = Annotated[float | None, _in_kernel(help="Power of exponential-power, in (0, 2].")]
P = Annotated[float | None, _in_kernel(help="Norm of lpq-laplacian, in (0, 2].  [default: 1]")]
Q = Annotated[float | None, _in_kernel(help="Power of lpq-laplacian, in (0, p].  [default: 1]")]
Degree = Annotated[int | None, _in_kernel(help="Degree of polynomial.")]
Accelerator = Annotated[str, _in_run(help="Hardware.", metavar="auto|cpu|gpu")]


@dataclass(frozen=True)
class DataOptions:
    """Which data, how much of it, and the noise on its labels."""

    data: Data = "digits"
    data_dir: DataDir = None
    train_size: Annotated[int | None, _in_data(help="Training rows to draw; default: all.")] = None
    test_size: Annotated[int | None, _in_data(help="Test rows to draw; default: all.")] = None
    label_noise: Annotated[float, _in_data(help="Fraction of the labels to replace, 0 to 1.")] = 0.0
    noise_kind: Annotated[
        str, _in_data(help="random: uniform over all classes; flip: always another class.", metavar="random|flip")
    ] = "random"
    validation: Annotated[
        float,
        _in_data(
            help="Fraction of the training rows to hold out: val/* and the best epoch are of them, and the test set is "
            "evaluated once, at the end. 0: val/* is of the test set, and nothing is chosen.",
        ),
    ] = 0.0
    task: Annotated[
        str,
        _in_data(
            help="What y of npz and stream, or a table's target, is; auto: integers are classes, floats are numbers "
            "(of a table also integers of over 20 values).",
            metavar="auto|classification|regression",
        ),
    ] = "auto"
    target: Annotated[
        str | None,
        _in_table(help="Column to learn; several columns of numbers are several outputs.", metavar="COLUMN[,COLUMN]"),
    ] = None
    test_data: Annotated[str | None, _in_table(help="File of test rows with the same columns.", metavar="FILE.csv")] = (
        None
    )
    test_share: Annotated[
        float | None,
        _in_table(help="Without --test-data, the share of the rows to test on, drawn by --seed.  [default: 0.2]"),
    ] = None
    categorical: Annotated[
        str | None, _in_table(help="Columns whose values are categories.", metavar="COLUMN[,COLUMN]")
    ] = None
    numeric: Annotated[str | None, _in_table(help="Columns that hold numbers.", metavar="COLUMN[,COLUMN]")] = None
    drop: Annotated[str | None, _in_table(help="Columns that are not used.", metavar="COLUMN[,COLUMN]")] = None
    delimiter: Annotated[str | None, _in_table(help=DELIMITER_HELP, metavar="CHARACTER|tab")] = None
    grayscale: Annotated[bool, _in_data("--grayscale", help="Turn colour images gray (cifar10, folder).")] = False
    image_size: Annotated[int | None, _in_data(help="Side in pixels that folder images are resized to.")] = None
    background: Annotated[
        str | None,
        _in_data(help="What transparent images in a folder are laid over.  [default: white]", metavar="white|black"),
    ] = None
    max_pixels: Annotated[int | None, _in_data(help=MAX_PIXELS_HELP)] = None
    augment: Annotated[
        str | None,
        _in_data(
            help="Random changes of training images, new ones every epoch, for eigenpro3 and eigenpro4, also before "
            "--features patches; flip for others without --learn-features, which adds the mirror image of each "
            "training image by a kernel of both.",
            metavar="shift[:PIXELS],flip",
        ),
    ] = None
    features: Annotated[
        str,
        _in_data(
            help="What the kernel sees: pixels or columns; or, of images, pooled responses to COUNT of their patches, "
            "1024 by default, which are kept in ~/.cache/kl/patches ($XDG_CACHE_HOME/kl/patches).",
            metavar="plain|patches[:COUNT]",
        ),
    ] = "plain"
    patch_size: Annotated[int | None, _in_patches(help="Side of a patch in pixels.  [default: 6]")] = None
    patch_whitening: Annotated[
        float | None, _in_patches(help="Added to the eigenvalues of the patches' covariance.  [default: 0.1]")
    ] = None
    patch_dictionary: Annotated[
        str | None,
        _in_patches(help="Patches drawn at random, or cluster means.  [default: random]", metavar="random|kmeans"),
    ] = None
    patch_mirrored: Annotated[
        bool, _in_patches("--patch-mirrored", help="Add the left-right mirror image of each patch.")
    ] = False
    patch_encoding: Annotated[
        str | None,
        _in_patches(
            help="soft, rectified: sums over a cell of the responses beyond a threshold, of one sign or both; count: "
            "their number. All are of 8 bits.  [default: soft]",
            metavar="soft|rectified|count",
        ),
    ] = None
    patch_active: Annotated[float | None, _in_patches(help="Share of the responses that count.  [default: 0.3]")] = None
    patch_threshold: Annotated[
        float | None, _in_patches(help="Threshold of soft and rectified, 0 to 1.  [default: 0.15]")
    ] = None
    patch_pool: Annotated[
        int | None, _in_patches(help="Side of a cell in positions; default: cells that make 2 x 2.")
    ] = None
    patch_stride: Annotated[int | None, _in_patches(help="Positions from cell to cell; default: 2 x 2 cells.")] = None


@dataclass(frozen=True)
class KernelOptions:
    """The kernel and its parameters."""

    kernel: Annotated[str, _in_kernel(help=KERNEL_HELP, metavar="NAME")] = "laplacian"
    bandwidth: Annotated[
        str | None, _in_kernel(help="A number, or auto: the median distance.  [default: auto]", metavar="FLOAT|auto")
    ] = None
    depth: Depth = None
    bias: Bias = None
    power: Power = None
    degree: Degree = None
    p: P = None
    q: Q = None


@dataclass(frozen=True)
class SolverOptions:
    """How to train, and EigenPro's parameters."""

    solver: Annotated[
        str,
        _in_solver(help=SOLVER_HELP, metavar="|".join(SOLVERS)),
    ] = "eigenpro"
    epochs: Annotated[int, _in_solver(help="Passes over the training set.")] = 10
    batch_size: Annotated[str, _in_solver(help="Rows a step, m.", metavar="INTEGER|auto")] = "auto"
    step_size: Annotated[str, _in_solver(help="Step size, eta.", metavar="FLOAT|auto")] = "auto"
    top_q: Annotated[
        str, _in_solver(help="Damped eigendirections, q; 0 is plain kernel SGD.", metavar="INTEGER|auto")
    ] = "auto"
    subsample: Annotated[str, _in_solver(help="Nystrom rows, s.", metavar="INTEGER|auto")] = "auto"
    centers: Annotated[
        str | None,
        _in_solver(
            help="Centres of eigenpro3 and eigenpro4: how many, or an array centers.  [default: 2000]",
            metavar="P|FILE.npz",
        ),
    ] = None
    centers_from: Annotated[
        str,
        _in_solver(
            help="How P centres are chosen among the training rows; kmeans: cluster means.",
            metavar="random|kmeans|rpcholesky",
        ),
    ] = "random"
    projection_period: Annotated[
        str, _in_solver(help="Steps between projections of eigenpro4, T.", metavar="INTEGER|auto")
    ] = "auto"
    learn_features: Annotated[
        int | None,
        _in_solver(
            help="Learn the kernel's metric in at most so many rounds (recursive feature machine); with --solver "
            "eigenpro3 or eigenpro4 on at most 10000 rows, before training on all.",
            metavar="ROUNDS",
        ),
    ] = None
    metric: Annotated[str, _in_solver(help="Metric of --learn-features.", metavar="full|diagonal")] = "full"
    bandwidth_factor: Annotated[
        float, _in_solver(help="--bandwidth auto with --learn-features is this times the median distance.")
    ] = 1.0
    metric_power: Annotated[float, _in_solver(help="Exponent of the gradients' outer product of --learn-features.")] = (
        1.0
    )
    by: Annotated[
        str,
        _in_solver(
            help="What chooses the round of --learn-features without --validation: 5 parts of the rows, a fifth, or "
            "leave-one-out.",
            metavar="auto|kfold|holdout|loo",
        ),
    ] = "auto"
    round_solver: Annotated[
        str, _in_solver(help="Solver in each round of --learn-features.", metavar="auto|direct|pcg|eigenpro")
    ] = "auto"
    round_epochs: Annotated[int, _in_solver(help="Epochs of EigenPro in each round of --learn-features.")] = 10
    stop_when_interpolated: Annotated[
        bool, _in_solver("--stop-when-interpolated", help="Stop at zero training classification error.")
    ] = False
    stop_mse: Annotated[float | None, _in_solver(help="Stop at this training mse.")] = None
    patience: Annotated[
        int | None, _in_solver(help="Stop after so many epochs without a better one by --validation.")
    ] = None


@dataclass(frozen=True)
class ExactOptions:
    """The exact solve."""

    ridge: Annotated[
        float,
        _in_solver(
            help="Added to the kernel matrix's diagonal, by eigenpro in training and in the rounds of "
            "--learn-features, too."
        ),
    ] = 0.0


@dataclass(frozen=True)
class ExactSolverOptions:
    """How `kl interpolate` solves."""

    solver: Annotated[
        str,
        _in_solver(
            help="direct: a factorisation, n^3; pcg: conjugate gradients; auto: direct where 4 n^2 bytes fit.",
            metavar="auto|direct|pcg",
        ),
    ] = "auto"
    tolerance: Annotated[float, _in_solver(help="Relative residual that conjugate gradients stop at.")] = 1e-6
    leave_one_out: Annotated[
        bool | None,
        _in_solver(
            "--leave-one-out/--no-leave-one-out",
            help="Also report the error of each row predicted without it, in closed form; pcg estimates it by random "
            "probes.  [default: where the solve is direct]",
        ),
    ] = None
    save: Annotated[
        str | None, _in_solver(help="File to write the solution to, which kl predict reads.", metavar="FILE")
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """Where and how the computation runs."""

    memory: Annotated[
        str, _in_run(help="Memory budget; auto: half of what is free.", metavar="auto|BYTES|400MB|8GB")
    ] = "auto"
    precision: Annotated[
        str,
        _in_run(
            help="Of kernel products in training. high: float32; medium: features rounded to bfloat16, faster; "
            "8-bit features are exact with both.",
            metavar="high|medium",
        ),
    ] = "high"
    accelerator: Accelerator = "auto"
    seed: Annotated[int, _in_run(help="Seed of subsets, noise, batch order and subsample.")] = 0


@dataclass(frozen=True)
class TrainerOptions:
    """What only a training run has."""

    devices: Annotated[
        str,
        _in_run(
            help="Devices of this machine to train on: how many, which GPUs, or auto: all GPUs. Several share the "
            "centres.",
            metavar="N|I,J|auto",
        ),
    ] = "1"
    num_nodes: Annotated[int, _in_run(help="Machines to train on, each with as many devices.")] = 1
    strategy: Annotated[
        str, _in_run(help="Lightning strategy; auto: kernel_parallel where there are several devices.")
    ] = "auto"
    fast_dev_run: Annotated[bool, _in_run("--fast-dev-run", help="One batch of everything, no files written.")] = False
    resume: Annotated[
        str | None, _in_run(help="Go on from a checkpoint; last: the newest run of this name.", metavar="last|PATH")
    ] = None
    log_dir: Annotated[str, _in_output(help="Where runs are written.", metavar="DIR")] = "lightning_logs"
    name: Annotated[str | None, _in_output(help="Name of the run; default: data and kernel.")] = None
    norm_every_step: Annotated[
        bool, _in_output("--norm-every-step", help="Log the RKHS norm after each step, not only each epoch.")
    ] = False
    no_exact: Annotated[bool, _in_output("--no-exact", help="Leave out the exact limit.")] = False


@dataclass(frozen=True)
class OutputOptions:
    """How results are printed."""

    json: Annotated[
        bool, _in_output("--json", help="Print one JSON object on standard output; logs go to standard error.")
    ] = False


OwnKernels = Annotated[
    list[str] | None,
    typer.Option(
        help="A kernel of your own in the checkpoint, whose code runs, package.module:Class; again for another.",
        metavar="NAME",
    ),
]

ConfigFile = Annotated[
    str | None,
    _in_output(
        help="YAML file of options; the command line takes precedence.",
        metavar="FILE.yaml",
        is_eager=True,
        callback=load_config,
    ),
]
PrintConfig = Annotated[bool, _in_output("--print-config", help="Print the options as YAML and exit.")]


def takes(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of the dataclasses `groups`, with --config and --print-config.

    The decorated function is called with one instance of each group, in order.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        parameters = []
        for group in groups:
            hints = get_type_hints(group, include_extras=True)
            parameters += [_keyword(f.name, f.default, hints[f.name]) for f in fields(group)]
        parameters.append(_keyword("context", inspect.Parameter.empty, typer.Context))
        parameters += [_keyword("config", None, ConfigFile), _keyword("print_config", False, PrintConfig)]

        @functools.wraps(function)
        def command(context: typer.Context, **given: Any) -> None:
            refuse_code(context, given.pop("config"), given)
            if given.pop("print_config"):
                typer.echo(dump_config(given), nl=False)
                return
            function(*(group(**{f.name: given[f.name] for f in fields(group)}) for group in groups))

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
