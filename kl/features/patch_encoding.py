"""From an image to its features: responses, encoding and pooling, one block after the other that stays in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.errors import InputError
from kl.features.patch_dictionary import PatchDictionary, unit_columns
from kl.features.patch_images import all_patches, remove_brightness
from kl.features.patch_options import PatchOptions
from kl.rows.workspace import spans

MOST = 255  # positions of a cell whose count fits uint8
POSITIONS, BLOCK = 1024, 512  # positions and patches of the dictionary in a block of responses: 2 MB
GPU_IMAGES = 64  # images of a block on a GPU, which one image would not fill


@dataclass(frozen=True)
class Cells:
    """Square cells of response positions, over which the responses are pooled."""

    starts: tuple[range, range]
    """First row of each row of cells, first column of each column of cells."""
    sides: tuple[int, int]
    """Rows and columns of positions of a cell."""
    positions: tuple[int, int]
    """Rows and columns of positions of an image."""

    @classmethod
    def of(cls, positions: tuple[int, int], pool: int | None, stride: int | None) -> Cells:
        """Cells of side `pool`; see `kl.Patches`.

        Raises:
            InputError: a cell does not fit.
        """
        sides = tuple(-(-each // 2) if pool is None else pool for each in positions)
        if max(side - each for side, each in zip(sides, positions, strict=True)) > 0:
            raise InputError(
                f"pool must be at most the {min(positions)} positions of a patch along the shorter side of an image; "
                f"got {pool}: give a smaller pool or size, or larger images"
            )
        steps = (stride or max(1, each - side) for each, side in zip(positions, sides, strict=True))
        rows, columns = (
            range(0, each - side + 1, step) for each, side, step in zip(positions, sides, steps, strict=True)
        )
        return cls((rows, columns), (sides[0], sides[1]), positions)

    def __len__(self) -> int:
        return len(self.starts[0]) * len(self.starts[1])

    @property
    def size(self) -> int:
        """Positions of a cell."""
        return self.sides[0] * self.sides[1]

    def matrices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """0/1 matrices A and B of float32, so that A Z B^T are the sums over the cells of a map Z of positions."""
        both = []
        for starts, side, each in zip(self.starts, self.sides, self.positions, strict=True):
            first = torch.tensor(list(starts), device=device)[:, None]
            place = torch.arange(each, device=device)
            both.append(((place >= first) & (place < first + side)).float())
        return both[0], both[1]


class Encoder:
    """Computes the features of a fixed number of images at a time.

    Each product has a shape that depends on the size of the images alone. An image's features are therefore the same
    bits, whatever images come with it: products of other shapes differ in the last bits, and those decide which
    responses exceed a threshold.

    Args:
        dictionary: what was learnt from training images.
        cells: the cells.
        options: of which the encoding, its threshold and the size of a patch are used.
    """

    def __init__(self, dictionary: PatchDictionary, cells: Cells, options: PatchOptions) -> None:
        device = dictionary.patches.device
        self.images = 1 if device.type == "cpu" else GPU_IMAGES
        """Images of a block."""
        self._whitening, self._cells = dictionary.whitening, cells
        self._encoding, self._threshold, self._size = options.encoding, options.threshold, options.size
        # The dictionary in blocks, each as the right side of a product, because its rows are then read in one run.
        blocks = list(spans(len(dictionary.patches), BLOCK))
        self._parts = [dictionary.patches[block].T.contiguous() for block in blocks]
        self._thresholds = [dictionary.thresholds[block] for block in blocks]
        rows, self._columns = cells.matrices(device)
        self._bands = list(spans(cells.positions[0], max(1, POSITIONS // cells.positions[1])))
        self._rows = [rows[:, band].contiguous() for band in self._bands]
        size = self.images * max(band.stop - band.start for band in self._bands) * cells.positions[1]
        self._buffers = self._whitening.new_empty(options.signs, size * self._parts[0].shape[1])

    @property
    def memory(self) -> int:
        """Bytes of a block beyond its pixels."""
        (rows, columns), (height, width) = map(len, self._cells.starts), self._cells.positions
        d, m = len(self._whitening), sum(part.shape[1] for part in self._parts)
        signs = len(self._buffers)
        pooled = signs * rows * (2 * width * self._parts[0].shape[1] + 2 * columns * m)
        return self._buffers.nbytes + 4 * self.images * (3 * d * height * width + pooled)

    def encode(
        self,
        pixels: Tensor,  # float32, shape: (at most `images`, channels, height, width)
    ) -> Tensor:
        """The features, float32, shape (len(pixels), cells m), or twice as many for "rectified"."""
        given, width = len(pixels), self._cells.positions[1]
        if given < self.images:
            pixels = pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.images - given))
        # Without the contrast, by which the norm divides too.
        patches = remove_brightness(all_patches(pixels, self._size), normalize=False)
        units = unit_columns(torch.matmul(self._whitening, patches)).mT  # shape: (images, positions, d)
        found = []
        for part, thresholds in zip(self._parts, self._thresholds, strict=True):
            pooled: list[Tensor] = []  # over rows, for each sign, shape: (images, rows of cells, width m of the block)
            for band, rows in zip(self._bands, self._rows, strict=True):
                z = self._responses(units[:, band.start * width : band.stop * width], part)
                for sign, coded in enumerate(self._encoded(z, thresholds)):
                    sums = torch.matmul(rows, coded.view(self.images, band.stop - band.start, -1))
                    if band.start == 0:
                        pooled.append(sums)
                    else:
                        pooled[sign].add_(sums)
            maps = torch.stack(pooled, dim=2).view(self.images, -1, len(pooled), width, part.shape[1])
            found.append(torch.matmul(self._columns, maps).transpose(2, 3))
        features = torch.cat(found, dim=-1).flatten(1)[:given]  # shape: (images, rows, columns, signs, m) before
        return features if self._encoding == "count" else features.div_(self._cells.size)

    def _responses(self, units: Tensor, part: Tensor) -> Tensor:
        """<unit patch, dictionary patch>, shape (images, positions, m of the block); overwrites the last ones."""
        shape = (*units.shape[:2], part.shape[1])
        return torch.matmul(units, part, out=self._buffers[0][: math.prod(shape)].view(shape))

    def _encoded(self, z: Tensor, thresholds: Tensor) -> Iterator[Tensor]:
        """The encoding of z for each sign; z is overwritten."""
        if self._encoding == "count":
            yield torch.gt(z, thresholds, out=z)
            return
        if self._encoding == "rectified":
            yield torch.sub(z, self._threshold, out=self._buffers[1][: z.numel()].view(z.shape)).clamp_(min=0)
            z.neg_()
        yield z.sub_(self._threshold).clamp_(min=0)
