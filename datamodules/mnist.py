"""MNIST and Fashion-MNIST, as torchvision stores and reads them."""

from __future__ import annotations

import gzip
import shutil
from functools import partial
from pathlib import Path

from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from datamodules.download import DownloadedDataModule, download
from datamodules.raw import RawData
from kl.errors import InputError


class _IdxDataModule(DownloadedDataModule):
    """60000 training and 10000 test images of 28 x 28 in ten classes, in four IDX files."""

    reader: type[MNIST]
    """torchvision's class: its name is that of the set's folder in data_dir."""

    def places(self) -> list[Path]:
        """The folder of the four IDX files."""
        return [Path(self.data_dir, self.reader.__name__, "raw")]

    def found_in(self) -> Path | None:
        """The folder, where it holds all four files."""
        (folder,) = self.places()
        names = (Path(archive).stem for archive, _ in self.reader.resources)
        return folder if all((folder / name).is_file() for name in names) else None

    def fetch(self) -> None:
        """Download and unpack the files that are missing, from torchvision's addresses."""
        (folder,) = self.places()
        for archive, md5 in self.reader.resources:
            name = Path(archive).stem
            if not (folder / name).is_file():
                urls = [mirror + archive for mirror in self.reader.mirrors]
                download(urls, md5, folder, partial(_gunzip, name))

    def load(self) -> RawData:
        """Read the four files."""
        place = self.require()
        (x_train, y_train), (x_test, y_test) = (self._read(place, train) for train in (True, False))
        return RawData(x_train, y_train, x_test, y_test, self.classes(), image_shape=(1, 28, 28))

    def classes(self) -> list[str]:
        """Names of the ten classes."""
        return list(self.reader.classes)

    def _read(self, place: Path, train: bool) -> tuple[Tensor, Tensor]:
        try:
            data = self.reader(self.data_dir, train=train, download=False)
        # torchvision asserts, indexes and reshapes; whatever breaks, the file is the cause.
        except Exception as error:
            part = "train" if train else "t10k"
            raise InputError(
                f"the {part} files in {place} are damaged ({_one_line(error)}): "
                f"delete them and run `kl data download {self.name}`"
            ) from error
        return data.data, data.targets


class MNISTDataModule(_IdxDataModule):
    """Handwritten digits: n = 60000 and 10000, d = 784, c = 10.

    Args:
        **options: those of `KernelDataModule`.
    """

    name = "mnist"
    reader = MNIST

    def classes(self) -> list[str]:
        """The digits, without the names that torchvision adds."""
        return [str(digit) for digit in range(10)]


class FashionMNISTDataModule(_IdxDataModule):
    """Images of clothes: n = 60000 and 10000, d = 784, c = 10.

    Args:
        **options: those of `KernelDataModule`.
    """

    name = "fashion-mnist"
    reader = FashionMNIST


def _gunzip(name: str, archive: Path, out: Path) -> None:
    with gzip.open(archive, "rb") as packed, (out / name).open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
