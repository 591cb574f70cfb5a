"""Lightning callbacks for kernel machines: they observe, log and draw, and never change weights."""

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
from callbacks.learnt_features import LearntFeatures
from callbacks.progress import ProgressBar
from callbacks.rkhs_norm import RKHSNorm
from callbacks.spectrum import Spectrum
from callbacks.stop import StopWhenInterpolated
from callbacks.tensorboard_layout import TensorBoardLayout
from callbacks.timing import Timing
from callbacks.worst_errors import WorstErrors

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "BestEpoch",
    "ConfusionMatrix",
    "ConvergenceFigure",
    "EpochLines",
    "ExactInterpolation",
    "FinalScores",
    "History",
    "Interrupts",
    "KeepOptions",
    "LearntFeatures",
    "ProgressBar",
    "RKHSNorm",
    "Spectrum",
    "StopWhenInterpolated",
    "TensorBoardLayout",
    "Timing",
    "WorstErrors",
    "epoch_values",
    "last_checkpoint",
    "log_figure",
]
