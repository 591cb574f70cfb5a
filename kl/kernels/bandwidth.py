"""The bandwidth that `"auto"` stands for."""

from __future__ import annotations

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
    median = float(torch.pdist(x[chosen].double(), p=p).median())
    if median == 0:
        raise InputError(
            "bandwidth='auto' needs rows that differ; the median pairwise distance is 0: give bandwidth a number"
        )
    return median
