"""One kernel of each formula, composites and a user's own, for tests that ask the same of all."""

from user_kernels import Cauchy

from kl import (
    ExponentialPower,
    Gaussian,
    InverseMultiquadric,
    Laplacian,
    LpqLaplacian,
    Matern32,
    Matern52,
    Polynomial,
    ReluNNGP,
    ReluNTK,
)

KERNELS = [
    Gaussian(3.0),
    Laplacian(3.0),
    ExponentialPower(3.0, 0.7),
    Matern32(3.0),
    Matern52(3.0),
    InverseMultiquadric(3.0),
    LpqLaplacian(10.0),
    LpqLaplacian(5.0, 1.5, 0.8),
    Polynomial(2, 1.0, 0.2),
    ReluNTK(3, 0.5),
    ReluNNGP(3),
    2.0 * Gaussian(2.0) + Laplacian(4.0) * ReluNTK(2),
    Cauchy(2.0),
]
