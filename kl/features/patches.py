"""Features of image patches: what a convolutional network's first layer sees, learnt without back-propagation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from kl.errors import InputError, MemoryBudgetError
from kl.exact.equations import duration
from kl.features.patch_cells import Cells
from kl.features.patch_dictionary import REMEDY, PatchDictionary, draw, learn_dictionary, learning_memory
from kl.features.patch_encoding import LEVELS, Encoder
from kl.features.patch_images import check_images, positions, read_pixels
from kl.features.patch_options import PatchOptions
from kl.machines.checkpoints import require_arguments, require_values
from kl.machines.packed import unpack
from kl.rows.flip import flipped
from kl.rows.workspace import spans
from kl.system.memory import format_memory, parse_memory
from kl.system.progress import Reports

log = logging.getLogger(__name__)

SCALED, STEPS = 512, 20  # images from which standard deviations are learnt, and the steps of 8 bits in each
REPORTED = 1024  # images between two reports, at most


@dataclass(eq=False)
class Patches(PatchOptions):
    """Pooled responses of image patches to a dictionary of patches: features on which any kernel works.

    From each patch p of size x size pixels its mean is subtracted, so that brightness does not count. The response to
    entry D_k of the dictionary is the cosine z_k = <W p / |W p|, D_k> with the whitening W = (C + eps mean(C))^(-1/2),
    where C is the covariance of training patches, mean(C) the mean of its eigenvalues, and D_k a whitened training
    patch of norm 1. A patch whose pixels are all equal has the response 0 to all. A feature is, over the positions of a
    cell, for the encodings

    - "count": the number of responses z_k > t_k; t_k is exceeded by the share `active` of the training patches that are
      not constant;
    - "soft": the sum of max(z_k - threshold, 0), divided by its standard deviation over training images;
    - "rectified": the same, and the sum of max(-z_k - threshold, 0), which doubles the features.

    All features are whole numbers of 8 bits, with which the kernels compute exactly: counts are, and the others are
    rounded to 20ths of a standard deviation, at most 12.75. Responses are rounded, too: z_k = <k(W p), k(D_k)> / 127^2
    with k(w) = round(127 w / |w|), and for "soft" and "rectified" z_k and the threshold to 126ths, so that responses
    and their sums over a cell are exact.

    Features are ordered by the row of the cell, its column, the sign (for "rectified"), and k.

    Args:
        count: patches of the dictionary, before mirror images.
        size: side of a patch in pixels.
        whitening: eps, above 0, in units of the mean eigenvalue.
        dictionary: "random" takes patches of training images drawn at random; "kmeans" takes the centres of spherical
            k-means of whitened patches, which starts from them.
        mirrored: the dictionary also holds the left-right mirror image of each patch, as `count` further entries with
            the same thresholds. The mirror image of an image then has the same features in other columns, if its cells
            lie symmetrically, as they do by default.
        encoding: "count", "soft" or "rectified".
        active: share of the responses that "count" counts, between 0 and 1.
        threshold: of "soft" and "rectified", 0 or above and below 1.
        pool: side of a cell in positions; None is half of the positions along each side of the image, rounded up. An
            image has height - size + 1 rows of positions.
        stride: positions from one cell to the next, starting at the first position; None gives 2 x 2 cells, one in each
            corner.
        normalize: divide each patch, less its mean, by sqrt(its variance + 10 / 255^2), so that faint patches count for
            the whitening nearly as much as others.
        seed: seed of the draw.
        memory: bytes of the temporaries beyond images and features. Features do not depend on it.

    Raises:
        InputError: an option is out of its range.

    Source: Coates and Ng 2011, The importance of encoding versus training with sparse coding and vector quantization;
    Recht et al. 2019, arXiv:1902.10811, and Thiry et al. 2021, arXiv:2101.07528, which take random patches. Counts of
    responses are this project's.

    Example:
        >>> import torch, kl
        >>> images = torch.randint(256, (20, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        >>> features = kl.Patches(count=8, size=5, encoding="count").fit(images).transform(images)  # 4 cells of 4 x 4
        >>> features.shape, features.dtype, int(features.max()) <= 16
        (torch.Size([20, 32]), torch.uint8, True)
    """

    image: tuple[int, int, int] | None = field(default=None, init=False)
    """Channels, height and width of the images; None before `fit`."""
    learnt: PatchDictionary | None = field(default=None, init=False)
    """The dictionary; None before `fit`."""

    def fit(self, images: Tensor, progress: Callable[[str], object] | None = None) -> Patches:
        """Learn dictionary, whitening and thresholds from patches of training images.

        At most 50000 patches are drawn, or 4 for each of the dictionary if that is more.

        Args:
            images: uint8 pixels of 0 to 255, or floats in [0, 1], shape (n, channels, height, width), or
                (n, height, width) if gray.
            progress: is called with a line for each stage; None logs the lines.

        Returns:
            This object.

        Raises:
            InputError: the images are none, are smaller than a patch, hold NaN, or have fewer patches than the
                dictionary that are not constant; or a cell does not fit them.
            MemoryBudgetError: the patches need more than `memory`.
        """
        images = check_images(images, self.size)
        _, channels, height, width = images.shape
        self._cells((channels, height, width))
        places = len(images) * math.prod(positions(height, width, self.size))
        d = channels * self.size**2
        if self.count > places:
            raise InputError(
                f"count must be at most the number of patches, {places} in {len(images)} images; got {self.count}: "
                "give more images or a smaller count="
            )
        budget = parse_memory(self.memory, images.device)
        needed = learning_memory(self.count, d, places)
        if needed > budget:
            raise MemoryBudgetError(
                f"learning a dictionary of {self.count} patches needs {format_memory(needed)}, more than the budget of "
                f"{format_memory(budget)}: raise memory=, or give a smaller count= or size="
            )
        for rows in spans(len(images), self._batch(images, budget, 0, 1)):
            read_pixels(images, rows)
        learnt = learn_dictionary(images, self, progress or log.info)
        if self.encoding != "count":
            (progress or log.info)("scaling features")
            learnt = replace(learnt, factors=self._factors(images, learnt))
        self.learnt, self.image = learnt, (channels, height, width)
        return self

    def _factors(self, images: Tensor, learnt: PatchDictionary) -> Tensor:
        """20 / the standard deviation of each column's sums over some of the images, 0 for a constant column."""
        shape = (images.shape[1], images.shape[2], images.shape[3])
        chosen = draw(len(images), min(len(images), SCALED), torch.Generator().manual_seed(self.seed))
        encoder = Encoder(learnt.to(images.device), self._cells(shape), self)
        sums = images.new_zeros(2, self._columns(shape), dtype=torch.float64)  # of the features, and of their squares
        for part in chosen.split(encoder.images):
            pooled = encoder.pooled(read_pixels(images[part.to(images.device)], slice(None)))
            sums += torch.stack([pooled.sum(dim=0), pooled.square().sum(dim=0)])
        if self.mirrored and self._cells(shape).mirrored():  # as if the mirror images had been seen, too
            sums = (sums + flipped(sums, *self._mirror(shape))) / 2
        mean, square = sums / len(chosen)
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        return torch.where(deviation > 0, STEPS / deviation, 0).float()

    @property
    def mirror(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape and axes: features of that shape, reversed along those axes, are the features of the mirror image.

        They are what `kl.kernels.Mirrored` takes.

        Raises:
            InputError: `fit` was not called, `mirrored` is False, or the cells are not their own mirror image.
        """
        shape, _ = self._fitted()
        if not self.mirrored:
            raise InputError("mirrored must be True, so that mirror images have their features in other columns")
        cells = self._cells(shape)
        if not cells.mirrored():
            starts = cells.starts[1]
            raise InputError(
                f"pool and stride must give cells that are their own mirror image; got columns from {starts[0]} to "
                f"{starts[-1] + cells.sides[1]} of {cells.positions[1]} positions: leave them out, or choose a stride "
                f"that divides {cells.positions[1] - cells.sides[1]}"
            )
        return self._mirror(shape)

    def _mirror(self, shape: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows, columns = map(len, self._cells(shape).starts)
        return (rows, columns, self.signs, 2, self.count), (1, 3)

    def transform(self, images: Tensor, progress: Callable[[str], object] | None = None) -> Tensor:
        """The features of images, to the same bits as those of each image alone.

        The features are computed on the images' device, and are the only result whose size grows with n.

        Args:
            images: images of the size and channels of those of `fit`.
            progress: is called with a line after each batch; None logs one every 5 seconds.

        Returns:
            Features, uint8, shape (n, `columns`).

        Raises:
            InputError: `fit` was not called, or the images have another size, other channels, or NaN.
            MemoryBudgetError: one image needs more than `memory`.
        """
        shape, learnt = self._fitted()
        images = check_images(images, self.size)
        if tuple(images.shape[1:]) != shape:
            raise InputError(
                f"images must have {_called(shape)}, as those of fit; got {_called(images.shape[1:])}: resize or "
                "convert them, or fit again"
            )
        device = images.device
        encoder = Encoder(learnt.to(device), self._cells(shape), self)
        batch = self._batch(images, parse_memory(self.memory, device), encoder.memory, encoder.images)
        features = torch.empty(len(images), self.columns, dtype=torch.uint8, device=device)
        start, report = time.monotonic(), Reports(progress, log)
        for rows in spans(len(images), batch):
            pixels = read_pixels(images, rows)
            for part in spans(len(pixels), encoder.images):
                features[rows][part] = encoder.encode(pixels[part])
            done = rows.stop
            left = (time.monotonic() - start) / done * (len(images) - done)
            report(f"patches of {done} of {len(images)} images, about {duration(left)} left")
        return features

    def transform_rows(
        self,
        rows: Tensor,  # shape: (n, channels height width)
        transform: Callable[[Patches, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The features of images that are rows of pixels, float32, shape (n, columns).

        Args:
            rows: rows of pixels.
            transform: another way to the same features than `transform` of these patches.

        Raises:
            InputError: `fit` was not called, or the rows have another number of pixels.
        """
        shape, _ = self._fitted()
        if rows.ndim != 2 or rows.shape[1] != math.prod(shape):
            raise InputError(
                f"rows must have {math.prod(shape)} pixels, those of {_called(shape)}; got shape {tuple(rows.shape)}"
            )
        images = rows.reshape(len(rows), *shape)
        return (self.transform(images) if transform is None else transform(self, images)).float()

    @property
    def columns(self) -> int:
        """The number of features of an image.

        Raises:
            InputError: `fit` was not called.
        """
        shape, _ = self._fitted()
        return self._columns(shape)

    def _columns(self, shape: tuple[int, int, int]) -> int:
        return len(self._cells(shape)) * self.entries * self.signs

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, from which `from_state` makes an object that transforms images to the same bits.

        Raises:
            InputError: `fit` was not called.
        """
        shape, learnt = self._fitted()
        options = {each.name: getattr(self, each.name) for each in fields(self) if each.init and each.name != "memory"}
        return {"options": options, "image": list(shape), **learnt.state_dict()}

    @classmethod
    def from_state(cls, state: Any, memory: int | str = "256MB") -> Patches:
        """The object of `state_dict`, which may come from a file and is checked.

        Args:
            state: the state.
            memory: see `Patches`; it is no part of a state.

        Raises:
            InputError: it is no such state, or an option, size or value of it is impossible.
        """
        require_values("patches", state, {"options": dict, "image": list[int]}, REMEDY)
        require_arguments("options of patches", cls, state["options"], REMEDY)
        patches = cls(**{**state["options"], "memory": memory})
        if len(state["image"]) != 3 or min(state["image"]) < 1 or min(state["image"][1:]) < patches.size:
            raise InputError(
                f"the patches' image must be channels, height and width, at least as large as a patch of "
                f"{patches.size} pixels; got {state['image']}: {REMEDY}"
            )
        shape = (state["image"][0], state["image"][1], state["image"][2])
        patches._cells(shape)
        d, m = shape[0] * patches.size**2, patches.entries
        factors = 0 if patches.encoding == "count" else patches._columns(shape)
        patches.image, patches.learnt = shape, PatchDictionary.from_state(state, d, m, factors)
        return patches

    def _fitted(self) -> tuple[tuple[int, int, int], PatchDictionary]:
        if self.image is None or self.learnt is None:
            raise InputError("patches must be learnt first: call fit with training images")
        return self.image, self.learnt

    def _cells(self, shape: tuple[int, int, int]) -> Cells:
        """The cells of images of a shape, which fit it."""
        cells = Cells.of(positions(shape[1], shape[2], self.size), self.pool, self.stride)
        if self.encoding == "count" and cells.size > LEVELS:
            raise InputError(
                f"pool must be so small that a cell has at most {LEVELS} positions, whose number fits 8 bits; got "
                f"cells of {cells.sides[0]} x {cells.sides[1]}: give pool=15 and a stride=, or another encoding="
            )
        return cells

    def _batch(self, images: Tensor, budget: int, held: int, step: int) -> int:
        """Images whose pixels are converted together, a multiple of `step`, beside `held` bytes."""
        each = 6 * images[0].numel() + (images[0].numel() * 8 if images.dtype == torch.float64 else 0)
        if held + each * step > budget:
            raise MemoryBudgetError(
                f"the patches of {step} images at a time need {format_memory(held + each * step)}, more than the "
                f"budget of {format_memory(budget)}: raise memory=, or give a smaller count= or smaller images"
            )
        return max(step, min(REPORTED, (budget - held) // each) // step * step)


def _called(shape: tuple[int, ...] | torch.Size) -> str:
    channels, height, width = shape
    return f"{channels} channel{'s' if channels != 1 else ''} of {height} x {width} pixels"


def patches_in(data_info: Mapping[str, Any]) -> Patches | None:
    """The patches of a checkpoint's description of its data; None if its features are pixels or no images.

    Raises:
        InputError: the description holds no patches that `Patches.state_dict` could have given.
    """
    state = data_info.get("patches", {})
    return None if state == {} else Patches.from_state(unpack(state))
