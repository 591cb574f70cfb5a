"""kl: kernel machines trained by EigenPro under PyTorch Lightning, next to their exact minimum-norm limit."""

from importlib.metadata import PackageNotFoundError, version

from kl.eigenpro import EigenPro
from kl.errors import (
    CheckpointError,
    DataNotFoundError,
    DivergenceError,
    InputError,
    KLError,
    MemoryBudgetError,
    SingularKernelError,
)
from kl.interpolation import Interpolant, interpolate
from kl.kernels import *  # noqa: F403
from kl.kernels import __all__ as _kernels
from kl.machine import KernelMachine
from kl.rkhs import inner_product, rkhs_distance, rkhs_norm, rkhs_norm_per_class
from kl.rows import RowDataset, Rows

try:
    __version__ = version("kl")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "CheckpointError",
    "DataNotFoundError",
    "DivergenceError",
    "EigenPro",
    "InputError",
    "Interpolant",
    "KLError",
    "KernelMachine",
    "MemoryBudgetError",
    "RowDataset",
    "Rows",
    "SingularKernelError",
    "inner_product",
    "interpolate",
    "rkhs_distance",
    "rkhs_norm",
    "rkhs_norm_per_class",
    *_kernels,
]
