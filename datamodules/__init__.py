"""LightningDataModules: training and test sets as whole tensors, with label noise that is drawn once."""

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

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "IterableDataModule",
    "KernelDataModule",
    "MNISTDataModule",
    "RawData",
    "StreamDataModule",
    "SyntheticDataModule",
    "TableDataModule",
    "add_label_noise",
    "build_datamodule",
]
