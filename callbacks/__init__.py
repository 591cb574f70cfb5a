"""Lightning callbacks for kernel machines: they observe, log and draw, and never change weights."""

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    from callbacks.best import BestCheckpoint as BestCheckpoint, BestEpoch as BestEpoch, epoch_values as epoch_values
    from callbacks.checkpoint import AtomicCheckpointIO as AtomicCheckpointIO, last_checkpoint as last_checkpoint
    from callbacks.confusion import ConfusionMatrix as ConfusionMatrix
    from callbacks.convergence import ConvergenceFigure as ConvergenceFigure
    from callbacks.epoch_lines import EpochLines as EpochLines
    from callbacks.exact_interpolation import ExactInterpolation as ExactInterpolation
    from callbacks.figures import log_figure as log_figure
    from callbacks.final_scores import FinalScores as FinalScores
    from callbacks.history import History as History
    from callbacks.interrupts import Interrupts as Interrupts
    from callbacks.keep_options import KeepOptions as KeepOptions
    from callbacks.keep_record import KeepRecord as KeepRecord
    from callbacks.learnt_features import LearntFeatures as LearntFeatures
    from callbacks.progress import ProgressBar as ProgressBar
    from callbacks.rkhs_norm import RKHSNorm as RKHSNorm
    from callbacks.spectrum import Spectrum as Spectrum
    from callbacks.stop import StopWhenInterpolated as StopWhenInterpolated
    from callbacks.tensorboard_layout import TensorBoardLayout as TensorBoardLayout
    from callbacks.timing import Timing as Timing
    from callbacks.worst_errors import WorstErrors as WorstErrors
else:
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
