"""The exact solve, compared with scikit-learn's KernelRidge and plain torch.linalg by the same residual."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.rows.int8 import OFFSET, encode
from kl.system.clock import now
from recipes.bench import record
from recipes.bench.record import Measurement, Task, one_line
from recipes.bench.settings import Bench

if TYPE_CHECKING:
    from kl import Kernel

KERNELS = ("gaussian", "laplacian")
OURS = "kl.interpolate"
Solver = Callable[["Kernel", Tensor, Tensor], Tensor]
"""Maps the kernel, x (n, d) and y (n, c) to the weights alpha (n, c)."""


def kl_interpolate(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """`kl.interpolate`."""
    import kl
    from kl.system.memory import free_memory

    return kl.interpolate(kernel, x, y, memory=int(0.9 * free_memory(x.device))).alpha


def sklearn_kernel_ridge(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """scikit-learn's KernelRidge in float64; for the Laplacian on K built from its own Euclidean distances."""
    import numpy as np
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances

    a, b, bandwidth = x.double().cpu().numpy(), y.double().cpu().numpy(), _bandwidth(kernel)
    if _is_gaussian(kernel):
        model = KernelRidge(alpha=0.0, kernel="rbf", gamma=1 / (2 * bandwidth**2)).fit(a, b)
    else:
        gram = euclidean_distances(a)
        gram /= -bandwidth
        np.exp(gram, out=gram)
        model = KernelRidge(alpha=0.0, kernel="precomputed").fit(gram, b)
    return torch.from_numpy(model.dual_coef_).to(x.device)


def torch_cholesky(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """torch.cdist and torch.linalg.cholesky in float64."""
    factor = torch.linalg.cholesky(_cdist_matrix(kernel, x))
    return torch.cholesky_solve(y.double(), factor)


def torch_solve(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """torch.cdist and torch.linalg.solve in float64."""
    return torch.linalg.solve(_cdist_matrix(kernel, x), y.double())


SOLVERS: dict[str, Solver] = {
    OURS: kl_interpolate,
    "sklearn KernelRidge": sklearn_kernel_ridge,
    "torch cdist + cholesky": torch_cholesky,
    "torch cdist + solve": torch_solve,
}


def exact_tasks(bench: Bench) -> list[Task]:
    """One task for each kernel: the solvers take turns, so that other load on the machine affects all alike."""
    n, d = min(bench.sizes.exact, len(bench.data.x)), bench.data.x.shape[1]
    seconds = bench.sizes.repeats * len(SOLVERS) * (2 * n * n * d + n**3) / (0.4 * bench.rate) + 1
    return [
        Task("exact", f"exact solve, {name}", seconds, lambda name=name: measure_exact(bench, name, n))  # type: ignore[misc]
        for name in KERNELS
        if name in bench.kernels
    ]


def measure_exact(bench: Bench, kernel_name: str, n: int) -> list[Measurement]:
    """Every solver's fastest time, its ratio to KernelRidge, and its residual.

    `kl.interpolate` gets the float32 features, the other solvers get them in float64. Of 8-bit data they get k/255
    without the rounding to float32, as our engine reads it, so that all solve the same system.
    """
    kernel, data = bench.kernels[kernel_name], bench.data.first(n)
    x, y = data.x.to(bench.device), data.y.to(bench.device)
    precise = exact_features(x)
    times: dict[str, float] = {}
    residuals: dict[str, float] = {}
    errors: dict[str, str] = {}
    for _ in range(bench.sizes.repeats):
        for name, solve in SOLVERS.items():
            if name in errors:
                continue
            try:
                start = now(bench.device)
                with _own_warnings_only():
                    alpha = solve(kernel, x if name == OURS else precise, y)
                seconds = now(bench.device) - start
            except Exception as error:  # a solver may raise anything: its row says so
                errors[name] = one_line(error)
                continue
            times[name] = min(seconds, times.get(name, seconds))
            if name not in residuals:
                residuals[name] = relative_residual(kernel, x, alpha, y)
    reference = times.get("sklearn KernelRidge")
    found = []
    for name in SOLVERS:
        seconds_of = times.get(name) if name not in errors else None
        found.append(
            Measurement(
                "exact",
                f"{kernel_name}, {name}",
                n,
                x.shape[1],
                seconds_of,
                seconds_of / reference if seconds_of and reference else None,
                "sklearn KernelRidge",
                record.EXACT if name == OURS and n >= record.EXACT_FROM else None,
                errors.get(name),
                {"relative_residual": residuals.get(name), "kernel": str(kernel), "repeats": bench.sizes.repeats},
            )
        )
    return found


def exact_features(
    x: Tensor,  # shape: (n, d)
) -> Tensor:
    """x in float64; for 8-bit data the values r k + b before their rounding to float32; shape (n, d)."""
    codes = encode(x)
    if codes is None:
        return x.double()
    k = codes.values[:, : x.shape[1]].double() + OFFSET
    return k.mul_(codes.scale[:, None]).add_(codes.shift[:, None])


def relative_residual(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    alpha: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> float:
    """|K alpha - y|_F / |y|_F with K in float64."""
    from kl.products.blocks import kernel_matmul
    from kl.rows.rows import Rows

    rows, y = Rows.of(x).double(), y.double()
    fitted = kernel_matmul(kernel, rows, rows, alpha.double(), same=torch.arange(len(x), device=x.device))
    return float((fitted - y).norm() / y.norm())


def _cdist_matrix(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
) -> Tensor:
    """K(x, x) in float64, shape (n, n)."""
    x = x.double()
    distances = torch.cdist(x, x)
    if _is_gaussian(kernel):
        return distances.square_().mul_(-1 / (2 * _bandwidth(kernel) ** 2)).exp_()
    return distances.mul_(-1 / _bandwidth(kernel)).exp_()


def _is_gaussian(kernel: Kernel) -> bool:
    return kernel.config()["kernel"] == "gaussian"


def _bandwidth(kernel: Kernel) -> float:
    return float(kernel.config()["bandwidth"])


@contextlib.contextmanager
def _own_warnings_only() -> Iterator[None]:
    """Hide warnings of other libraries, as on a singular matrix, because the residual shows the quality."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
