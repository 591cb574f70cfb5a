"""Image files and pixels: decoding to 8 bits, and grayscale."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kl.errors import InputError


def decode_image(
    source: str | os.PathLike[str] | BinaryIO,
    name: str,
    grayscale: bool = False,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decode an image file to pixels 0..255, channels first, shape (1 or 3, H, W), uint8.

    Args:
        source: the file's path, or the opened file.
        name: what to call it in an error.
        grayscale: one channel of luma instead of three of RGB.
        size: (H, W) to resize to, bilinear with antialiasing; None keeps the file's size.

    Raises:
        InputError: the file is no image or is damaged.
    """
    try:
        with Image.open(source) as image:
            picture = image.convert("L" if grayscale else "RGB")
            if size is not None and picture.size != (size[1], size[0]):
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as an image ({error}): remove or replace the file") from error
    return pixels[None] if grayscale else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def luma(pixels: Tensor, chunk: int = 4096) -> Tensor:
    """ITU-R 601 luma 0.299 R + 0.587 G + 0.114 B, rounded to 8 bits as Pillow's mode "L" does.

    Args:
        pixels: RGB, uint8, shape (n, 3, H, W).
        chunk: images converted at a time.

    Returns:
        Gray pixels, uint8, shape (n, 1, H, W).

    Source: Pillow's L24: (19595 R + 38470 G + 7471 B + 2^15) >> 16. torchvision's rgb_to_grayscale has the
    same weights but cuts off instead of rounding, so it differs by at most one of 255 levels.
    """
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    parts = [((part.int() * weights).sum(dim=1, keepdim=True) + (1 << 15)) >> 16 for part in pixels.split(chunk)]
    return torch.cat([part.to(torch.uint8) for part in parts])
