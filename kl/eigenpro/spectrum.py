"""Eigensystems of a subsample: what EigenPro knows about the kernel's spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows.rows import Rows
from kl.rows.workspace import spans


@dataclass(frozen=True)
class Eigensystem:
    """Eigenvalues of the kernel operator, largest first, and its eigenfunctions on s rows, in float64.

    e_i(x) = sum_j V_ji K(x, x_j) / sqrt(s lambda_i) is the i-th eigenfunction at unit RKHS norm.
    """

    eigenvalues: Tensor  # shape: (r,), lambda_1 >= lambda_2 >= ...
    eigenvectors: Tensor  # V, shape: (s, r), column i belongs to eigenvalues[i]


def nystrom_eigensystem(
    kernel: Kernel,
    subsample: Rows,  # s rows
) -> Eigensystem:
    """Eigensystem K(X_S, X_S)/s = V diag(lambda) V^T of a subsample of the data; r = s.

    lambda_i estimates the i-th eigenvalue of K(X, X)/n.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        subsample: the s subsample rows.

    Source: Ma, Belkin 2017, arXiv:1703.10622 and Ma, Belkin 2019, arXiv:1806.06144, the Nystrom extension; decomposed
    in float64.
    """
    matrix = symmetric_kernel_matrix(kernel, subsample.double()).div_(len(subsample))
    values, vectors = torch.linalg.eigh(matrix)
    return Eigensystem(values.flip(0).clamp_(min=0), vectors.flip(1))


def projected_eigensystem(
    kernel: Kernel,
    subsample: Rows,  # s rows, of any kind
    data: Rows,  # t rows
    chunk: int = 4096,
) -> Eigensystem:
    """Eigensystem of the data's covariance operator (1/t) sum_i K(., x_i) K(., x_i)^T, restricted to span{K(., z_j)}.

    The subsample z_1..z_s need not be data rows: cluster means and repeated centres give no worse directions. With
    A = K(Z_S, Z_S) and B = K(Z_S, X_T) K(X_T, Z_S) / t the eigenfunctions e_i = sum_j C_ji K(., z_j) of unit norm solve
    B C = A C diag(lambda), C^T A C = I; V = C sqrt(s lambda). If the subsample is the data, the result is that of
    `nystrom_eigensystem`. Directions of A within its rounding error are left out, so r <= s.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        subsample: z_1..z_s.
        data: x_1..x_t.
        chunk: rows of the data taken at a time.

    Source: ours; the Rayleigh-Ritz method for the operator that Abedsoltan, Belkin, Pandit 2023,
    arXiv:2302.02605, estimate on a subsample of the data.
    """
    s, t = len(subsample), len(data)
    first = subsample.double()
    values, vectors = torch.linalg.eigh(symmetric_kernel_matrix(kernel, first))
    keep = values > s * torch.finfo(torch.float64).eps * values[-1]
    whiten = vectors[:, keep] / values[keep].sqrt()
    covariance = whiten.new_zeros(s, s)
    for rows in spans(t, chunk):
        block = kernel_matrix(kernel, data[rows], subsample).double()
        covariance += block.T @ block
    values, vectors = torch.linalg.eigh(whiten.T @ covariance.div_(t) @ whiten)
    values = values.flip(0).clamp_(min=0)
    return Eigensystem(values, whiten @ vectors.flip(1) * (s * values).sqrt())
