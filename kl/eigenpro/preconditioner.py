"""The EigenPro preconditioner P, and what it does to the kernel's spectrum.

P damps the top q eigendirections of the kernel operator to about the level of the q-th. Training with P is training
with the kernel

    K_P(x, z) = K(x, z) - K(x, X_S) E diag(D) E^T K(X_S, z)

whose largest eigenvalue is so much smaller that large batches and large steps pay.

Sources: Ma, Belkin 2017, arXiv:1703.10622; Ma, Belkin 2019, arXiv:1806.06144.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.compiled.thin_products import IndexedRows
from kl.eigenpro.spectrum import Eigensystem
from kl.products.blocks import thin_matmul

BLOCK = 8  # vectors of the power iteration
DAMPING = (
    0.95  # the exponent a in the code of arXiv:1806.06144; below 1 it guards against errors of the Nystrom estimate
)


@dataclass(frozen=True)
class Preconditioner:
    """E and D of the correction E diag(D) E^T K(X_S, X_B) g; with q = 0 there is no correction: plain kernel SGD."""

    vectors: Tensor  # E = V_q / sqrt(s), shape: (s, q), stored column by column, as the products of a step read it
    weights: Tensor  # D, shape: (q,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", self.vectors.T.contiguous().T)

    @property
    def top_q(self) -> int:
        """The number of damped eigendirections, q."""
        return len(self.weights)

    def coefficients(
        self,
        block: Tensor | IndexedRows,  # K(X_B, X_S), shape: (m, s)
        residual: Tensor,  # g = f(X_B) - Y_B, shape: (m, c)
    ) -> Tensor:
        """diag(D) E^T K(X_S, X_B) g, shape (q, c); the step adds eta / m times E times this to alpha_S."""
        of_subsample = block.t_matmul(residual) if isinstance(block, IndexedRows) else thin_matmul(block.T, residual)
        return self.weights[:, None] * thin_matmul(self.vectors.T, of_subsample)

    def damped_diagonal(
        self,
        diagonal: Tensor,  # K(x_i, x_i), shape: (m,)
        block: Tensor,  # K(x, X_S), shape: (m, s)
    ) -> Tensor:
        """K_P(x_i, x_i), shape (m,)."""
        # Without this scale, squares of very small or large kernel values would leave the range of float32.
        unit = power_of_two(float(diagonal.max()))
        return diagonal - ((block @ (self.vectors / unit)).square_() @ (self.weights * unit)) * unit

    def largest_eigenvalue(
        self,
        matrix: Tensor,  # K(X_T, X_T), shape: (t, t)
        block: Tensor,  # K(X_T, X_S), shape: (t, s)
        iterations: int = 30,
        seed: int = 0,
    ) -> float:
        """lambda_1 of K_P(X_T, X_T)/t on a sample T, by block power iteration; inf if a value is not finite.

        If T shares no row with S, this estimate is independent of the estimate on S, which tends to be too small. P has
        flattened the top of the spectrum, so a single vector would converge slowly; the largest Ritz value of a block
        converges fast.

        Source: ours; Ma, Belkin 2019, arXiv:1806.06144 estimate lambda_1 on the subsample alone.
        """
        t = len(matrix)
        projected = block @ self.vectors  # shape: (t, q)
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(t, min(t, BLOCK), generator=generator).to(matrix)
        for _ in range(iterations):
            basis = torch.linalg.qr(basis)[0]
            image = matrix @ basis - projected @ (self.weights[:, None] * (projected.T @ basis))
            if not image.isfinite().all():
                return math.inf
            basis, before = image, basis
        ritz = (before.T @ image).double()
        return max(float(torch.linalg.eigvalsh((ritz + ritz.T) / 2)[-1]) / t, 0.0)


def damping_weights(
    eigenvalues: Tensor,  # shape: (s,)
    top_q: int,
    damping: float = DAMPING,
    shift: float = 0.0,
) -> Tensor:
    """D_i = (1 - ((lambda_q + r) / (lambda_i + r))^a) / lambda_i for i = 1..q, shape (q,).

    With a ridge, the residual of a step belongs to the kernel K + ridge I, whose eigenvalues over n are lambda_i + r
    with the shift r = ridge / n. These D_i damp the top q of them to about the level of the q-th.

    Source: Ma, Belkin 2019, arXiv:1806.06144, the EigenPro iteration, which has a = 1; a < 1 as in its published
    code; the ridge is ours.
    """
    top = eigenvalues[:top_q]
    return (1 - ((top[-1:] + shift) / (top + shift)) ** damping) / top


def power_of_two(value: float) -> float:
    """The power of two nearest to a positive finite value, 1 for other values; scaling by it is exact."""
    return 2.0 ** round(math.log2(value)) if 0 < value < math.inf else 1.0


def make_preconditioner(
    system: Eigensystem,
    top_q: int,
    dtype: torch.dtype = torch.float32,
    shift: float = 0.0,
    damping: float = DAMPING,
) -> Preconditioner:
    """The preconditioner that damps the top q directions of a Nystrom eigensystem; `shift` is ridge / n."""
    s = len(system.eigenvectors)
    vectors = system.eigenvectors[:, :top_q] / s**0.5
    return Preconditioner(vectors.to(dtype), damping_weights(system.eigenvalues, top_q, damping, shift).to(dtype))
