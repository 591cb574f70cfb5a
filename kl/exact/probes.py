"""The diagonal of the inverse estimated by random probes, for systems too large for a factor."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kl.exact.cost import PROBES
from kl.exact.equations import Diagonals, System
from kl.products.low_rank import LowRankPreconditioner

SHARE = 0.1  # of the targets' norm that all probes have together, so that they do not loosen the targets' tolerance


class Probes:
    """Columns z_1..z_p of random signs beside the targets, whose solutions G^{-1} z_s estimate the diagonal of G^{-1}.

    With the preconditioner M, whose inverse has a known diagonal, each probe gives

        (M^{-1})_ii + z_i ((G^{-1} - M^{-1}) z)_i

    whose mean over signs is (G^{-1})_ii and whose variance is the sum of squares of row i of G^{-1} - M^{-1} off the
    diagonal. On 3000 rows of MNIST that is 0.7 to 0.95 of the variance without M.

    Args:
        system: the equations.
        seed: of the signs.

    Source: Bekas, Kokiopoulou, Saad 2007, An estimator for the diagonal of a matrix; M as a control variate is ours.
    """

    def __init__(self, system: System, seed: int = 0) -> None:
        u, c = system.y.shape
        signs = torch.randint(0, 2, (u, PROBES), generator=torch.Generator().manual_seed(seed))
        self._z = (2 * signs - 1).to(system.y)
        self._outputs, size = c, float(system.y.norm())
        self._scale = SHARE * (size if size > 0 else 1.0) / float(self._z.norm())

    def beside(self, system: System) -> System:
        """The system with the scaled probes as further outputs."""
        return replace(system, y=torch.cat([system.y, self._scale * self._z], dim=1))

    def tolerance(self, tolerance: float) -> float:
        """The relative residual of targets and probes together at which the targets' is within the tolerance."""
        return tolerance / (1 + SHARE**2) ** 0.5

    def diagonals(
        self,
        system: System,
        alpha: Tensor,  # of targets and probes, shape: (u, c + p)
        preconditioner: LowRankPreconditioner,
    ) -> Diagonals:
        """The estimates, one of each probe.

        Args:
            system: the equations, without the probes.
            alpha: the solution of the system with the probes beside it, shape (u, c + p).
            preconditioner: M.
        """
        difference = alpha[:, self._outputs :] / self._scale - preconditioner.solve(self._z)
        samples = difference.mul_(self._z).add_(preconditioner.inverse_diagonal()[:, None])
        least = 1 / (system.kernel.block_diag(system.rows) + system.ridge)
        return Diagonals(samples.mean(dim=1), samples=samples, least=least)
