"""Random shifts and flips of images, new ones in every epoch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kl.distributed.ranks import Share
from kl.errors import InputError
from kl.rows.batches import BatchIndexSampler, derive_seed

SHIFT = 2  # pixels, if "shift" gives no number


@dataclass(frozen=True)
class Augmentation:
    """Each image is shifted at random by up to `shift` pixels along both axes and, if `flip`, mirrored half the time.

    Pixels that a shift brings in are 0. No pixel is interpolated, so 8-bit features remain 8-bit.
    """

    shift: int = 0
    flip: bool = False

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Parse "shift", "shift:3", "flip", or shift and flip with a comma between.

        Raises:
            InputError: the text is none of these.

        Example:
            >>> Augmentation.parse("shift:3,flip")
            Augmentation(shift=3, flip=True)
        """
        shift, flip = 0, False
        for part in str(text).split(","):
            name, colon, pixels = part.strip().partition(":")
            if name == "flip" and not (colon or flip):
                flip = True
            elif name == "shift" and not shift and (not colon or re.fullmatch("0*[1-9][0-9]*", pixels)):
                shift = int(pixels) if colon else SHIFT
            else:
                raise InputError(
                    f"augment must be shift, shift:PIXELS, flip, or shift and flip with a comma between; got {text!r}"
                )
        return cls(shift, flip)

    def require_images(self, image_shape: tuple[int, int, int] | None, name: str) -> None:
        """Check that the rows of the data are images, and larger than the shifts.

        Raises:
            InputError: they are not.
        """
        if image_shape is None:
            raise InputError(f"augment changes images, and the rows of {name} are none: leave it out")
        if self.shift >= min(image_shape[1:]):
            raise InputError(
                f"augment must shift by fewer pixels than the images of {name} have on a side, "
                f"{min(image_shape[1:])}; got {self.shift}"
            )

    def __call__(
        self,
        x: Tensor,  # shape: (m, C H W)
        image_shape: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Tensor:
        """The rows with each image augmented independently, shape (m, C H W); x is not modified."""
        images = x.reshape(len(x), *image_shape)
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.shift:
            images = self._shifted(images, generator)
        return images.reshape(len(x), -1)

    def _shifted(self, images: Tensor, generator: torch.Generator) -> Tensor:
        _, _, height, width = images.shape
        padded = torch.nn.functional.pad(images, [self.shift] * 4)
        out = torch.empty_like(images)
        side = 2 * self.shift + 1
        moves = torch.randint(side * side, (len(images),), generator=generator)
        for move in moves.unique().tolist():  # images with the same shift are cut out together
            rows, (down, right) = moves == move, divmod(move, side)
            out[rows] = padded[rows, :, down : down + height, right : right + width]
        return out


@dataclass(frozen=True)
class AugmentedImages:
    """Training images, which are changed anew in every epoch."""

    pixels: Tensor  # shape: (n, C H W)
    image_shape: tuple[int, int, int]
    augmentation: Augmentation
    seed: int

    def drawn(self, index: Tensor | None, draw: int) -> Tensor:
        """The images of an index tensor (k,), or all, changed by the draw of a number, shape (k, C H W)."""
        return self._changed(index, "as trained", draw)

    def of_epoch(
        self,
        index: Tensor,  # of a batch, shape: (m,)
        epoch: int,
    ) -> Tensor:
        """A batch of images changed as in an epoch, shape (m, C H W)."""
        return self._changed(index, "augment", epoch * len(self.pixels) + int(index[0]))

    def _changed(self, index: Tensor | None, purpose: str, counter: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose, counter))
        return self.augmentation(self.pixels if index is None else self.pixels[index], self.image_shape, generator)


class AugmentedRows(Dataset):
    """Batches (x, y, index) of a training set with x of augmented images, a pure function of seed, epoch and batch.

    Args:
        images: the training images.
        y: their targets, shape (n, c).
        sampler: the sampler of the batches, which knows the epoch.
        features: makes x of a batch's augmented images.
    """

    def __init__(
        self,
        images: AugmentedImages,
        y: Tensor,
        sampler: BatchIndexSampler,
        features: Callable[[Tensor], Tensor | Share],
    ) -> None:
        self._images, self._y, self._sampler, self._features = images, y, sampler, features

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, index: Any) -> tuple[Tensor | Share, Tensor, Tensor]:
        index = torch.as_tensor(index)
        return self._features(self._images.of_epoch(index, self._sampler.epoch)), self._y[index], index
