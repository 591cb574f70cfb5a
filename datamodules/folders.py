"""A folder of image files, one folder per class."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from datamodules.base import KernelDataModule
from datamodules.images import MAX_PIXELS, check_max_pixels, decode_image
from datamodules.listing import class_folders, image_files
from datamodules.modes import check_background
from datamodules.raw import RawData
from kl.errors import InputError
from kl.rows.batches import derive_seed
from kl.system.files import expand_home

log = logging.getLogger(__name__)

TEST_FRACTION = 0.2
PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation", "dev")}
"""The names that the folder of each part may have, in upper or lower case."""


class ImageFolderDataModule(KernelDataModule):
    """Images in train/<class>/* and optionally test/<class>/*, or only in <class>/*, which is split 80/20 by `seed`.

    Every image is decoded once, by `decode_image`, and resized. The folders' names may be any of `PARTS`. val/ is the
    test set if there is no test/, and is left out otherwise. Hidden files and folders, and files without an image
    extension, are skipped. Each real file counts once, however many links lead to it.

    Args:
        path: the folder.
        image_size: [H, W] that every image is resized to, or one number for both.
        grayscale: one channel of luma instead of RGB.
        background: "white" or "black", over which transparent images are laid.
        max_pixels: limit on the pixels of an image; a larger image is refused before it is decoded.
        **options: those of `KernelDataModule`.

    Raises:
        InputError: the folder or a class in it is missing or empty, or an image cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_size: int | Sequence[int] = (32, 32),
        grayscale: bool = False,
        background: str = "white",
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path = expand_home(path)
        self.image_size = _check_size(image_size)
        self.grayscale = bool(grayscale)
        self.background = check_background(background)
        self.max_pixels = check_max_pixels(max_pixels)
        self.name = Path(self.path).absolute().name

    def load(self) -> RawData:
        """List and decode the images."""
        folder = Path(self.path)
        if not folder.is_dir():
            raise InputError(f"folder:{self.path} must be a folder of class folders; there is none at {folder}")
        folders = class_folders(folder)
        parts = find_parts(folder, folders)
        test: list[tuple[str, int]] = []
        if parts is not None:
            train, names = list_images(parts[0], class_folders(parts[0]), folder)
            if parts[1] is not None:
                test = _same_classes(*list_images(parts[1], class_folders(parts[1]), folder), names, parts[0], parts[1])
        else:
            files, names = list_images(folder, folders, folder)
            train, test = _split(files, derive_seed(self.seed, "folder split"))
            if not test:
                raise InputError(f"{folder} is too small to split: give a class three images, or make train/ and test/")
        channels = 1 if self.grayscale else 3
        x_train, y_train = self._decode(train)
        x_test, y_test = self._decode(test) if test else (None, None)
        if x_test is not None and (repeated := count_repeated(x_train, x_test)):
            _warn(
                f"{self.name}: test images that equal a training image in every pixel: {repeated} of {len(x_test)}; "
                f"they make the test error too low: remove them"
            )
        return RawData(x_train, y_train, x_test, y_test, names, image_shape=(channels, *self.image_size))

    def _decode(self, files: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """Pixels, uint8, shape (n, C, H, W), and class indices, shape (n,)."""
        pixels = np.empty((len(files), 1 if self.grayscale else 3, *self.image_size), dtype=np.uint8)
        for row, (file, _) in enumerate(files):
            pixels[row] = decode_image(
                file, file, self.grayscale, self.image_size, self.background, max_pixels=self.max_pixels
            )
            if (row + 1) % 5000 == 0:
                log.info("%s: decoded %d of %d images", self.name, row + 1, len(files))
        return torch.from_numpy(pixels), torch.tensor([label for _, label in files])


def find_parts(folder: Path, folders: list[Path]) -> tuple[Path, Path | None] | None:
    """The training folder and the test folder (or None) among the `folders` of `folder`; None if all are classes.

    Raises:
        InputError: there is a test folder but no training folder, or two folders name the same one of these parts.
    """
    found: dict[str, Path] = {}
    for part, names in PARTS.items():
        named = [path for path in folders if path.name.lower() in names]
        if len(named) > 1 and part != "val":
            raise InputError(
                f"{folder} has {named[0].name}/ and {named[1].name}/, which both name the {part} set: "
                f"keep one, or put the class folders of both into it"
            )
        if named:
            found[part] = named[0]
    if "train" not in found:
        if "test" not in found:
            return None
        raise InputError(
            f"{folder} has {found['test'].name}/ but no train/: add it, or keep only class folders in it, "
            f"then split 80/20"
        )
    train, test = found["train"], found.get("test", found.get("val"))
    if test is not None and "test" not in found:
        _warn(f"{folder}: {test.name}/ is the test set, since there is no test/")
    if left := [f"{path.name}/" for path in folders if path not in (train, test)]:
        beside = train.name if test is None else f"{train.name}/ and {test.name}"
        _warn(f"{folder}: {', '.join(left)} beside {beside}/ is left out")
    return train, test


def list_images(folder: Path, classes: list[Path], data: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """The image files of <class>/* as (path, class index), sorted, and the class names.

    Args:
        folder: the folder of the class folders.
        classes: the class folders, sorted.
        data: the folder of all the data; links to it or to a folder above it are not followed.
    """
    if not classes:
        raise InputError(
            f"{folder} must hold <class>/* images; it has no class folder: sort its images into one folder per class"
        )
    files: list[tuple[str, int]] = []
    owner: dict[str, Path] = {}
    for label, place in enumerate(classes):
        found = image_files(place, data)
        if not found:
            raise InputError(
                f"{folder} must hold <class>/* images; class {place.name} has no image: add some or remove it"
            )
        for real, path in found.items():
            if real in owner:
                raise InputError(
                    f"{path} and {owner[real]} are links to one file, or one is a link to the other, in two classes: "
                    "remove one"
                )
            owner[real] = path
            files.append((str(path), label))
    return files, [place.name for place in classes]


def count_repeated(
    x_train: Tensor,  # shape: (n, C, H, W)
    x_test: Tensor,  # shape: (n_test, C, H, W)
) -> int:
    """How many test images are equal to some training image."""

    def digests(x: Tensor) -> list[bytes]:
        return [blake2b(row.tobytes(), digest_size=16).digest() for row in x.numpy()]

    known = set(digests(x_train))
    return sum(digest in known for digest in digests(x_test))


def _same_classes(
    files: list[tuple[str, int]], test_names: list[str], names: list[str], train: Path, test: Path
) -> list[tuple[str, int]]:
    """Test files with the training set's class indices."""
    if unknown := sorted(set(test_names) - set(names)):
        raise InputError(f"{test} has class {unknown[0]!r}, which {train} has not: add it there or remove it")
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


@rank_zero_only
def _warn(message: str) -> None:
    log.warning(message)
