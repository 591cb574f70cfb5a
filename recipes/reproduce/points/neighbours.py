"""Test errors of k nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recipes.reproduce.points.sample import Sample
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Neighbours(Point):
    """Euclidean k-NN with equal votes, for several k, on one draw with each level of label noise.

    The result has `levels`, in the order of `noises`, each with test_error and test_error_noisy (fractions; against
    clean test labels, and against test labels noised like the training labels), lists in the order of `ks`; and n, d,
    data_source.
    """

    kind: ClassVar[str] = "neighbours"

    sample: Sample
    ks: tuple[int, ...] = (1, 3, 5)
    noises: tuple[float, ...] = (0.0,)

    def run(self, context: Context) -> Result:
        """Predict the test rows and count the errors."""
        import numpy as np

        modules = [self.sample.datamodule(context, noise) for noise in self.noises]
        train, test = modules[0].train_set.x.numpy(), modules[0].require_test_set().x.numpy()
        labels = np.stack([each.train_set.y.argmax(dim=1).numpy() for each in modules], axis=1)
        predicted = [nearest_neighbours(train, labels, test, k) for k in self.ks]
        levels = []
        for i, (noise, module) in enumerate(zip(self.noises, modules, strict=True)):
            test_set = module.require_test_set()
            clean = test_set.y
            noisy = clean if test_set.y_noisy is None else test_set.y_noisy
            errors = [
                [float((each[:, i] != truth.argmax(dim=1).numpy()).mean()) for each in predicted]
                for truth in (clean, noisy)
            ]
            levels.append({"noise": noise, "test_error": errors[0], "test_error_noisy": errors[1]})
        return {"levels": levels, "n": len(train), "d": train.shape[1], "data_source": modules[0].source}

    def describe(self) -> str:
        """The draw, every k and the levels."""
        levels = ", ".join(f"{noise:.0%}" for noise in self.noises)
        return f"{', '.join(map(str, self.ks))} nearest neighbours, {self.sample}, label noise {levels}"

    @property
    def seconds(self) -> float:
        """Distances for each k."""
        return 0.3 + 2e-8 * len(self.ks) * self.sample.rows * (self.sample.test_size or 10_000)


def nearest_neighbours(
    x: np.ndarray,  # shape: (n, d)
    labels: np.ndarray,  # shape: (n, levels)
    z: np.ndarray,  # shape: (m, d)
    k: int,
) -> np.ndarray:
    """The classes of z, shape (m, levels), by the votes of the k nearest rows of x; ties go to the smallest class.

    Source: scikit-learn's KNeighborsClassifier, which takes a column of labels for each level.
    """
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(k).fit(x, labels).predict(z).reshape(len(z), -1)
