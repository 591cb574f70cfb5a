"""LightningDataModules: training and test sets as whole tensors, with label noise that is drawn once."""

from typing import TYPE_CHECKING

from kl.system.lazy import lazy_names

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    from datamodules.arrays import ArrayDataModule as ArrayDataModule
    from datamodules.base import KernelDataModule as KernelDataModule
    from datamodules.cifar import CIFAR10DataModule as CIFAR10DataModule
    from datamodules.digits import DigitsDataModule as DigitsDataModule
    from datamodules.folders import ImageFolderDataModule as ImageFolderDataModule
    from datamodules.mnist import FashionMNISTDataModule as FashionMNISTDataModule, MNISTDataModule as MNISTDataModule
    from datamodules.noise import add_label_noise as add_label_noise
    from datamodules.raw import RawData as RawData
    from datamodules.registry import build_datamodule as build_datamodule
    from datamodules.stream import IterableDataModule as IterableDataModule, StreamDataModule as StreamDataModule
    from datamodules.synthetic import SyntheticDataModule as SyntheticDataModule
    from datamodules.table import TableDataModule as TableDataModule
else:
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
