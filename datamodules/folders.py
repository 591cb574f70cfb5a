"""A folder of image files, one folder per class."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

from datamodules.base import KernelDataModule
from datamodules.images import decode_image
from datamodules.raw import RawData
from datamodules.sampling import derive_seed
from kl.errors import InputError

log = logging.getLogger(__name__)

TEST_FRACTION = 0.2


class ImageFolderDataModule(KernelDataModule):
    """Images in train/<class>/* and optionally test/<class>/*, or only <class>/*, then split 80/20 by `seed`.

    Every image is resized and decoded once. Files without an image's extension are skipped.

    Args:
        path: the folder.
        image_size: [H, W] that every image is resized to, or one number for both.
        grayscale: one channel of luma instead of RGB.
        **options: those of `KernelDataModule`.

    Raises:
        InputError: the folder or a class in it is missing or empty, or an image cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_size: int | Sequence[int] = (32, 32),
        grayscale: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path = os.path.expanduser(path)
        self.image_size = _check_size(image_size)
        self.grayscale = bool(grayscale)
        self.name = Path(self.path).absolute().name

    def load(self) -> RawData:
        """List and decode the images."""
        folder = Path(self.path)
        if not folder.is_dir():
            raise InputError(f"folder:{self.path} must be a folder of class folders; there is none at {folder}")
        parts = [part for part in ("train", "test") if (folder / part).is_dir()]
        if parts == ["test"]:
            raise InputError(
                f"{folder} has test/ but no train/: add it, or keep only class folders in it, then split 80/20"
            )
        test: list[tuple[str, int]] = []
        if parts:
            train, names = list_images(folder / "train")
            if "test" in parts:
                test = _same_classes(*list_images(folder / "test"), names, folder)
        else:
            files, names = list_images(folder)
            train, test = _split(files, derive_seed(self.seed, "folder split"))
            if not test:
                raise InputError(f"{folder} is too small to split: give a class three images, or make train/ and test/")
        channels = 1 if self.grayscale else 3
        x_train, y_train = self._decode(train)
        x_test, y_test = self._decode(test) if test else (None, None)
        return RawData(x_train, y_train, x_test, y_test, names, image_shape=(channels, *self.image_size))

    def _decode(self, files: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """Pixels, uint8, shape (n, C, H, W), and class indices, shape (n,)."""
        pixels = np.empty((len(files), 1 if self.grayscale else 3, *self.image_size), dtype=np.uint8)
        for row, (file, _) in enumerate(files):
            pixels[row] = decode_image(file, file, self.grayscale, self.image_size)
            if (row + 1) % 5000 == 0:
                log.info("%s: decoded %d of %d images", self.name, row + 1, len(files))
        return torch.from_numpy(pixels), torch.tensor([label for _, label in files])


def list_images(folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """The image files of <class>/* as (path, class index), sorted, and the class names."""
    try:
        listing = ImageFolder(folder)
    except FileNotFoundError as error:
        # torchvision's message lists every extension; its first sentence names the classes.
        reason = str(error).split(". ")[0].rstrip(".")
        raise InputError(f"{folder} must hold <class>/* images: {reason}") from error
    return listing.samples, listing.classes


def _same_classes(
    files: list[tuple[str, int]], test_names: list[str], names: list[str], folder: Path
) -> list[tuple[str, int]]:
    """Test files with the training set's class indices."""
    if unknown := sorted(set(test_names) - set(names)):
        raise InputError(
            f"{folder}/test has class {unknown[0]!r}, which {folder}/train has not: add it there or remove it"
        )
    return [(file, names.index(test_names[label])) for file, label in files]


def _split(files: list[tuple[str, int]], seed: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """80/20 within each class, rounded to the nearest count; the order is kept."""
    rng = np.random.default_rng(seed)
    labels = np.array([label for _, label in files])
    held_out: set[int] = set()
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out.update(rows[: int(TEST_FRACTION * len(rows) + 0.5)].tolist())
    train = [file for row, file in enumerate(files) if row not in held_out]
    return train, [files[row] for row in sorted(held_out)]


def _check_size(size: int | Sequence[int]) -> tuple[int, int]:
    try:
        sides = [operator.index(side) for side in (size if isinstance(size, Sequence) else (size, size))]
    except TypeError:
        sides = []
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"image_size must be one whole number of pixels or two, [height, width]; got {size!r}")
    return sides[0], sides[1]
