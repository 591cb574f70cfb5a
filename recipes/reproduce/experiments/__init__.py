"""The experiments by name, one file each."""

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments.acceleration import Acceleration
from recipes.reproduce.experiments.accuracy import Accuracy
from recipes.reproduce.experiments.bandwidth import Bandwidth
from recipes.reproduce.experiments.batch_size import BatchSize
from recipes.reproduce.experiments.convergence import Convergence
from recipes.reproduce.experiments.features import Features
from recipes.reproduce.experiments.general import General
from recipes.reproduce.experiments.geometry import Geometry
from recipes.reproduce.experiments.images import ImagePatches
from recipes.reproduce.experiments.kernels import Kernels
from recipes.reproduce.experiments.neighbours import Neighbours
from recipes.reproduce.experiments.networks import Networks
from recipes.reproduce.experiments.noise import Noise
from recipes.reproduce.experiments.norm_growth import NormGrowth
from recipes.reproduce.experiments.random_labels import RandomLabels
from recipes.reproduce.experiments.synthetic import Synthetic

_ALL: tuple[Experiment, ...] = (
    Convergence(),
    Accuracy(),
    Noise(),
    NormGrowth(),
    Synthetic(),
    Geometry(),
    RandomLabels(),
    Neighbours(),
    Kernels(),
    BatchSize(),
    Acceleration(),
    Bandwidth(),
    Networks(),
    General(),
    Features(),
    ImagePatches(),
)
EXPERIMENTS: dict[str, Experiment] = {each.name: each for each in _ALL}
