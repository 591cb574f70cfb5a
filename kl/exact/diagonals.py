"""The diagonal of the inverse from a factor, which leave-one-out predictions are made of, and how accurate it is."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from kl.exact.cost import CHECKED
from kl.exact.equations import Diagonals, System
from kl.products.inverse import InverseTriangle
from kl.products.triangle import LowerTriangle

log = logging.getLogger(__name__)

ACCURATE = 1e-3  # relative error of an entry, which is the relative error of a leave-one-out residual


def diagonals_of_factor(
    system: System, factor: LowerTriangle, progress: Callable[[float], None] = lambda done: None
) -> Diagonals | None:
    """The diagonals of a system whose factor is given up for them; None if the factor is not accurate enough.

    Args:
        system: the equations.
        factor: the Cholesky factor of its matrix; it cannot be used afterwards.
        progress: called with the share of the work that is done.
    """
    found = checked_diagonal(InverseTriangle(factor, progress), system.matmul)
    return None if found is None else Diagonals(found)


def checked_diagonal(
    inverse: InverseTriangle,
    product: Callable[[Tensor], Tensor],
    seed: int = 0,
) -> Tensor | None:
    """The diagonal of G^{-1}, shape (u,), float64, or None if it is not accurate to 1e-3.

    16 entries are computed again, half of them the largest and half at random. With z = G^{-1} e_i, as accurate as the
    inverse is, and r = e_i - G z in float64,

        (G^{-1})_ii = 2 z_i - z^T G z + r^T G^{-1} r

    whose last term is quadratic in the error and left out. It is at least 0, so what is left is a lower bound.

    Args:
        inverse: G^{-1} from a factor.
        product: maps v, shape (u, c), to G v in float64.
        seed: of the entries that are drawn.

    Source: the formula follows from expanding (z + G^{-1} r)^T G (z + G^{-1} r).
    """
    found, u = inverse.diagonal(), len(inverse)
    if not bool(found.isfinite().all()):
        return None
    drawn = torch.randperm(u, generator=torch.Generator().manual_seed(seed)).to(found.device)
    largest = found.topk(min(u, CHECKED // 2)).indices
    rows = torch.cat([largest, drawn[: CHECKED // 2]])
    columns = torch.arange(len(rows), device=found.device)
    unit = found.new_zeros(u, len(rows))
    unit[rows, columns] = 1.0
    z = inverse.matmul(unit)
    del unit
    again = 2 * z[rows, columns] - (z * product(z)).sum(dim=0)
    error = float(((found[rows] - again).abs() / found[rows]).max())
    log.info("the diagonal of the inverse is accurate to %.1e on %d entries", error, len(rows))
    return found if error <= ACCURATE else None  # NaN is not accurate either
