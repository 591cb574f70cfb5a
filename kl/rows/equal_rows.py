"""Rows that stand in the data more than once: they make the kernel matrix singular, so they share one equation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

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
    for i, key in enumerate(_digests(x, origin)):
        group[i] = groups.setdefault(key, len(groups))
        if group[i] == len(first):
            first.append(i)
    return torch.tensor(first, device=x.device), torch.from_numpy(group).to(x.device)


def matching_rows(
    x: Tensor,  # shape: (m, d)
    z: Tensor,  # shape: (p, d)
) -> Tensor:
    """For each row of x the index of the first row of z that is bitwise equal to it, -1 if none is, shape (m,)."""
    places: dict[bytes, int] = {}
    for j, key in enumerate(_digests(z)):
        places.setdefault(key, j)
    return torch.tensor([places.get(key, -1) for key in _digests(x)], dtype=torch.long, device=x.device)


def _digests(x: Tensor, origin: Tensor | None = None) -> Iterator[bytes]:
    """16 bytes of each row x - origin, the same for rows that are equal to the bit."""
    for span in spans(len(x), rows_at_a_time(x.shape[1])):
        part = x[span] if origin is None else x[span] - origin
        part = part.float() if x.dtype == torch.bfloat16 else part  # NumPy has no bfloat16
        # Adding 0 turns -0.0 into 0.0, which is equal but has other bytes.
        for row in np.ascontiguousarray((part + 0.0).cpu().numpy()):
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def mean_targets(
    group: Tensor,  # shape: (n,)
    y: Tensor,  # shape: (n, c)
    count: int,
    weights: Tensor | None = None,  # shape: (n,)
) -> tuple[Tensor, Tensor]:
    """The weight and the weighted mean target of each group; without weights the number of rows and the mean.

    Args:
        group: the group of each row, shape (n,).
        y: targets, shape (n, c).
        count: u, the number of groups.
        weights: of the rows, shape (n,), float64, with a sum above 0 in every group; None is 1 for every row.

    Returns:
        The weight of each group, shape (u, 1), and the mean targets, shape (u, c), both float64.
    """
    w = torch.ones(len(group), dtype=torch.float64, device=y.device) if weights is None else weights
    totals = torch.zeros(count, dtype=torch.float64, device=y.device).index_add_(0, group, w)
    parts = y.to(torch.float64, copy=True).mul_((w / totals[group])[:, None])
    means = torch.zeros(count, y.shape[1], dtype=torch.float64, device=y.device)
    return totals[:, None], means.index_add_(0, group, parts)
