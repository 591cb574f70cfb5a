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

`import kl` imports nothing else, unless Lightning is there already: each name below is imported from its module when it
is first used, because Lightning takes seconds, and predicting, solving and evaluating kernels need none of it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names

__version__ = "0.1.0"  # read by pyproject.toml; CITATION.cff and CHANGELOG.md name it, too

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    import kl.callbacks
    import kl.data  # noqa: F401
    from kl.distributed.strategy import KernelParallelStrategy as KernelParallelStrategy
    from kl.eigenpro.machine import KernelMachine as KernelMachine
    from kl.eigenpro.optimizer import EigenPro as EigenPro
    from kl.eigenpro.run import EigenProRun as EigenProRun
    from kl.errors import (
        CheckpointError as CheckpointError,
        DataNotFoundError as DataNotFoundError,
        DivergenceError as DivergenceError,
        InputError as InputError,
        KLError as KLError,
        MemoryBudgetError as MemoryBudgetError,
        SingularKernelError as SingularKernelError,
    )
    from kl.estimators import (
        KernelClassifier as KernelClassifier,
        KernelRegressor as KernelRegressor,
        RFMClassifier as RFMClassifier,
        RFMRegressor as RFMRegressor,
        load as load,
    )
    from kl.exact.folds import leave_out as leave_out
    from kl.exact.interpolate import Interpolant as Interpolant, interpolate as interpolate
    from kl.exact.least_squares import least_squares as least_squares
    from kl.exact.leave_one_out import LeaveOneOut as LeaveOneOut
    from kl.exact.machine import ConjugateGradientMachine as ConjugateGradientMachine
    from kl.features.agop import Agop as Agop, agop as agop
    from kl.features.machine import RecursiveFeatureMachine as RecursiveFeatureMachine
    from kl.features.metric import Metric as Metric
    from kl.features.options import FeatureOptions as FeatureOptions
    from kl.features.patches import Patches as Patches
    from kl.general.machine import GeneralKernelMachine as GeneralKernelMachine
    from kl.kernels import *  # noqa: F403
    from kl.loading import load_machine as load_machine
    from kl.machines.relu_network import ReluNetwork as ReluNetwork
    from kl.model import KernelModel as KernelModel
    from kl.rkhs import (
        inner_product as inner_product,
        rkhs_distance as rkhs_distance,
        rkhs_norm as rkhs_norm,
        rkhs_norm_per_class as rkhs_norm_per_class,
    )
    from kl.rows.rows import RowDataset as RowDataset, Rows as Rows
    from kl.tuning.features import FeatureTuning as FeatureTuning, tune_features as tune_features
    from kl.tuning.result import Tuning as Tuning, TuningPoint as TuningPoint
    from kl.tuning.tune import tune as tune
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "kl.distributed.strategy": "KernelParallelStrategy",
            "kl.eigenpro.machine": "KernelMachine",
            "kl.eigenpro.optimizer": "EigenPro",
            "kl.eigenpro.run": "EigenProRun",
            "kl.errors": "CheckpointError DataNotFoundError DivergenceError InputError KLError MemoryBudgetError "
            "SingularKernelError",
            "kl.estimators": "KernelClassifier KernelRegressor RFMClassifier RFMRegressor load",
            "kl.exact.folds": "leave_out",
            "kl.exact.interpolate": "Interpolant interpolate",
            "kl.exact.least_squares": "least_squares",
            "kl.exact.leave_one_out": "LeaveOneOut",
            "kl.exact.machine": "ConjugateGradientMachine",
            "kl.features.agop": "Agop agop",
            "kl.features.machine": "RecursiveFeatureMachine",
            "kl.features.metric": "Metric",
            "kl.features.options": "FeatureOptions",
            "kl.features.patches": "Patches",
            "kl.general.machine": "GeneralKernelMachine",
            "kl.kernels": "Bandwidth ExponentialPower Gaussian GramKernel InverseMultiquadric Kernel Laplacian "
            "LpqLaplacian Matern32 Matern52 Mirrored Polynomial Product RadialKernel ReluNNGP ReluNTK Scaled Sum "
            "build_kernel kernel_from_config kernel_names median_distance",
            "kl.loading": "load_machine",
            "kl.machines.relu_network": "ReluNetwork",
            "kl.model": "KernelModel",
            "kl.rkhs": "inner_product rkhs_distance rkhs_norm rkhs_norm_per_class",
            "kl.rows.rows": "RowDataset Rows",
            "kl.tuning.features": "FeatureTuning tune_features",
            "kl.tuning.result": "Tuning TuningPoint",
            "kl.tuning.tune": "tune",
        },
    )

if "pytorch_lightning" in sys.modules:  # its Trainer then knows "kernel_parallel", whatever of kl is used later
    import_module("kl.distributed.strategy")
