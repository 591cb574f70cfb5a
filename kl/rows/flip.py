"""Rows that are seen as tensors of a shape, with some of its axes reversed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def flipped(
    x: Tensor,  # shape: (n, d)
    shape: Sequence[int],
    axes: Sequence[int],
) -> Tensor:
    """The rows with some axes reversed, where a row is seen as a tensor of a shape with d elements; (n, d), a copy."""
    return x.unflatten(1, tuple(shape)).flip([axis + 1 for axis in axes]).flatten(1)
