"""From an image to its features: responses, encoding and pooling, one block after the other that stays in cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.features.patch_cells import Cells
from kl.features.patch_dictionary import UNIT, PatchDictionary, to_integers, unit_rows
from kl.features.patch_images import all_patches, remove_brightness
from kl.features.patch_options import PatchOptions
from kl.rows.int8 import MULTIPLE, int8_is_exact, int8_product
from kl.rows.workspace import Workspace, spans

LEVELS = 255  # the largest feature
# Positions and patches of the dictionary in a block of responses, 2 MB. Float32 holds sums over its positions exactly.
POSITIONS, BLOCK = 1024, 512
CPU_IMAGES, GPU_IMAGES = 8, 64  # images of a block, because one image would not fill a GPU, nor repay each call


class Term(NamedTuple):
    """A feature is sign (sum over its cell of clamp(z, low, high) - offset), and all these are whole numbers."""

    sign: int
    low: Tensor | None
    high: Tensor | None
    offset: Tensor


def terms_of(
    options: PatchOptions,
    thresholds: Tensor,  # of the dictionary's patches, whole numbers, shape: (m,)
) -> list[Term]:
    """One for each sign: [z > t] = clamp(z, t, t + 1) - t, and max(z - t, 0) = clamp(z, min=t) - t, and so on."""
    if options.encoding == "count":
        return [Term(1, thresholds, thresholds + 1, thresholds)]
    t = torch.full_like(thresholds, round(options.threshold * UNIT**2))
    positive, negative = Term(1, t, None, t), Term(-1, None, -t, -t)
    return [positive, negative][: options.signs]


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
        device, d = dictionary.patches.device, len(dictionary.whitening)
        on_cpu = device.type == "cpu"
        self.images = CPU_IMAGES if on_cpu else GPU_IMAGES
        """Images of a block."""
        # Images whose responses are computed together: on a CPU one for each thread, whose share then stays in cache.
        self._tile = max(k for k in (1, 2, 4, 8) if k <= torch.get_num_threads()) if on_cpu else self.images
        self._integer = int8_is_exact(device)
        self._whitening = pad(dictionary.whitening, (0, -d % MULTIPLE if self._integer else 0))
        self._cells, self._factors, self._size = cells, dictionary.factors, options.size
        blocks = list(spans(len(dictionary.patches), BLOCK // options.signs))
        self._parts = [self._right_side(dictionary.patches[block]) for block in blocks]
        self._dtype = torch.int32 if self._integer else torch.float32
        self._terms = [terms_of(options, dictionary.thresholds[block].to(self._dtype)) for block in blocks]
        self._bands = list(spans(cells.positions[0], max(1, POSITIONS // cells.positions[1])))
        self._workspace, self._clamped = Workspace(), Workspace()

    @property
    def memory(self) -> int:
        """Bytes of a block beyond its pixels."""
        (rows, columns), (height, width) = map(len, self._cells.starts), self._cells.positions
        signs, block = len(self._terms[0]), len(self._terms[0][0].offset)
        m = sum(len(terms[0].offset) for terms in self._terms)
        responses = 8 * self._tile * max(band.stop - band.start for band in self._bands) * width * block
        sums = 8 * signs * rows * (3 * width * block + 4 * columns * m)
        return responses + self.images * (14 * self._whitening.shape[1] * height * width + sums)

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
        given = len(pixels)
        if given < self.images:
            pixels = pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.images - given))
        units = self._units(pixels)
        found = []
        for part, terms in zip(self._parts, self._terms, strict=True):
            maps = self._over_rows(units, part, terms)
            sums = self._cells.over_columns(maps)  # shape: (images, signs, rows of cells, columns of cells, m of block)
            for number, term in enumerate(terms):
                sums[:, number].sub_(self._cells.size * term.offset.double()).mul_(term.sign)
            found.append(sums.permute(0, 2, 3, 1, 4))
        return torch.cat(found, dim=-1).flatten(1)[:given]

    def _units(self, pixels: Tensor) -> Tensor:
        """The patches, whitened, whole numbers of norm about 127, shape (images, positions, d or more)."""
        # Without the contrast, by which the norm divides too.
        patches = remove_brightness(all_patches(pixels, self._size), normalize=False)
        units = to_integers(unit_rows(torch.matmul(patches.mT, self._whitening)))
        return units.to(torch.int8) if self._integer else units

    def _right_side(self, patches: Tensor) -> Tensor:
        """A block of the dictionary, int8 of shape (m, d or more), or float32 of shape (m, d) for float products."""
        if self._integer:
            return pad(patches.to(torch.int8), (0, self._whitening.shape[1] - patches.shape[1])).contiguous()
        return patches

    def _over_rows(
        self,
        units: Tensor,  # shape: (images, positions, d or more)
        part: Tensor,  # shape: (m of the block, d or more)
        terms: list[Term],
    ) -> Tensor:
        """Clamped responses summed over the rows of cells, float64, shape (images, signs, rows of cells, width, m)."""
        width, m, size = self._cells.positions[1], len(part), self._tile
        total: Tensor | None = None
        for band in self._bands:
            rows = self._cells.rows_in(band)
            sums = torch.empty(len(units), len(terms), len(rows), width * m, dtype=self._dtype, device=units.device)
            for tile in spans(len(units), size):
                z = self._responses(units[tile, band.start * width : band.stop * width].flatten(0, 1), part)
                # The last term may overwrite z.
                outs = [*(self._clamped.take(len(z), m, z, z.dtype) for _ in terms[1:]), z]
                for number, (term, out) in enumerate(zip(terms, outs, strict=True)):
                    clamped = torch.clamp(z, term.low, term.high, out=out).view(size, band.stop - band.start, -1)
                    for row, within in enumerate(rows):
                        # Exact in int32, and in float32, which holds whole numbers up to 2^24.
                        torch.sum(clamped[:, within], dim=1, dtype=self._dtype, out=sums[tile, number, row])
            total = sums.double() if total is None else total.add_(sums)
        assert total is not None  # there is a band
        return total.view(*total.shape[:3], width, m)

    def _responses(self, units: Tensor, part: Tensor) -> Tensor:
        """<patch, dictionary patch>, int32 or float32, shape (patches, m of the block); overwrites the last ones."""
        if self._integer:
            return int8_product(units, part, self._workspace)
        return torch.mm(units, part.T, out=self._workspace.take(len(units), len(part), units, units.dtype))
