"""Kernels: a formula and a small class each, their sums, products and multiples, and making them by name."""

# First, because kernels are listed in the order in which their classes are defined.
from kl.kernels.radial import (
    Bandwidth,
    ExponentialPower,
    Gaussian,
    InverseMultiquadric,
    Laplacian,
    Matern32,
    Matern52,
    RadialKernel,
)

# isort: split
from kl.kernels.bandwidth import median_distance
from kl.kernels.configured import kernel_from_config
from kl.kernels.gram import GramKernel
from kl.kernels.inner_product import Polynomial
from kl.kernels.kernel import Kernel, Product, Scaled, Sum
from kl.kernels.lpq import LpqLaplacian
from kl.kernels.mirrored import Mirrored
from kl.kernels.names import kernel_names
from kl.kernels.registry import build_kernel
from kl.kernels.relu import ReluNNGP, ReluNTK

__all__ = [
    "Bandwidth",
    "ExponentialPower",
    "Gaussian",
    "GramKernel",
    "InverseMultiquadric",
    "Kernel",
    "Laplacian",
    "LpqLaplacian",
    "Matern32",
    "Matern52",
    "Mirrored",
    "Polynomial",
    "Product",
    "RadialKernel",
    "ReluNNGP",
    "ReluNTK",
    "Scaled",
    "Sum",
    "build_kernel",
    "kernel_from_config",
    "kernel_names",
    "median_distance",
]
