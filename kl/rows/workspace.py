"""Passes over rows in pieces, and memory that is used again for every tile."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ROWS = 2048  # rows that a pass converts to float64 together, at most
CHUNK_VALUES = 2**21  # values of these rows, at most: 16 MB in float64
CONVERTED_VALUES = 2**23  # values of the rows of a converted tile, at most: 64 MB in float64


def rows_at_a_time(d: int) -> int:
    """Rows of d features that a pass converts to float64 together: 2048, or fewer if the rows are long."""
    return max(1, min(CHUNK_ROWS, CHUNK_VALUES // max(d, 1)))


def converted_rows(d: int, most: int) -> int:
    """Rows of d features on a side of a tile that is computed in another dtype: `most`, or fewer if rows are long."""
    return max(1, min(most, CONVERTED_VALUES // max(d, 1)))


def spans(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover 0..n-1."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def take_rows(x: Tensor, index: slice | Tensor) -> Tensor:
    """x[index]; row numbers, of 0 or more, are gathered twice as fast as by x[index] on a CPU."""
    if isinstance(index, Tensor) and index.ndim == 1 and index.dtype in (torch.int32, torch.int64):
        return x.index_select(0, index.to(x.device))
    return x[index]


class Workspace:
    """Memory for one tile, used again for the next, because fresh pages for every tile cost more than its arithmetic.

    On a GPU every tile is a new tensor, because the GPU's allocator itself uses memory again.
    """

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, Tensor] = {}

    def take(self, m: int, p: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """An uninitialised (m, p) tensor on the device of `like`; overwrites the last one taken in this dtype."""
        if like.device.type != "cpu":
            return like.new_empty(m, p, dtype=dtype)
        buffer = self._buffers.get(dtype)
        if buffer is None or len(buffer) < m * p:
            buffer = self._buffers[dtype] = like.new_empty(m * p, dtype=dtype)
        return buffer[: m * p].view(m, p)
