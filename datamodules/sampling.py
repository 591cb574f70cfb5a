"""Every other random choice: derived seeds, subsets, and the order of the training batches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def derive_seed(seed: int, purpose: str, counter: int = 0) -> int:
    """A seed for one purpose, so that no two draws made from the same user's seed are correlated.

    Example:
        >>> derive_seed(0, "subset") != derive_seed(0, "shuffle") != derive_seed(0, "shuffle", 1)
        True
    """
    entropy = [seed, zlib.crc32(purpose.encode()), counter]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def count_of(share: float, n: int) -> int:
    """round(share n) with halves up, of the share as it is written: 0.29 of 50 rows is 14.5, in binary a little less.

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


class BatchIndexSampler(Sampler[Tensor]):
    """Yields one index tensor per batch: a dataset then answers with whole tensors, not sample by sample.

    With a seed the order is a pure function of (seed, epoch): Lightning calls `set_epoch` on the loader's
    sampler before every epoch, also after a resume. Without one it is 0..n-1. The last batch may be smaller.

    Args:
        n: number of rows.
        batch_size: rows in a batch.
        seed: of the shuffle, or None for the sequential order.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None = None) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator, so that the epoch is read at the first batch: after a resume Lightning 2.6 makes the
        # iterator before it calls set_epoch, and an order drawn at once would be epoch 0's again.
        if self.seed is None:
            order = torch.arange(self.n)
        else:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "shuffle", self.epoch))
            order = torch.randperm(self.n, generator=generator)
        yield from order.split(self.batch_size)
