"""Naive float64 versions of everything, with Python loops, sharing no code with the library."""

import math

import numpy as np


def inner(x, z):
    return math.fsum(float(a) * float(b) for a, b in zip(x, z, strict=True))


def distance(x, z):
    return math.sqrt(math.fsum((float(a) - float(b)) ** 2 for a, b in zip(x, z, strict=True)))


def gaussian(x, z, bandwidth):
    return math.exp(-(distance(x, z) ** 2) / (2 * bandwidth**2))


def laplacian(x, z, bandwidth):
    return math.exp(-distance(x, z) / bandwidth)


def exponential_power(x, z, bandwidth, power):
    return math.exp(-((distance(x, z) / bandwidth) ** power))


def matern32(x, z, bandwidth):
    t = math.sqrt(3) * distance(x, z) / bandwidth
    return (1 + t) * math.exp(-t)


def matern52(x, z, bandwidth):
    t = math.sqrt(5) * distance(x, z) / bandwidth
    return (1 + t + t**2 / 3) * math.exp(-t)


def inverse_multiquadric(x, z, bandwidth):
    return 1 / math.sqrt(1 + (distance(x, z) / bandwidth) ** 2)


def lpq_laplacian(x, z, bandwidth, p, q):
    distance = math.fsum(abs(float(a) - float(b)) ** p for a, b in zip(x, z, strict=True)) ** (1 / p)
    return math.exp(-((distance / bandwidth) ** q))


def polynomial(x, z, degree, bias, scale):
    return (scale * inner(x, z) + bias) ** degree


def relu_recursion(x, z, depth, bias):
    """(S_depth, N_depth) of DESIGN section 2, where 0/0 is 0."""
    same = all(float(a) == float(b) for a, b in zip(x, z, strict=True))
    norms = inner(x, x) if same else math.sqrt(inner(x, x)) * math.sqrt(inner(z, z))
    s = inner(x, z)
    n = s + bias**2
    for _ in range(depth - 1):
        cosine = min(1.0, max(-1.0, s / norms)) if norms > 0 else 0.0
        k0 = 1 - math.acos(cosine) / math.pi
        k1 = cosine * k0 + math.sqrt(1 - cosine**2) / math.pi
        s = norms * k1
        n = n * k0 + s + bias**2
    return s, n


def relu_ntk(x, z, depth, bias):
    return relu_recursion(x, z, depth, bias)[1]


def relu_nngp(x, z, depth, bias):
    return relu_recursion(x, z, depth, bias)[0]


def matrix(function, X, Z, **parameters):
    """function(x_i, z_j) for all pairs; X of shape (m, d), Z of shape (p, d)."""
    return np.array([[function(x, z, **parameters) for z in Z] for x in X], dtype=np.float64)


def naive_median_distance(X):
    return float(np.median([distance(X[i], X[j]) for i in range(len(X)) for j in range(i)]))


def naive_rkhs_inner(K, alpha, gamma):
    """<f, g>_H summed over outputs, f = sum_i alpha_i K(., x_i), g = sum_i gamma_i K(., x_i)."""
    n, c = alpha.shape
    return math.fsum(
        float(alpha[i, k]) * float(K[i, j]) * float(gamma[j, k]) for i in range(n) for j in range(n) for k in range(c)
    )


def naive_rkhs_norm(K, alpha):
    return math.sqrt(max(0.0, naive_rkhs_inner(K, alpha, alpha)))


def naive_interpolate(K, Y, ridge=0.0):
    """alpha with (K + ridge I) alpha = Y."""
    return np.linalg.solve(np.asarray(K, np.float64) + ridge * np.eye(len(K)), np.asarray(Y, np.float64))


def naive_eigensystem(K_SS, q):
    """(lambda_1..lambda_{q+1} of K_SS / s, E = V / sqrt(s) for the top q) of DESIGN section 4."""
    s = len(K_SS)
    values, vectors = np.linalg.eigh(np.asarray(K_SS, np.float64) / s)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values[: q + 1], vectors[:, :q] / math.sqrt(s)


def naive_damping(values, q, power=0.95):
    """D_i = (1 - (lambda_q / lambda_i)^power) / lambda_i for i = 1..q."""
    return np.array([(1 - (values[q - 1] / values[i]) ** power) / values[i] for i in range(q)])


def naive_eigenpro_step(K, alpha, Y, batch, subsample, q, eta, power=0.95):
    """alpha after one EigenPro 2 step (Ma, Belkin 2019, arXiv:1806.06144) with the whole matrix K of shape (n, n).

    batch and subsample are lists of distinct row numbers; q = 0 is plain SGD on the square loss.
    """
    alpha = np.array(alpha, dtype=np.float64)
    g = K[batch] @ alpha - Y[batch]
    new = alpha.copy()
    for row, i in enumerate(batch):
        new[i] -= eta / len(batch) * g[row]
    if q > 0:
        values, E = naive_eigensystem(K[np.ix_(subsample, subsample)], q)
        D = np.diag(naive_damping(values, q, power))
        correction = E @ D @ E.T @ K[np.ix_(subsample, batch)] @ g
        for row, i in enumerate(subsample):
            new[i] += eta / len(batch) * correction[row]
    return new


def naive_preconditioned_kernel(K, subsample, q, power=0.95):
    """K_P = K - K(X, X_S) E D E^T K(X_S, X): the kernel whose SGD is EigenPro's; for step sizes and m*."""
    if q == 0:
        return np.array(K, dtype=np.float64)
    values, E = naive_eigensystem(K[np.ix_(subsample, subsample)], q)
    D = np.diag(naive_damping(values, q, power))
    return K - K[:, subsample] @ E @ D @ E.T @ K[subsample, :]


def naive_critical_batch(K_P):
    """m* = beta / lambda_1 + 1 of the kernel matrix K_P over n points."""
    beta = max(float(K_P[i, i]) for i in range(len(K_P)))
    return beta / float(np.linalg.eigvalsh(K_P)[-1] / len(K_P)) + 1


def naive_step_size(K_P, m):
    """eta of DESIGN section 4, without a safety factor."""
    beta = max(float(K_P[i, i]) for i in range(len(K_P)))
    top = float(np.linalg.eigvalsh(K_P)[-1] / len(K_P))
    return m / beta if m < naive_critical_batch(K_P) else 2 * m / (beta + (m - 1) * top)
