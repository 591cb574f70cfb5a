"""Rows that stand in the data more than once: they make the kernel matrix singular, so they share one equation."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from kl.rows.workspace import rows_at_a_time, spans


def equal_rows(
    x: Tensor,  # shape: (n, d)
    origin: Tensor | None = None,  # shape: (d,)
) -> tuple[Tensor, Tensor]:
    """Groups of bitwise equal rows x - origin.

    Args:
        x: rows, shape (n, d).
        origin: shape (d,); None is 0.

    Returns:
        The index of the first row of every group, shape (u,), and the group of each row, shape (n,).
    """
    groups: dict[bytes, int] = {}
    first: list[int] = []
    group = np.empty(len(x), dtype=np.int64)
    for span in spans(len(x), rows_at_a_time(x.shape[1])):
        part = x[span] if origin is None else x[span] - origin
        part = part.float() if x.dtype == torch.bfloat16 else part  # NumPy has no bfloat16
        # Adding 0 turns -0.0 into 0.0, which is equal but has other bytes.
        for i, row in enumerate(np.ascontiguousarray((part + 0.0).cpu().numpy()), start=span.start):
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            group[i] = groups.setdefault(key, len(groups))
            if group[i] == len(first):
                first.append(i)
    return torch.tensor(first, device=x.device), torch.from_numpy(group).to(x.device)


def mean_targets(
    group: Tensor,  # shape: (n,)
    y: Tensor,  # shape: (n, c)
    count: int,
) -> tuple[Tensor, Tensor]:
    """The number of rows and the mean target of each group.

    Args:
        group: the group of each row, shape (n,).
        y: targets, shape (n, c).
        count: u, the number of groups.

    Returns:
        The rows of each group, shape (u, 1), and the means of their targets, shape (u, c), both float64.
    """
    counts = torch.bincount(group, minlength=count).double()[:, None]
    sums = torch.zeros(count, y.shape[1], dtype=torch.float64, device=y.device)
    return counts, sums.index_add_(0, group, y.double()) / counts
