"""Norms, inner products and distances of kernel expansions f = sum_i alpha_i K(., x_i), from their definition.

For several outputs the RKHS is the direct sum of c copies: <f, g> = sum_k <f_k, g_k> = trace(alpha^T K(X, Z) gamma).
All sums are taken in float64, because large weights of both signs cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matmul
from kl.rows.dense import require_dense
from kl.rows.equal_rows import matching_rows
from kl.rows.rows import Rows, check_finite_matrix
from kl.rows.workspace import spans


def evaluate(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
    z: Tensor,  # shape: (m, d)
    chunk: int = 4096,
) -> Tensor:
    """f(Z) = K(Z, X) alpha, shape (m, c), float64.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres, shape (n, d).
        alpha: weights, shape (n, c).
        z: the points of evaluation, shape (m, d).
        chunk: rows of z that are converted to float64 at a time.

    Returns:
        Tensor of shape (m, c), float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes do not fit together.
    """
    require_dense("z", z)
    require_dense("alpha", alpha)
    _check_expansions(x, alpha, z, alpha.new_zeros(len(z), alpha.shape[1]))
    single = Rows.of(x)
    # Rounding would leave a distance between equal rows, whose root is far larger than rounding.
    centers, same = single.double(), matching_rows(z, x)
    parts = [
        kernel_matmul(kernel, Rows.of(z[rows], like=single).double(), centers, alpha, same[rows])
        for rows in spans(len(z), chunk)
    ]
    return torch.cat(parts)


def inner_product_per_class(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
    z: Tensor,  # shape: (p, d)
    gamma: Tensor,  # shape: (p, c)
) -> Tensor:
    """<f_k, g_k>_H = alpha_k^T K(X, Z) gamma_k for every output k.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres of f, shape (n, d).
        alpha: weights of f, shape (n, c).
        z: centres of g, shape (p, d), in the dtype of x.
        gamma: weights of g, shape (p, c).

    Returns:
        Tensor of shape (c,), float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes or dtypes do not fit together.
    """
    _check_expansions(x, alpha, z, gamma)
    return (alpha.double() * evaluate(kernel, z, gamma, x)).sum(dim=0)


def _same_rows(x: Tensor, z: Tensor) -> bool:
    """Whether two matrices hold the same rows in the same order."""
    return x is z or (x.shape == z.shape and torch.equal(x, z))


def _check_expansions(x: Tensor, alpha: Tensor, z: Tensor, gamma: Tensor) -> None:
    for name, weights, rows_name, rows in (("alpha", alpha, "x", x), ("gamma", gamma, "z", z)):
        check_finite_matrix(rows_name, rows)
        check_finite_matrix(name, weights)
        if len(weights) != len(rows):
            raise InputError(f"{name} must have one row per row of {rows_name}; got {len(weights)} and {len(rows)}")
    if x.dtype != z.dtype:
        raise InputError(f"x and z must share a dtype; got {x.dtype} and {z.dtype}")
    if x.shape[1] != z.shape[1] or alpha.shape[1] != gamma.shape[1]:
        raise InputError(
            f"f and g must share features and outputs; got {x.shape[1]} and {z.shape[1]} features, "
            f"{alpha.shape[1]} and {gamma.shape[1]} outputs"
        )


def inner_product(kernel: Kernel, x: Tensor, alpha: Tensor, z: Tensor, gamma: Tensor) -> float:
    """<f, g>_H = trace(alpha^T K(X, Z) gamma), summed over the outputs, for f = K(., X) alpha and g = K(., Z) gamma.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres of f, shape (n, d).
        alpha: weights of f, shape (n, c).
        z: centres of g, shape (p, d), in the dtype of x.
        gamma: weights of g, shape (p, c).

    Returns:
        The inner product, computed in float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes or dtypes do not fit together.

    Example:
        >>> import torch, kl
        >>> x, z, one = torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0]])
        >>> round(kl.inner_product(kl.Laplacian(1.0), x, one, z, one), 4)  # K(0, 2) = exp(-2)
        0.1353
    """
    return float(inner_product_per_class(kernel, x, alpha, z, gamma).sum())


def rkhs_norm_per_class(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
) -> Tensor:
    """|f_k|_H = sqrt(alpha_k^T K(X, X) alpha_k) for every output k of f = K(., X) alpha.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres, shape (n, d).
        alpha: weights, shape (n, c).

    Returns:
        Tensor of shape (c,), float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes do not fit together.

    Example:
        >>> import torch, kl
        >>> x, alpha = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> kl.rkhs_norm_per_class(kl.Gaussian(1.0), x, alpha).tolist()  # of K(., 0) and of 2 K(., 3)
        [1.0, 2.0]
    """
    return inner_product_per_class(kernel, x, alpha, x, alpha).clamp_(min=0).sqrt_()


def rkhs_norm(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
) -> float:
    """|f|_H = sqrt(trace(alpha^T K(X, X) alpha)), all outputs together, of f = K(., X) alpha.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres, shape (n, d).
        alpha: weights, shape (n, c).

    Returns:
        The norm (not its square), computed in float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes do not fit together.

    Example:
        >>> import torch, kl
        >>> x, alpha = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [0.0]])
        >>> kl.rkhs_norm(kl.Gaussian(1.0), x, alpha)  # f = K(., 0), and |K(., 0)|^2 = K(0, 0) = 1
        1.0
    """
    return max(inner_product(kernel, x, alpha, x, alpha), 0.0) ** 0.5


def rkhs_distance(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
    z: Tensor,  # shape: (p, d)
    gamma: Tensor,  # shape: (p, c)
) -> float:
    """|f - g|_H = sqrt(|f|^2 - 2 <f, g> + |g|^2) for f = K(., X) alpha and g = K(., Z) gamma.

    When X and Z are the same rows, the distance is the norm of K(., X) (alpha - gamma), because the difference of the
    weights does not cancel as the three terms do.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: centres of f, shape (n, d).
        alpha: weights of f, shape (n, c).
        z: centres of g, shape (p, d), in the dtype of x.
        gamma: weights of g, shape (p, c).

    Returns:
        The distance (not its square), computed in float64.

    Raises:
        InputError: a matrix is empty or not finite, or the shapes or dtypes do not fit together.

    Example:
        >>> import torch, kl
        >>> x, z, one = torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0]])
        >>> round(kl.rkhs_distance(kl.Laplacian(1.0), x, one, z, one), 4)  # sqrt(1 - 2 exp(-2) + 1)
        1.315
    """
    _check_expansions(x, alpha, z, gamma)
    if _same_rows(x, z):
        return rkhs_norm(kernel, x, alpha.double() - gamma.double())
    squares = inner_product(kernel, x, alpha, x, alpha) + inner_product(kernel, z, gamma, z, gamma)
    return max(squares - 2 * inner_product(kernel, x, alpha, z, gamma), 0.0) ** 0.5
