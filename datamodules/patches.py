"""Features of image patches in a data module, in place of pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kl.errors import InputError, MemoryBudgetError
from kl.features.patch_cache import fit_once, transform_once
from kl.features.patches import Patches


def patches_of(options: Mapping[str, Any] | None) -> Patches | None:
    """Patches with these options, which have learnt nothing yet; None of None.

    Raises:
        InputError: an option is unknown or out of its range.
    """
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise InputError(f"patches must be a dict of options of kl.Patches, or None; got {type(options).__name__}")
    known = [name for name, each in Patches.__dataclass_fields__.items() if each.init]
    if other := sorted(map(str, set(options) - set(known))):
        raise InputError(f"patches must be a dict of {', '.join(known)}; got {other[0]!r}")
    return Patches(**options)


def as_images(
    rows: Tensor,  # shape: (n, d)
    image_shape: tuple[int, int, int] | None,
    name: str,
) -> Tensor:
    """Rows of pixels as images, shape (n, channels, height, width).

    Raises:
        InputError: the rows are no images.
    """
    if image_shape is None:
        raise InputError(f"patches are of images, and the rows of {name} are none: leave them out")
    return rows.reshape(len(rows), *image_shape)


def learn(patches: Patches, pixels: Tensor, image_shape: tuple[int, int, int] | None, name: str) -> None:
    """Learn the patches from training images, rows of pixels of shape (n, d), or read what was learnt from them before.

    Raises:
        InputError: the rows are no images, or the patches cannot be learnt from them.
        MemoryBudgetError: see `kl.Patches.fit`.
    """
    images = as_images(pixels, image_shape, name)
    with errors_say_patches():
        fit_once(patches, images)


def kept_features(patches: Patches, pixels: Tensor) -> Tensor:
    """The features of rows of pixels (n, d), float32, shape (n, columns), from the file that an earlier call has left.

    Raises:
        InputError: see `kl.Patches.transform`.
        MemoryBudgetError: see `kl.Patches.transform`.
    """
    with errors_say_patches():
        return patches.transform_rows(pixels, transform_once)


def passing_features(patches: Patches, pixels: Tensor, device: torch.device) -> Tensor:
    """The features of rows of pixels (m, d) that are seen once, float32, shape (m, columns), on the device.

    Raises:
        InputError: see `kl.Patches.transform`.
        MemoryBudgetError: see `kl.Patches.transform`.
    """
    if not len(pixels):  # a rank's share of a small batch
        return torch.empty(0, patches.columns, device=device)
    with errors_say_patches():
        return patches.transform_rows(pixels.to(device), _quietly)


def _quietly(patches: Patches, images: Tensor) -> Tensor:
    return patches.transform(images, progress=lambda line: None)


@contextmanager
def errors_say_patches() -> Iterator[None]:
    """Begin the messages of errors with the argument `patches`, because the names in them are those of its options."""
    try:
        yield
    except (InputError, MemoryBudgetError) as error:
        raise type(error)(f"patches: {error}") from error
