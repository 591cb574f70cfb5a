"""The order of the training batches, and the seeds of all random draws."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler


def derive_seed(seed: int, purpose: str, counter: int = 0) -> int:
    """A seed for one purpose, so that no two draws from the same user's seed are correlated.

    Args:
        seed: the user's seed.
        purpose: a word for what is drawn, such as "shuffle".
        counter: the number of the draw, such as the epoch.

    Example:
        >>> derive_seed(0, "subset") != derive_seed(0, "shuffle") != derive_seed(0, "shuffle", 1)
        True
    """
    entropy = [seed, zlib.crc32(purpose.encode()), counter]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


class BatchIndexSampler(Sampler[Tensor]):
    """Yields one index tensor per batch, so that a dataset answers with whole tensors instead of sample by sample.

    With a seed the order is a function of (seed, epoch) alone: Lightning calls `set_epoch` on the loader's sampler
    before every epoch, also after a resume. Without a seed the order is 0..n-1. The last batch may be smaller.

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


def indexed_batches(dataset: Any, sampler: BatchIndexSampler) -> DataLoader:
    """A loader that asks `dataset` for whole batches by one index tensor each, and does not collate them."""
    return DataLoader(dataset, sampler=sampler, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
