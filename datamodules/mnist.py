"""MNIST and Fashion-MNIST, as torchvision stores and reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from datamodules.download import DownloadedDataModule, download
from datamodules.facts import Facts
from datamodules.idx import find_idx, read_idx
from datamodules.raw import RawData
from kl.errors import DataNotFoundError, InputError


class _IdxDataModule(DownloadedDataModule):
    """Four IDX files: by default 60000 training and 10000 test images of 28 x 28 in ten classes."""

    reader: type[MNIST]
    """torchvision's class: its name is that of the set's folder in data_dir."""

    def places(self) -> list[Path]:
        """The folder of the four IDX files."""
        return [Path(self.data_dir, self.reader.__name__, "raw")]

    def found_in(self) -> Path | None:
        """The folder if `find_idx` finds all four files in it, else None."""
        return None if self._missing() else self.places()[0]

    def fetch(self) -> None:
        """Download and unpack the files that are missing, from torchvision's addresses."""
        (folder,) = self.places()
        for archive, md5 in self.reader.resources:
            if find_idx(folder, Path(archive).stem) is None:
                urls = [mirror + archive for mirror in self.reader.mirrors]
                download(urls, md5, folder)

    def not_found(self, reason: str) -> DataNotFoundError:
        """The error for a missing set, with the names of the files that are in the folder instead."""
        (folder,) = self.places()
        there = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        if not there:
            return super().not_found(reason)
        held = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        return super().not_found(f"{reason}; {' and '.join(self._missing())} not found among {held}")

    def load(self) -> RawData:
        """Read the four files."""
        place = self.require()
        (x_train, y_train), (x_test, y_test) = (self._read(place, part) for part in ("train", "t10k"))
        shape, other = x_train.shape[1:], x_test.shape[1:]
        if shape != other:
            raise InputError(
                f"the images of both sets in {place} must have one shape; got {shape[0]} x {shape[1]} for training "
                f"and {other[0]} x {other[1]}"
            )
        return RawData(x_train, y_train, x_test, y_test, self.classes(), image_shape=(1, *shape))

    def classes(self) -> list[str]:
        """Names of the ten classes."""
        return list(self.reader.classes)

    def _missing(self) -> list[str]:
        """The names of the missing files among the four."""
        (folder,) = self.places()
        names = (Path(archive).stem for archive, _ in self.reader.resources)
        return [name for name in names if find_idx(folder, name) is None]

    def _read(self, place: Path, part: str) -> tuple[Tensor, Tensor]:
        files = [find_idx(place, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
        assert files[0] is not None  # require() has looked
        assert files[1] is not None
        try:
            x, y = read_idx(files[0], dimensions=3), read_idx(files[1], dimensions=1)
            if len(x) != len(y):
                raise InputError(f"{len(x)} images and {len(y)} labels")
            if y.max(initial=0) >= len(self.classes()):
                raise InputError(f"a label is {y.max()}, and the classes are 0 to {len(self.classes()) - 1}")
        except InputError as error:
            raise InputError(
                f"the {part} files in {place} are damaged ({error}): delete them and run `kl data download {self.name}`"
            ) from error
        return torch.from_numpy(x), torch.from_numpy(y).long()


class MNISTDataModule(_IdxDataModule):
    """Handwritten digits: n = 60000 and 10000, d = 784, c = 10.

    Args:
        **options: those of `KernelDataModule`.
    """

    name = "mnist"
    reader = MNIST
    facts = Facts(
        n_train=60000,
        n_test=10000,
        num_features=784,
        num_classes=10,
        origin="LeCun, Cortes, Burges 1998",
        class_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        checksums={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    )

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
    facts = Facts(
        n_train=60000,
        n_test=10000,
        num_features=784,
        num_classes=10,
        origin="Xiao, Rasul, Vollgraf 2017",
        class_counts=(6000,) * 10,
        checksums={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    )
