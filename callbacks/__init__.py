"""Lightning callbacks for kernel machines: they observe, log and draw, and never change weights."""

# ruff: noqa: F401 - the names are for type checkers

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    from callbacks.best import BestCheckpoint, BestEpoch, epoch_values
    from callbacks.checkpoint import AtomicCheckpointIO, last_checkpoint
    from callbacks.confusion import ConfusionMatrix
    from callbacks.convergence import ConvergenceFigure
    from callbacks.epoch_lines import EpochLines
    from callbacks.exact_interpolation import ExactInterpolation
    from callbacks.figures import log_figure
    from callbacks.final_scores import FinalScores
    from callbacks.history import History
    from callbacks.interrupts import Interrupts
    from callbacks.keep_options import KeepOptions
    from callbacks.keep_record import KeepRecord
    from callbacks.learnt_features import LearntFeatures
    from callbacks.progress import ProgressBar
    from callbacks.rkhs_norm import RKHSNorm
    from callbacks.spectrum import Spectrum
    from callbacks.stop import StopWhenInterpolated
    from callbacks.tensorboard_layout import TensorBoardLayout
    from callbacks.timing import Timing
    from callbacks.worst_errors import WorstErrors

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "callbacks.best": "BestCheckpoint BestEpoch epoch_values",
        "callbacks.checkpoint": "AtomicCheckpointIO last_checkpoint",
        "callbacks.confusion": "ConfusionMatrix",
        "callbacks.convergence": "ConvergenceFigure",
        "callbacks.epoch_lines": "EpochLines",
        "callbacks.exact_interpolation": "ExactInterpolation",
        "callbacks.figures": "log_figure",
        "callbacks.final_scores": "FinalScores",
        "callbacks.history": "History",
        "callbacks.interrupts": "Interrupts",
        "callbacks.keep_options": "KeepOptions",
        "callbacks.keep_record": "KeepRecord",
        "callbacks.learnt_features": "LearntFeatures",
        "callbacks.progress": "ProgressBar",
        "callbacks.rkhs_norm": "RKHSNorm",
        "callbacks.spectrum": "Spectrum",
        "callbacks.stop": "StopWhenInterpolated",
        "callbacks.tensorboard_layout": "TensorBoardLayout",
        "callbacks.timing": "Timing",
        "callbacks.worst_errors": "WorstErrors",
    },
)
