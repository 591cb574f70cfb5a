"""The options of `kl tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recipes.options.groups import KERNEL_HELP, Bias, Degree, Depth, P, Power, Q, _in_kernel, _in_output, _in_solver

GRID_KERNELS = "laplacian,gaussian,matern32"


@dataclass(frozen=True)
class TuneOptions:
    """What is compared, and how it is scored."""

    kernels: Annotated[
        str | None,
        _in_kernel(help=f"Kernels to compare: {KERNEL_HELP}  [default: {GRID_KERNELS}]", metavar="NAME,..."),
    ] = None
    bandwidths: Annotated[
        str, _in_kernel(help="Numbers, or auto: the median distance times 1/8 to 16.", metavar="FLOAT,...|auto")
    ] = "auto"
    depth: Depth = None
    bias: Bias = None
    power: Power = None
    degree: Degree = None
    p: P = None
    q: Q = None
    ridges: Annotated[
        str, _in_solver(help="Ridges to compare, added to the kernel matrix's diagonal.", metavar="FLOAT,...")
    ] = "0,1e-6,1e-5,1e-4,1e-3,1e-2,0.1,1,10"
    by: Annotated[
        str,
        _in_solver(
            help="Rows that scores are taken on: loo leaves out one at a time, kfold a part; validation: those that "
            "--validation holds out. auto: validation if there is one, else loo.",
            metavar="auto|loo|kfold|validation",
        ),
    ] = "auto"
    folds: Annotated[int, _in_solver(help="Parts of --by kfold.")] = 5
    metric: Annotated[
        str,
        _in_solver(
            help="What decides; auto: mse, which is less coarse than a count of errors.",
            metavar="auto|mse|error|log_loss",
        ),
    ] = "auto"
    subsample: Annotated[
        str,
        _in_solver(help="Rows that all candidates are scored on; auto: at most 1000.", metavar="INTEGER|auto"),
    ] = "auto"
    finalists: Annotated[int, _in_solver(help="Kernels and bandwidths that are scored again on all rows.")] = 3
    one_standard_error: Annotated[
        bool,
        _in_solver(
            "--one-standard-error", help="Choose the largest ridge within a standard error of the best, not the best."
        ),
    ] = False
    learn_features: Annotated[
        int | None,
        _in_solver(
            help="Tune a recursive feature machine of at most so many rounds: a random search over kernels, their "
            "exponents, bandwidth, ridge and metric. Kernels by default: exponential-power, and up to 50 columns "
            "lpq-laplacian.",
            metavar="ROUNDS",
        ),
    ] = None
    candidates: Annotated[int, _in_solver(help="Candidates of --learn-features.")] = 24
    log_dir: Annotated[str, _in_output(help="Where results are written.", metavar="DIR")] = "lightning_logs/tune"
    name: Annotated[str | None, _in_output(help="Name of the folder of results; default: the data.")] = None
