"""CIFAR-10 from torchvision's pickles, or from a zip of JPEG files that stands in for them."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torchvision.datasets import CIFAR10

from datamodules.download import DownloadedDataModule, download
from datamodules.facts import Facts
from datamodules.images import decode_image, luma
from datamodules.raw import RawData
from kl.errors import InputError
from kl.system.files import cache_folder, written_whole

log = logging.getLogger(__name__)

JPEG_ZIP = "cifar10-jpeg.zip"


class CIFAR10DataModule(DownloadedDataModule):
    """Photographs in ten classes: n = 50000 and 10000, d = 3072, or 1024 in grayscale, c = 10.

    If the original pickles are missing and `cifar10-jpeg.zip` lies in data_dir, its JPEG files are read
    instead. Because JPEG is lossy, a warning is logged and `source` is "cifar10-jpeg"; results should name it.

    Args:
        grayscale: luma instead of RGB, as in Belkin, Ma, Mandal 2018, arXiv:1802.01396; see `datamodules.images.luma`.
        **options: those of `KernelDataModule`.
    """

    name = "cifar10"
    facts = Facts(
        n_train=50000,
        n_test=10000,
        num_features=3072,
        num_classes=10,
        origin="Krizhevsky 2009",
        class_counts=(5000,) * 10,
    )

    def __init__(self, grayscale: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.grayscale = bool(grayscale)

    def places(self) -> list[Path]:
        """The folder of pickles, then the zip of JPEG files."""
        return [Path(self.data_dir, "cifar-10-batches-py"), Path(self.data_dir, JPEG_ZIP)]

    def found_in(self) -> Path | None:
        """The first of the two that is complete, or None."""
        pickles, jpegs = self.places()
        names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list] + [CIFAR10.meta["filename"]]
        if all((pickles / name).is_file() for name in names):
            return pickles
        return jpegs if jpegs.is_file() else None

    def fetch(self) -> None:
        """Download the original pickles from torchvision's address, even if the JPEG files are on disk."""
        pickles = self.places()[0]
        if self.found_in() != pickles:
            download([CIFAR10.url], CIFAR10.tgz_md5, pickles)

    def prepare_data(self) -> None:
        """Download the set unless it is on disk; if the JPEG stand-in is used, decode it into the cache."""
        super().prepare_data()
        if (place := self.require()).name == JPEG_ZIP:
            read_jpeg_zip(place)

    def load(self) -> RawData:
        """Read the pickles or the decoded JPEG files."""
        place = self.require()
        if place.name == JPEG_ZIP:
            self.source = "cifar10-jpeg"
            _warn_on_rank_zero(
                f"cifar10: reading the lossy JPEG stand-in {place}; "
                f"for the original pixels run `kl data download cifar10`"
            )
            arrays = read_jpeg_zip(place)
            x_train, y_train, x_test, y_test = (torch.from_numpy(arrays[key]) for key in _KEYS)
            names = [str(name) for name in arrays["class_names"]]
        else:
            x_train, y_train, names = self._read_pickles(place, train=True)
            x_test, y_test, _ = self._read_pickles(place, train=False)
        if self.grayscale:
            x_train, x_test = luma(x_train), luma(x_test)
        channels, height, width = x_train.shape[1:]
        return RawData(x_train, y_train, x_test, y_test, names, image_shape=(channels, height, width))

    def _read_pickles(self, place: Path, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        try:
            data = CIFAR10(self.data_dir, train=train, download=False)  # checks the MD5 of every file
        except RuntimeError as error:
            raise InputError(
                f"the files in {place} are damaged (wrong checksum): "
                f"delete the folder and run `kl data download cifar10`"
            ) from error
        pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return pixels, torch.tensor(data.targets), list(data.classes)


_KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_jpeg_zip(path: Path) -> dict[str, np.ndarray]:
    """Decode a zip of train/<class>/* and test/<class>/* images, or read back an earlier decoding.

    The decoded arrays are kept in $XDG_CACHE_HOME/kl (default ~/.cache/kl), in a file that is named after the zip's
    name, size and time, and is written whole or not at all. Classes are in alphabetical order, which is CIFAR-10's own.

    Returns:
        x_train, x_test: uint8, shape (n, 3, H, W); y_train, y_test: shape (n,), int64; class_names.

    Raises:
        InputError: the zip is damaged or has another layout.
    """
    stat = path.stat()
    cache = cache_folder() / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}.npz"
    try:
        with cache.open("rb") as file:  # np.load would leave a damaged file open
            return dict(np.load(file, allow_pickle=False))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        log.info("%s is damaged: decoding %s again", cache, path)
    try:
        arrays = _decode_zip(path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): copy or download it again") from error
    try:
        with written_whole(cache) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        log.info("the decoded images were not kept: %s", error)
    return arrays


def _decode_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        files: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
        for name in sorted(info.filename for info in archive.infolist() if not info.is_dir()):
            parts = PurePosixPath(name).parts
            if len(parts) >= 3 and parts[-3] in files:
                files[parts[-3]].append((parts[-2], name))
        for part, found in files.items():
            if not found:
                raise InputError(f"{path} must hold {part}/<class>/* images; it holds none: is it another zip?")
        classes = sorted({label for label, _ in files["train"]})
        arrays: dict[str, np.ndarray] = {"class_names": np.array(classes)}
        total = sum(len(found) for found in files.values())
        log.info("decoding the %d images of %s, once", total, path)
        for part, found in files.items():
            if unknown := sorted({label for label, _ in found} - set(classes)):
                raise InputError(f"{path} has test images of class {unknown[0]!r}, which has no training images")
            images = [decode_image(io.BytesIO(archive.read(name)), f"{path}:{name}") for _, name in found]
            if len({image.shape for image in images}) > 1:
                raise InputError(f"{path} must hold images of one size; {part} has several")
            arrays[f"x_{part}"] = np.stack(images)
            arrays[f"y_{part}"] = np.array([classes.index(label) for label, _ in found], dtype=np.int64)
    return arrays


@rank_zero_only
def _warn_on_rank_zero(message: str) -> None:
    log.warning(message)
