"""The validation part: a share of the training rows that no machine is trained on. Pure functions."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from torch import Tensor

from datamodules.sampling import count_of
from kl.errors import InputError


def check_share(name: str, value: float) -> float:
    """Return value as a float in [0, 1), else raise InputError naming the argument."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
        raise InputError(
            f"{name} must be a fraction of the training rows in [0, 1); got {value!r}: to hold out ten percent give 0.1"
        )
    return float(value)


def hold_out(
    n: int,
    share: float,
    seed: int,
    labels: Tensor | None = None,  # shape: (n,), long
    name: str = "validation",
) -> tuple[Tensor, Tensor]:
    """Which of the rows 0..n-1 are trained on and which are held out, both in order.

    round(share n) rows are held out, halves up. With labels, each class gives its proportion to within one row:
    the rows are shuffled, sorted by class, and taken at equal distances from a random start. A class keeps at least
    one row to train on, so fewer rows may be held out if classes are tiny.

    Args:
        n: number of rows.
        share: share of the rows to hold out, in (0, 1).
        seed: seed of the draw.
        labels: class indices to stratify by; None for regression.
        name: what messages call the share.

    Returns:
        The rows to train on and the rows held out; each row is in one of the two parts.

    Raises:
        InputError: one of the two parts would be empty.

    Example:
        >>> kept, held = hold_out(8, 0.25, seed=0, labels=torch.tensor([0, 1] * 4))
        >>> len(kept), (held % 2).sort().values
        (6, tensor([0, 1]))
    """
    count = count_of(share, n)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if labels is not None:
        classes = labels.numpy()
        order = order[np.argsort(classes[order], kind="stable")]
    held = np.zeros(n, dtype=bool)
    held[order[(np.arange(count) * n + rng.integers(n)) // max(count, 1)]] = True
    if labels is not None:
        for label in np.setdiff1d(classes, classes[~held]):
            held[np.flatnonzero(classes == label)[0]] = False
    if not held.any() or held.all():
        raise InputError(
            f"{name}={share:g} of {n} training rows holds out {'all' if held.all() else 'none'} of them: give "
            "another share, or more rows"
        )
    rows = torch.from_numpy(held)
    return (~rows).nonzero().flatten(), rows.nonzero().flatten()
