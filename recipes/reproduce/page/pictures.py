"""Figures that show images: a grid for each set, with or without a caption above each image."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from callbacks.figures import new_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """Images with a title above all of them."""

    title: str
    images: Sequence[NDArray[np.floating]]  # values in [0, 1], each of shape: (1 or 3, height, width)
    captions: Sequence[str] = ()
    """One for each image, or none."""


def pictures_figure(grids: Sequence[Grid], columns: int) -> Figure:
    """The grids beside one another, each with `columns` images in a row."""
    side = 1.0 if any(grid.captions for grid in grids) else 0.36  # inches, of an image with its caption
    lines = max(-(-len(grid.images) // columns) for grid in grids)
    figure = new_figure(side * (columns + 0.3) * len(grids), side * lines * (1.15 if side == 1 else 1) + 0.4)
    parts = figure.subfigures(1, len(grids), squeeze=False)[0]
    for part, grid in zip(parts, grids, strict=True):
        part.suptitle(grid.title, fontsize=9)
        axes = list(part.subplots(lines, columns, squeeze=False).flat)
        captions = grid.captions or [""] * len(grid.images)
        for each in axes:
            each.set_axis_off()
        for each, image, caption in zip(axes, grid.images, captions, strict=False):
            shown = np.broadcast_to(image, (3, *image.shape[1:]))
            each.imshow(shown.transpose(1, 2, 0), interpolation="nearest")
            each.set_title(caption, fontsize=6.5, pad=2)
    return figure


def decoded(pixels: Sequence[str], shape: Sequence[int]) -> list[NDArray[np.floating]]:
    """The images of `points.images`, values in [0, 1]."""
    return [np.frombuffer(base64.b64decode(each), np.uint8).reshape(shape) / 255 for each in pixels]


def patch_images(patches: Sequence[Sequence[float]], shape: Sequence[int]) -> list[NDArray[np.floating]]:
    """Patches with values of both signs as images: 0 is grey, and the largest absolute value black or white."""
    found = [np.array(each).reshape(shape) for each in patches]
    return [0.5 + 0.5 * each / (np.abs(each).max() or 1.0) for each in found]
