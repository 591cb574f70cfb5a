"""kl: kernel machines trained by EigenPro under PyTorch Lightning, next to their exact minimum-norm limit.

Sources, with the keys that reports and figures cite them by:

- [B18] Belkin, Ma, Mandal 2018, To understand deep learning we need to understand kernel learning, arXiv:1802.01396
- [MB17] Ma, Belkin 2017, Diving into the shallows: a computational perspective on large-scale shallow learning,
  arXiv:1703.10622
- [MB19] Ma, Belkin 2019, Kernel machines that adapt to GPUs for effective large batch training, arXiv:1806.06144
- [ABP23] Abedsoltan, Belkin, Pandit 2023, Toward large kernel models, arXiv:2302.02605
- [A24] Abedsoltan, Ma, Pandit, Belkin 2024, Fast training of large kernel models with delayed projections,
  arXiv:2411.16658

Letters: n training rows, d features, c outputs, s Nystrom rows, q damped eigendirections, m batch size, eta step size,
K the kernel or its matrix, alpha the weights, beta = max_x K(x, x), lambda_i the eigenvalues of K(X, X)/n.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from kl.distributed.strategy import KernelParallelStrategy
from kl.eigenpro.machine import KernelMachine
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.run import EigenProRun
from kl.errors import (
    CheckpointError,
    DataNotFoundError,
    DivergenceError,
    InputError,
    KLError,
    MemoryBudgetError,
    SingularKernelError,
)
from kl.exact.folds import leave_out
from kl.exact.interpolate import Interpolant, interpolate
from kl.exact.least_squares import least_squares
from kl.exact.leave_one_out import LeaveOneOut
from kl.exact.machine import ConjugateGradientMachine
from kl.features.agop import Agop, agop
from kl.features.machine import RecursiveFeatureMachine
from kl.features.metric import Metric
from kl.features.options import FeatureOptions
from kl.features.patches import Patches
from kl.general.machine import GeneralKernelMachine
from kl.kernels import *  # noqa: F403
from kl.kernels import __all__ as _kernels
from kl.machines.loading import load_machine
from kl.machines.relu_network import ReluNetwork
from kl.model import KernelModel
from kl.rkhs import inner_product, rkhs_distance, rkhs_norm, rkhs_norm_per_class
from kl.rows.rows import RowDataset, Rows
from kl.tuning.features import FeatureTuning, tune_features
from kl.tuning.result import Tuning, TuningPoint
from kl.tuning.tune import tune

if TYPE_CHECKING:
    from kl.estimators import KernelClassifier, KernelRegressor, RFMClassifier, RFMRegressor, load

_ESTIMATORS = ("KernelClassifier", "KernelRegressor", "RFMClassifier", "RFMRegressor", "load")


def __getattr__(name: str) -> Any:
    """The estimators, when they are asked for, because scikit-learn takes two seconds to import."""
    if name in _ESTIMATORS:
        return getattr(import_module("kl.estimators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


try:
    __version__ = version("kl")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "Agop",
    "CheckpointError",
    "ConjugateGradientMachine",
    "DataNotFoundError",
    "DivergenceError",
    "EigenPro",
    "EigenProRun",
    "FeatureOptions",
    "FeatureTuning",
    "GeneralKernelMachine",
    "InputError",
    "KernelClassifier",
    "KernelRegressor",
    "load",
    "Interpolant",
    "KLError",
    "KernelMachine",
    "KernelModel",
    "LeaveOneOut",
    "KernelParallelStrategy",
    "MemoryBudgetError",
    "Metric",
    "Patches",
    "RFMClassifier",
    "RFMRegressor",
    "RecursiveFeatureMachine",
    "ReluNetwork",
    "RowDataset",
    "Rows",
    "SingularKernelError",
    "Tuning",
    "TuningPoint",
    "agop",
    "inner_product",
    "interpolate",
    "leave_out",
    "least_squares",
    "load_machine",
    "rkhs_distance",
    "rkhs_norm",
    "rkhs_norm_per_class",
    "tune",
    "tune_features",
    *_kernels,
]
