"""Image files and pixels: decoding to 8 bits, and grayscale."""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from datamodules.modes import check_background, converted, declared_depth, to_eight_bits
from kl.errors import InputError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, whatever the file's name; Pillow's others include programs, such as EPS, and videos."""

MAX_PIXELS = 2**26

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns a picture upright, by the EXIF orientation of its file."""


def decode_image(
    source: str | os.PathLike[str] | BinaryIO,
    name: str,
    grayscale: bool = False,
    size: tuple[int, int] | None = None,
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image file to pixels 0..255, channels first, shape (1 or 3, H, W), uint8.

    Only the first frame or page is decoded. It is turned upright by its EXIF orientation; `to_eight_bits` converts its
    values and alpha. Colour profiles are not applied.

    Args:
        source: the file's path, or the opened file.
        name: the name of the image in error messages.
        grayscale: one channel of luma instead of three of RGB.
        size: (H, W) to resize to, bilinear with antialiasing; None keeps the file's size.
        background: "white" or "black", over which a transparent image is laid.
        max_pixels: limit on the pixels of the image, checked in the file's header before decoding.

    Raises:
        InputError: the file is no image, is damaged or too large, or its pixels have no faithful form in 8 bits.
    """
    check_background(background)
    if isinstance(source, str | os.PathLike):
        check_regular(source, name)
    try:
        with _at_most(None), Image.open(source, formats=FORMATS) as image:
            _check_pixels(image.size, name, max_pixels)
            depth = declared_depth(image)
            with _at_most(max_pixels):
                image.load()
            picture = _upright(to_eight_bits(image, depth, name, background), image)
            picture = converted(picture, "L" if grayscale else "RGB")
            if size is not None and picture.size != (size[1], size[0]):
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{name} cannot be read as an image ({reason}): remove or replace the file") from error
    return pixels[None] if grayscale else np.ascontiguousarray(pixels.transpose(2, 0, 1))


# What Pillow's decoders raise on damaged files; struct.error, IndexError and KeyError come from truncated headers.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def check_regular(path: str | os.PathLike[str], name: str) -> None:
    """Raise InputError unless `path` is a file or a link to a file, because opening a pipe would block forever."""
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): remove or replace it") from error
    if not stat.S_ISREG(kind):
        raise InputError(f"{name} must be a file; it is a folder, pipe, socket or device: remove or replace it")


def check_max_pixels(value: int) -> int:
    """Return the value if it is an int of at least 1, else raise InputError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"max_pixels must be a whole number of at least 1; got {value!r}")
    return value


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise InputError(
            f"{name} has {size[0]} x {size[1]} = {size[0] * size[1]} pixels, more than the limit of {max_pixels}: "
            f"remove it, make it smaller, or raise --max-pixels (max_pixels)"
        )


@contextmanager
def _at_most(pixels: int | None) -> Iterator[None]:
    """Set Pillow's own limit, which also applies to tiles and frames; None switches it off."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        with warnings.catch_warnings():
            # Pillow warns of tags that it does not understand, and of faulty files that it reads nevertheless.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """`picture`, converted from the loaded `image`, turned upright.

    On loading, Pillow turns a TIFF itself and removes its orientation, so a TIFF is not turned twice.
    """
    turn = _UPRIGHT.get(_orientation(image))
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, EOFError, OSError, struct.error):
        return 1  # a damaged EXIF block is ignored, as in viewers, which show such a picture as it is stored


def luma(pixels: Tensor, chunk: int = 4096) -> Tensor:
    """ITU-R 601 luma 0.299 R + 0.587 G + 0.114 B, rounded to 8 bits as Pillow's mode "L" does.

    Args:
        pixels: RGB, uint8, shape (n, 3, H, W).
        chunk: images converted at a time.

    Returns:
        Gray pixels, uint8, shape (n, 1, H, W).

    Source: Pillow's L24: (19595 R + 38470 G + 7471 B + 2^15) >> 16. torchvision's rgb_to_grayscale has the
    same weights but truncates instead of rounding, so it differs by at most one of 255 levels.
    """
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    parts = [((part.int() * weights).sum(dim=1, keepdim=True) + (1 << 15)) >> 16 for part in pixels.split(chunk)]
    return torch.cat([part.to(torch.uint8) for part in parts])
