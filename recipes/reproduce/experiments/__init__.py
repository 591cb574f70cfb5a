"""The experiments by name, one file each."""

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments.accuracy import Accuracy
from recipes.reproduce.experiments.convergence import Convergence

EXPERIMENTS: dict[str, Experiment] = {each.name: each for each in (Convergence(), Accuracy())}
