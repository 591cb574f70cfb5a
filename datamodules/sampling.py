"""Subsets of rows, and the number of rows in a share."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import torch
from torch import Tensor


def count_of(share: float, n: int) -> int:
    """round(share n) with halves up, in decimal: 0.29 of 50 rows is 14.5, but in binary it is a little less.

    Example:
        >>> count_of(0.5, 5), count_of(0.29, 50), count_of(0.1, 3)
        (3, 15, 0)
    """
    return int((Decimal(str(float(share))) * n).to_integral_value(ROUND_HALF_UP))


def draw_subset(n: int, size: int | None, seed: int) -> Tensor | None:
    """`size` of the rows 0..n-1 without replacement, in their original order, shape (size,); None means all.

    For one seed the subsets are nested: a smaller one is part of a larger one.
    """
    if size is None or size == n:
        return None
    rows = np.random.default_rng(seed).permutation(n)[:size]
    return torch.from_numpy(np.sort(rows))
