"""LightningDataModules: training and test sets as whole tensors, with label noise that is drawn once."""

# ruff: noqa: F401 - the names are for type checkers

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    from datamodules.arrays import ArrayDataModule
    from datamodules.base import KernelDataModule
    from datamodules.cifar import CIFAR10DataModule
    from datamodules.digits import DigitsDataModule
    from datamodules.folders import ImageFolderDataModule
    from datamodules.mnist import FashionMNISTDataModule, MNISTDataModule
    from datamodules.noise import add_label_noise
    from datamodules.raw import RawData
    from datamodules.registry import build_datamodule
    from datamodules.stream import IterableDataModule, StreamDataModule
    from datamodules.synthetic import SyntheticDataModule
    from datamodules.table import TableDataModule

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "datamodules.arrays": "ArrayDataModule",
        "datamodules.base": "KernelDataModule",
        "datamodules.cifar": "CIFAR10DataModule",
        "datamodules.digits": "DigitsDataModule",
        "datamodules.folders": "ImageFolderDataModule",
        "datamodules.mnist": "FashionMNISTDataModule MNISTDataModule",
        "datamodules.noise": "add_label_noise",
        "datamodules.raw": "RawData",
        "datamodules.registry": "build_datamodule",
        "datamodules.stream": "IterableDataModule StreamDataModule",
        "datamodules.synthetic": "SyntheticDataModule",
        "datamodules.table": "TableDataModule",
    },
)
