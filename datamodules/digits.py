"""scikit-learn's handwritten digits: 1797 images of 8 x 8, available without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from datamodules.base import KernelDataModule
from datamodules.facts import Facts
from datamodules.raw import RawData

N_TRAIN = 1437


class DigitsDataModule(KernelDataModule):
    """Ten digits, d = 64, pixels 0..16 divided by 16; 1437 training and 360 test rows.

    The split is stratified and the same for every seed, so that test errors of different runs are comparable.

    Args:
        **options: those of `KernelDataModule`.
    """

    name = "digits"
    facts = Facts(n_train=N_TRAIN, n_test=360, num_features=64, num_classes=10, origin="scikit-learn load_digits")

    def load(self) -> RawData:
        """Read the set that comes with scikit-learn and split it 80/20."""
        table = np.loadtxt(digits_file(), delimiter=",", dtype=np.float32)  # 64 pixels and the label
        x, y = torch.from_numpy(table[:, :-1] / 16), torch.from_numpy(table[:, -1]).long()
        train, test = stratified_split(y.numpy(), N_TRAIN)
        names = [str(digit) for digit in range(10)]
        return RawData(x[train], y[train], x[test], y[test], names, image_shape=(1, 8, 8))


def digits_file() -> Path:
    """The file of `sklearn.datasets.load_digits`, found without importing scikit-learn, which takes two seconds."""
    package = find_spec("sklearn")
    assert package is not None  # it is a dependency
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def stratified_split(
    labels: np.ndarray,  # shape: (n,)
    n_train: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of scikit-learn's `train_test_split(..., stratify=labels, random_state=0)`, n_train and the others.

    Each class gives its proportion of the training rows, rounded down; what is missing comes from the classes of the
    largest remainders, drawn where these are equal.
    """
    rng = np.random.RandomState(0)
    counts = np.bincount(labels)
    proportion = counts / len(labels) * n_train
    taken = np.floor(proportion).astype(int)
    remainders = proportion - taken
    for remainder in np.unique(remainders)[::-1]:
        if missing := n_train - taken.sum():
            equal = np.flatnonzero(remainders == remainder)
            taken[rng.choice(equal, size=min(len(equal), missing), replace=False)] += 1
    train, test = [], []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(labels == label)[rng.permutation(count)]
        train.append(rows[: taken[label]])
        test.append(rows[taken[label] :])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))
