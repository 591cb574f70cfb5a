"""From an image to its features: responses, encoding and pooling, one block after the other that stays in cache."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.features.patch_cells import Cells
from kl.features.patch_dictionary import LEAST, PatchDictionary
from kl.features.patch_fastest import responses_on
from kl.features.patch_images import patches_without_brightness
from kl.features.patch_options import PatchOptions
from kl.features.patch_responses import UNIT, terms_of
from kl.rows.workspace import Workspace, spans

LEVELS = 255  # the largest feature
POSITIONS, BLOCK = 1024, 1024  # and patches of the dictionary in a block of responses
CACHE = 2**22  # bytes of responses for each thread, which then stay in its cache
GPU_SHARE = 16  # times as many for a GPU
VALUES = 2**21  # of the patches of images that are whitened together
IMAGES = 64  # and images, at most


class Encoder:
    """Computes the features of a fixed number of images at a time.

    Patches are whitened by a product whose shape depends on the size of the images alone, because products of other
    shapes differ in the last bits, and those would decide how a value is rounded. All products and sums after it are of
    whole numbers, and exact. An image's features are therefore the same bits, whatever images come with it.

    Args:
        dictionary: what was learnt from training images.
        cells: the cells.
        options: of which the encoding, its threshold and the size of a patch are used.
    """

    def __init__(self, dictionary: PatchDictionary, cells: Cells, options: PatchOptions) -> None:
        device = dictionary.patches.device
        d, places = len(dictionary.whitening), math.prod(cells.positions)
        self.images = max(1, min(IMAGES, VALUES // (d * places)))
        """Images of a block."""
        self._cells, self._factors, self._size = cells, dictionary.factors, options.size
        self._entries = len(dictionary.patches)
        self._terms, thresholds = terms_of(options), dictionary.thresholds if options.encoding == "count" else None
        kind = responses_on(device)
        self._blocks = [
            (block, kind(dictionary.patches[block], None if thresholds is None else thresholds[block], self._terms))
            for block in spans(self._entries, BLOCK)
        ]
        first = self._blocks[0][1]
        each = min(POSITIONS, places) * min(BLOCK, self._entries) * first.itemsize
        threads = torch.get_num_threads() if device.type == "cpu" else GPU_SHARE
        tiles = max(1, math.ceil(self.images * each / (CACHE * threads)))
        self._tile = math.ceil(self.images / tiles)  # images whose responses are computed together
        self._whitening = pad(dictionary.whitening, (0, first.columns - d))
        self._bands = []
        for band in spans(places, POSITIONS):
            numbers, matrix = cells.within(band)
            if len(matrix):
                self._bands.append((numbers, first.band(band, matrix)))
        self._workspace = Workspace()

    @property
    def memory(self) -> int:
        """Bytes of a block beyond its pixels."""
        places, d = math.prod(self._cells.positions), self._whitening.shape[1]
        signs, m = len(self._terms), self._entries
        block = min(BLOCK, m)
        values = self._tile * min(POSITIONS, places) * block * (1 + signs) * self._blocks[0][1].itemsize
        sums = 8 * signs * len(self._cells) * (self.images * m + 2 * self._tile * block)
        return values + sums + self.images * places * 14 * d

    def encode(
        self,
        pixels: Tensor,  # float32, shape: (at most `images`, channels, height, width)
    ) -> Tensor:
        """The features, uint8, shape (len(pixels), columns)."""
        pooled = self.pooled(pixels)
        if len(self._factors):
            pooled.mul_(self._factors).round_().clamp_(max=LEVELS)
        return pooled.to(torch.uint8)

    def pooled(
        self,
        pixels: Tensor,  # float32, shape: (at most `images`, channels, height, width)
    ) -> Tensor:
        """The sums of encoded responses over cells, whole numbers, float64, shape (len(pixels), columns)."""
        n = len(pixels)
        units = self._units(pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.images - n)))
        total = pixels.new_zeros(len(self._terms), len(self._cells), n, self._entries, dtype=torch.float64)
        for tile in spans(n, self._tile):
            prepared = self._blocks[0][1].prepare(units[tile])
            for block, responses in self._blocks:
                for numbers, band in self._bands:
                    total[:, numbers, tile, block] += responses.sums(prepared, band)
        for term, sums in zip(self._terms, total, strict=True):
            sums.sub_(self._cells.size * term.offset).mul_(term.sign)
        return total.permute(2, 1, 0, 3).flatten(1)

    def _units(self, pixels: Tensor) -> Tensor:
        """The patches, whitened, whole numbers of norm about 127, float32, shape (images, positions, d or more)."""
        n, channels, _, _ = pixels.shape
        shape = (channels, self._size, self._size, *self._cells.positions)
        patches = self._workspace.take(n, math.prod(shape), pixels, torch.float32).view(n, *shape)
        seen = patches_without_brightness(pixels, self._size, patches)
        whitened = torch.matmul(patches.view(n, -1, seen.shape[1]).mT, self._whitening)
        norm = torch.linalg.vector_norm(whitened, dim=-1)
        factor = torch.where(seen & (norm > LEAST), UNIT / norm, 0)
        return whitened.mul_(factor[..., None]).round_()
