"""Images as users give them, and their patches: pixels in [0, 1], positions, contrast."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.errors import InputError

WHITE = 255  # the brightest 8-bit pixel
LARGEST = 1e15  # values beyond it would overflow float32 when they are squared and added
FAINT = 10 / WHITE**2  # added to the variance of a patch, so that its noise is not blown up: 10 in 8-bit pixels
FLAT = 1e-10  # a variance below this share of the mean square is rounding: one 8-bit step in one pixel is far above it


def check_images(images: Tensor, size: int) -> Tensor:
    """`images` with a dimension for channels, if they are images with room for a patch of `size` x `size` pixels.

    Returns:
        uint8 or floats, shape (n, channels, height, width), without a copy.

    Raises:
        InputError: they are anything else.
    """
    if not isinstance(images, Tensor) or images.ndim not in (3, 4) or images.layout is not torch.strided:
        received = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            "images must be a dense tensor of shape (n, channels, height, width), or (n, height, width) if gray; got "
            f"{received}: rows of pixels need rows.reshape(n, channels, height, width)"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(
            f"images must be uint8 or floats; got {images.dtype}: use images.to(torch.uint8) for pixels of 0 to 255"
        )
    images = (images[:, None] if images.ndim == 3 else images).detach()
    n, channels, height, width = images.shape
    if n == 0 or channels == 0:
        raise InputError(f"images must hold one image with one channel at least; got shape {tuple(images.shape)}")
    if min(height, width) < size:
        raise InputError(
            f"images must be at least as large as a patch, {size} x {size} pixels; got {height} x {width}: give larger "
            "images or a smaller size="
        )
    return images


def read_pixels(
    images: Tensor,  # shape: (n, channels, height, width)
    rows: slice,
) -> Tensor:
    """Some of the images in float32, 8-bit pixels divided by 255, shape (m, channels, height, width).

    Raises:
        InputError: a value is NaN, infinite or too large.
    """
    part = images[rows]
    if part.dtype == torch.uint8:
        return part.float().div_(WHITE)
    bad = ~(part.abs() <= LARGEST).flatten(1).all(dim=1)
    if bool(bad.any()):
        number = (rows.start or 0) + int(bad.nonzero()[0])
        raise InputError(
            f"images must hold finite numbers of at most {LARGEST:.0e}; image {number} does not: remove or mend it"
        )
    return part.to(torch.float32, copy=True)


def positions(height: int, width: int, size: int) -> tuple[int, int]:
    """Rows and columns of the places at which a patch lies within an image."""
    return height - size + 1, width - size + 1


def patches_at(
    images: Tensor,  # shape: (n, channels, height, width)
    index: Tensor,  # int64, counts the places of all images, image by image and row by row, shape: (k,)
    size: int,
) -> Tensor:
    """The patches at given places, float32, 8-bit pixels divided by 255, shape (k, channels size^2)."""
    height, width = positions(images.shape[2], images.shape[3], size)
    image, place = index // (height * width), index % (height * width)
    side = torch.arange(size, device=images.device)
    row, column = (place // width)[:, None] + side, (place % width)[:, None] + side
    channel = torch.arange(images.shape[1], device=images.device)
    found = images[image[:, None, None, None], channel[:, None, None], row[:, None, :, None], column[:, None, None, :]]
    return found.flatten(1).float().div_(WHITE if images.dtype == torch.uint8 else 1)


def patches_without_brightness(
    pixels: Tensor,  # float32, shape: (m, channels, height, width)
    size: int,
    out: Tensor,  # float32, shape: (m, channels, size, size, rows of positions, columns of positions)
) -> Tensor:
    """Write all patches of images into `out`, less the mean of each, and say which are not constant.

    Returns:
        Whether the pixels of a patch differ, shape (m, positions).
    """
    exact = pixels.double()
    mean, square = _windows_mean(torch.stack([exact.mean(dim=1), exact.square_().mean(dim=1)]), size)
    windows = pixels.unfold(2, size, 1).unfold(3, size, 1)  # torch's own function `unfold` was four times as slow
    torch.sub(windows.permute(0, 1, 4, 5, 2, 3), mean.float()[:, None, None, None], out=out)
    return (square - mean.square() > FLAT * square).flatten(1)


def _windows_mean(
    maps: Tensor,  # shape: (..., height, width)
    size: int,
) -> Tensor:
    """The mean over all windows of size x size, shape (..., rows of positions, columns of positions)."""
    for _ in range(2):
        side = maps.shape[-1]
        band = torch.ones(side, side - size + 1, dtype=maps.dtype, device=maps.device).tril().triu(1 - size) / size
        maps = (maps @ band).mT.contiguous()  # of the rows, then of the columns
    return maps


def remove_brightness(
    patches: Tensor,  # float32, a patch a column, shape: (..., d, k)
    normalize: bool,
) -> Tensor:
    """Subtract from each patch its mean, and divide it by sqrt(variance + FAINT) if `normalize`; in place.

    A patch whose pixels are all equal becomes exactly 0, whatever rounding made of it.
    """
    mean = patches.mean(dim=-2, keepdim=True)
    patches.sub_(mean)
    variance = patches.square().mean(dim=-2, keepdim=True)
    seen = variance > FLAT * (variance + mean.square())
    return patches.mul_(seen / (variance + FAINT).sqrt_() if normalize else seen)
