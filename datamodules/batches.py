"""Loaders that give a whole batch for one index tensor, in the order of the rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kl.rows.batches import BatchIndexSampler, indexed_batches


class FeatureRows(Dataset):
    """Features without targets; an index tensor gives a whole batch, shape (m, d)."""

    def __init__(self, x: Tensor) -> None:
        self.x = x  # shape: (n, d)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.x[index]


def whole_batches(dataset: Any, batch_size: int) -> DataLoader:
    """A loader that indexes `dataset` with one index tensor per batch, in order."""
    return indexed_batches(dataset, BatchIndexSampler(len(dataset), batch_size))
