"""Parts of a step of EigenPro 2 by compiled code, to the bit as with tensors, but for the sum of the squared residuals.

The C++ is in eigenpro_step.cpp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kl.compiled.thin_products import MOST_OUTPUTS, IndexedRows


def values_at(
    block: IndexedRows,  # K(X_B, X_S), rows of K(X, X_S), shape: (m, s)
    values: Tensor,  # f(X) without the pending part, shape: (n, c)
    pending: Tensor,  # shape: (s, c)
) -> Tensor | None:
    """f(X_B) = values[B] + K(X_B, X_S) pending, float64, shape (m, c); None leaves it to torch."""
    (n, c), s = values.shape, block.matrix.shape[1]
    if not _are_doubles(values.T, pending.T) or n != len(block.matrix) or pending.shape != (s, c):
        return None
    if block.index is None or c > MOST_OUTPUTS:
        return None
    out = values.new_empty(c, len(block))
    threads = torch.get_num_threads()
    block.code.eigenpro_values(*block.address(), c, threads, values.data_ptr(), n, pending.data_ptr(), out.data_ptr())
    return out.T


def residual_at(
    block: IndexedRows,  # K(X_B, X_S), rows of K(X, X_S), shape: (m, s)
    found: Tensor,  # f(X_B), shape: (m, c)
    targets: Tensor,  # Y, shape: (n, c)
    alpha: Tensor,  # shape: (n, c)
    ridge: float,
) -> tuple[Tensor, float] | None:
    """g = f(X_B) + ridge alpha_B - Y_B, float32, shape (m, c), and the sum of its squares; None leaves it to torch."""
    (m, c), n = found.shape, len(block.matrix)
    if not _are_doubles(found.T, alpha) or targets.dtype != torch.float32 or not targets.is_contiguous():
        return None
    if block.index is None or m != len(block) or not alpha.shape == targets.shape == (n, c):
        return None
    residual = targets.new_empty(m, c)
    errors = block.code.eigenpro_residual(
        *(block.index.data_ptr(), m, c, found.data_ptr(), targets.data_ptr(), alpha.data_ptr(), ridge),
        residual.data_ptr(),
    )
    return residual, errors


def update_weights(
    block: IndexedRows,  # K(X_B, X_S), rows of K(X, X_S), shape: (m, s)
    vectors: Tensor,  # E, stored column by column, shape: (s, q)
    damping: Tensor,  # D, shape: (q,)
    residual: Tensor,  # g, shape: (m, c)
    scale: float,  # eta / m
    alpha: Tensor,  # shape: (n, c)
) -> tuple[Tensor, Tensor] | None:
    """w_B = -scale g, float32, shape (m, c), and w_S = scale E diag(D) E^T K(X_S, X_B) g, float64, shape (s, c).

    Both are added to alpha. None leaves it to torch.
    """
    (n, c), (s, q) = alpha.shape, vectors.shape
    if not _are_doubles(alpha) or (n, s, q) != (*block.matrix.shape, len(damping)) or residual.shape != (len(block), c):
        return None
    floats = vectors.dtype == damping.dtype == block.dtype and vectors.T.is_contiguous() and damping.is_contiguous()
    if block.index is None or c > MOST_OUTPUTS or not floats:
        return None
    residual = residual.to(block.dtype).contiguous()
    on_batch, on_subsample = torch.empty_like(residual), alpha.new_empty(c, s)
    block.code.eigenpro_update(
        *(*block.address(), c, torch.get_num_threads(), vectors.data_ptr(), damping.data_ptr(), q),
        *(residual.data_ptr(), scale, alpha.data_ptr(), on_batch.data_ptr(), on_subsample.data_ptr()),
    )
    return on_batch, on_subsample.T


def _are_doubles(*values: Tensor) -> bool:
    return all(one.dtype == torch.float64 and one.is_contiguous() for one in values)
