"""Rows under a metric: x M^(1/2), between which the Euclidean distance is that of M between the rows x."""

from __future__ import annotations

import torch
from torch import Tensor

from kl.errors import CheckpointError


def under_root(
    x: Tensor,  # shape: (m, d)
    root: Tensor | None,  # float64, shape: (d,) or (d, d)
) -> Tensor:
    """x M^(1/2), shape (m, d), in the dtype of x; x itself where there is no root.

    The product is taken in float64, so that a row comes out alike in every batch up to one rounding.

    Args:
        x: rows.
        root: M^(1/2), or of a diagonal M the diagonal's square root.

    >>> import torch
    >>> under_root(torch.ones(1, 2), torch.tensor([2.0, 0.5], dtype=torch.float64)).tolist()
    [[2.0, 0.5]]
    """
    if root is None:
        return x
    rows = x.double()
    return (rows * root if root.ndim == 1 else rows @ root).to(x.dtype)


def diagonal_of(
    root: Tensor,  # symmetric, shape: (d, d), or shape: (d,)
) -> Tensor:
    """The diagonal of M from M^(1/2), shape (d,), without M."""
    return root.square() if root.ndim == 1 else root.square().sum(dim=1)


def require_root(root: Tensor, d: int) -> None:
    """Check the root of a metric that a file holds.

    Raises:
        CheckpointError: it is not float64, its shape is neither (d,) nor (d, d), or it holds numbers that are not
            finite, or, on a diagonal, negative ones.
    """
    if tuple(root.shape) not in ((d,), (d, d)):
        raise CheckpointError(f"its root of a metric must be of {d} features; got shape {tuple(root.shape)}")
    if not bool(root.isfinite().all()) or (root.ndim == 1 and bool((root < 0).any())):
        raise CheckpointError("its root of a metric must hold finite numbers, and on a diagonal none below 0")
    if root.dtype != torch.float64:
        raise CheckpointError(f"its root of a metric must be float64; got {root.dtype}")
