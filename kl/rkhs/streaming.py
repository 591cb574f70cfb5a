"""The RKHS norm after an update, from numbers that the update has computed anyway."""

from __future__ import annotations

from torch import Tensor


def norm_increment(
    weights: Tensor,  # w, shape: (j, c)
    values: Tensor,  # f(X_J) before the update, shape: (j, c)
    change: Tensor,  # delta(X_J) = K(X_J, X_J) w, shape: (j, c)
) -> Tensor:
    """|f + delta|^2 - |f|^2 = 2 <w, f(X_J)> + <w, K_JJ w> for every output, shape (c,), float64.

    The update delta = sum_{j in J} w_j K(., x_j) is supported on a few rows J. A row may stand in J more than once.

    Source: ours, from the reproducing property <K(., x), f> = f(x).
    """
    return (weights.double() * (2 * values.double() + change.double())).sum(dim=0)
