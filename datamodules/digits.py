"""scikit-learn's handwritten digits: 1797 images of 8 x 8, available without a download."""

from __future__ import annotations

import torch

from datamodules.base import KernelDataModule
from datamodules.facts import Facts
from datamodules.raw import RawData


class DigitsDataModule(KernelDataModule):
    """Ten digits, d = 64, pixels 0..16 divided by 16; 1437 training and 360 test rows.

    The split is stratified and the same for every seed, so that test errors of different runs are comparable.

    Args:
        **options: those of `KernelDataModule`.
    """

    name = "digits"
    facts = Facts(n_train=1437, n_test=360, num_features=64, num_classes=10, origin="scikit-learn load_digits")

    def load(self) -> RawData:
        """Read the set that comes with scikit-learn and split it 80/20."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        x = torch.from_numpy(pixels).to(torch.float32).div_(16)
        y = torch.from_numpy(labels).long()
        train, test = train_test_split(torch.arange(len(y)).numpy(), test_size=0.2, stratify=labels, random_state=0)
        names = [str(digit) for digit in range(10)]
        return RawData(x[train], y[train], x[test], y[test], names, image_shape=(1, 8, 8))
