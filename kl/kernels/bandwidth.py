"""The bandwidth that `"auto"` stands for."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kl.errors import InputError


def median_distance(
    x: Tensor,  # shape: (n, d)
    sample: int = 1000,
    seed: int = 0,
    p: float = 2.0,
) -> float:
    """Median of |x_i - x_j|_p over all pairs i < j of a seeded subsample: the usual heuristic for a bandwidth.

    Args:
        x: features, shape (n, d).
        sample: rows drawn without replacement; all rows when n is smaller.
        seed: seed of the draw.
        p: the norm; 2 is the Euclidean distance, 1 the sum of the absolute differences.

    Returns:
        The median, in the units of the features; 1.0 when there is only one row, which has no distance.

    Raises:
        InputError: the median is 0 (most rows are equal), so it cannot serve as a bandwidth.

    Source: Gretton et al. 2012, A kernel two-sample test, section 8.

    Example:
        >>> import torch, kl
        >>> kl.median_distance(torch.tensor([[0.0], [1.0], [3.0]]))  # the distances are 1, 2 and 3
        2.0
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(x), generator=generator)[:sample].to(x.device)
    if len(chosen) < 2:
        return 1.0  # one row has no distance; any bandwidth gives the same function on it
    median = _median_of_pairs(x[chosen].double().cpu(), p)
    if median == 0:
        raise InputError(
            "bandwidth='auto' needs rows that differ; the median pairwise distance is 0: give bandwidth a number"
        )
    return median


def _median_of_pairs(
    x: Tensor,  # shape: (k, d)
    p: float,
) -> float:
    """The median of |x_i - x_j|_p over i < j; of an even number of pairs the lower of the two in the middle.

    Euclidean distances come from inner products, in half to a fifth of the time, unless the median is so far below the
    norms that rounding could leave fewer than 10 digits of it.
    """
    if p == 2:
        near = x - x.mean(dim=0)
        sq_norm = near.square().sum(dim=1)
        sq_dist = torch.addmm(sq_norm, near, near.T, alpha=-2).add_(sq_norm[:, None]).numpy()
        median = _lower_median(np.concatenate([row[i + 1 :] for i, row in enumerate(sq_dist)]))
        if median > 1e-5 * float(sq_norm.max()):
            return math.sqrt(median)
    return _lower_median(torch.pdist(x, p=p).numpy())


def _lower_median(values: np.ndarray) -> float:
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])
