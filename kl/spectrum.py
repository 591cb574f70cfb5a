"""The Nystrom eigensystem: what EigenPro knows about the kernel's spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.engine import symmetric_kernel_matrix
from kl.kernels.base import Kernel
from kl.rows import Rows


@dataclass(frozen=True)
class Eigensystem:
    """Eigenpairs of K(X_S, X_S)/s = V diag(lambda) V^T, largest first, in float64."""

    eigenvalues: Tensor  # shape: (s,), lambda_1 >= lambda_2 >= ...
    eigenvectors: Tensor  # shape: (s, s), column i belongs to eigenvalues[i]


def nystrom_eigensystem(
    kernel: Kernel,
    subsample: Rows,  # s rows
) -> Eigensystem:
    """Eigensystem of the normalised kernel matrix of a subsample.

    lambda_i estimates the i-th eigenvalue of K(X, X)/n, and e_i(x) = sum_j V_ji K(x, x_j) / sqrt(s lambda_i) the i-th
    eigenfunction at unit RKHS norm.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        subsample: the s subsample rows.

    Source: [MB17] and [MB19], the Nystrom extension; decomposed in float64.
    """
    matrix = symmetric_kernel_matrix(kernel, subsample.double()).div_(len(subsample))
    values, vectors = torch.linalg.eigh(matrix)
    return Eigensystem(values.flip(0).clamp_(min=0), vectors.flip(1))
