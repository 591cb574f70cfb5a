"""The experiments by name, one file each."""

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments.accuracy import Accuracy
from recipes.reproduce.experiments.convergence import Convergence
from recipes.reproduce.experiments.noise import Noise
from recipes.reproduce.experiments.norm_growth import NormGrowth

_ALL: tuple[Experiment, ...] = (
    Convergence(),
    Accuracy(),
    Noise(),
    NormGrowth(),
)
EXPERIMENTS: dict[str, Experiment] = {each.name: each for each in _ALL}
