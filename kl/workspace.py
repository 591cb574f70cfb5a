"""Memory for tiles, used again and again."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Memory for one tile, used again for the next: fresh pages for every tile would cost more than its arithmetic.

    A GPU's allocator does that by itself; there every tile is new.
    """

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, Tensor] = {}

    def take(self, m: int, p: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """An uninitialised (m, p) tensor on the device of `like`; the one taken before it with this dtype is void."""
        if like.device.type != "cpu":
            return like.new_empty(m, p, dtype=dtype)
        buffer = self._buffers.get(dtype)
        if buffer is None or len(buffer) < m * p:
            buffer = self._buffers[dtype] = like.new_empty(m * p, dtype=dtype)
        return buffer[: m * p].view(m, p)
