"""The two synthetic classification sets of [B18], whose Bayes errors are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import KernelDataModule
from datamodules.noise import noisy_bayes_error
from datamodules.raw import RawData
from datamodules.sampling import derive_seed
from kl.errors import InputError

NUM_FEATURES = 50
MEAN_DISTANCE = {1: 10.0, 2: 2.0}
"""Distance of the class means along x_1, in standard deviations."""


class SyntheticDataModule(KernelDataModule):
    """y uniform on {-1, +1}; x_1 ~ N(0, 1) if y = +1, N(D, 1) if y = -1; x_2..x_50 ~ U(-1, 1).

    D = 10 for kind 1 (the classes are as good as separable) and D = 2 for kind 2 (Bayes error 15.9%). The
    sets are drawn from `seed`, training and test rows from different streams; for one seed a smaller set is
    the beginning of a larger one. Class 0 is y = -1, class 1 is y = +1.

    Args:
        kind: 1 or 2.
        train_size: training rows to draw; None draws 2000.
        test_size: test rows to draw; None draws 2000.
        **options: the others of `KernelDataModule`.

    Source: [B18] section 4, Synthetic 1 and Synthetic 2.

    Example:
        >>> data = SyntheticDataModule(kind=2, train_size=100, label_noise=0.1)
        >>> round(data.bayes_error, 4), round(data.noisy_bayes_error, 4)
        (0.1587, 0.1928)
    """

    default_size = 2000

    def __init__(
        self, kind: int = 1, train_size: int | None = None, test_size: int | None = None, **options: Any
    ) -> None:
        super().__init__(train_size=train_size, test_size=test_size, **options)
        if kind not in MEAN_DISTANCE or isinstance(kind, bool):
            raise InputError(f"kind must be 1 or 2, the paper's Synthetic 1 or Synthetic 2; got {kind!r}")
        self.kind = int(kind)
        self.name = f"synthetic{self.kind}"

    @property
    def bayes_error(self) -> float:
        """The least possible error against clean labels: Phi(-D/2)."""
        return 0.5 * math.erfc(MEAN_DISTANCE[self.kind] / 2 / math.sqrt(2))

    @property
    def noisy_bayes_error(self) -> float:
        """The least possible error against labels noised like the training labels [B18 Prop. 1]."""
        return noisy_bayes_error(self.bayes_error, self.label_noise, 2, self.noise_kind)

    def load(self) -> RawData:
        """Draw both sets."""
        x_train, y_train = self._draw("train", self.train_size or self.default_size)
        x_test, y_test = self._draw("test", self.test_size or self.default_size)
        return RawData(x_train, y_train, x_test, y_test, class_names=["-1", "+1"])

    def _draw(self, part: str, n: int) -> tuple[Tensor, Tensor]:
        """Rows, shape (n, 50), and class indices, shape (n,)."""

        # One stream per quantity, each drawn row by row: this is what makes the sets of different n nested.
        def stream(what: str) -> np.random.Generator:
            return np.random.default_rng(derive_seed(self.seed, f"{self.name} {part} {what}"))

        labels = stream("labels").integers(2, size=n)
        x = stream("uniform").uniform(-1, 1, size=(n, NUM_FEATURES))
        x[:, 0] = stream("normal").standard_normal(n) + np.where(labels == 1, 0.0, MEAN_DISTANCE[self.kind])
        return torch.from_numpy(x).to(torch.float32), torch.from_numpy(labels)
