"""Whether float values are 8-bit pixels, and on which scale; the order of images' channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kl.rows.workspace import rows_at_a_time

LEVELS = 255  # the largest 8-bit level
NEAR = 1e-4  # of a level; rounding k / 255 to float32 moves a value by less
FIRST = 64  # rows that are examined first, because most data that is not 8-bit is recognised there
CHANNELS = (1, 3, 4)  # of gray, colour and transparent images


def pixel_unit(
    rows: Tensor,  # float, shape: (n, d)
) -> float:
    """One 8-bit level in units of these values: 1 for whole numbers 0..255, 1/255 for pixels in [0, 1], 0 for neither.

    Multiples of 1/255 count only if the levels and 255 have no common factor, because other values, such as fifths, may
    be on a coarser scale.

    Example:
        >>> pixel_unit(torch.tensor([[0.0, 16.0]])), pixel_unit(torch.tensor([[0.2, 0.8]]))
        (1.0, 0.0)
    """
    if _levels_of(rows, 1, 0.0) is not None:
        return 1.0
    levels = _levels_of(rows, LEVELS, NEAR)
    return 1 / LEVELS if levels is not None and math.gcd(LEVELS, *levels) == 1 else 0.0


def largest_level(
    rows: Tensor,  # shape: (n, d)
    unit: float,
) -> int:
    """The largest value in units of `unit`, rounded up; 0 if the unit is 0."""
    return math.ceil(float(rows.max()) / unit - NEAR) if unit else 0


def _levels_of(rows: Tensor, factor: int, near: float) -> list[int] | None:
    """The levels k that occur, if all values are k / factor with k in 0..255, else None."""
    seen = torch.zeros(LEVELS + 1, dtype=torch.bool, device=rows.device)
    for part in (rows[:FIRST], *rows[FIRST:].split(rows_at_a_time(rows.shape[1]))):
        scaled = part.double() * factor
        levels = scaled.round()
        if not ((levels >= 0) & (levels <= LEVELS) & ((scaled - levels).abs() <= near)).all():
            return None
        seen[levels.long().flatten()] = True
    return seen.nonzero().flatten().tolist()


def channels_first(
    x: Tensor,  # shape: (n, ...)
) -> Tensor:
    """Images (n, H, W, C) of 1, 3 or 4 channels as (n, C, H, W); any other tensor, such as (n, C, H, W), unchanged.

    The dtype does not matter: integer and float pixels of one layout must become the same features.

    Example:
        >>> channels_first(torch.zeros(2, 28, 20, 3)).shape, channels_first(torch.zeros(2, 3, 28, 20)).shape
        (torch.Size([2, 3, 28, 20]), torch.Size([2, 3, 28, 20]))
    """
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
        return x.permute(0, 3, 1, 2)
    return x
