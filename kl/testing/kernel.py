"""The checks that every kernel must pass."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

from kl.errors import InputError
from kl.kernels.configured import kernel_from_config, own_classes
from kl.kernels.kernel import Kernel, kernel_name
from kl.products.gradients import gradient_matmul, gradient_row_matmul, gradient_sum
from kl.rows.rows import Rows


@dataclass(frozen=True)
class Tolerance:
    """What rounding may change, relative to sqrt(max K(x, x) max K(z, z)) over the rows involved."""

    blocks: float
    """between two orders of summation of the inner products, and between K and its transpose"""
    float64: float
    """between a result and the same in float64"""
    definite: float
    """how far below 0 the smallest eigenvalue may lie, relative to the largest"""


# <x, z> is summed over d terms, and the kernels here have slopes of order 1 relative to the scale above.
TOLERANCES = {
    torch.float32: Tolerance(blocks=2e-5, float64=2e-5, definite=2e-6),
    torch.float64: Tolerance(blocks=1e-12, float64=1e-12, definite=1e-12),
}

GRADIENTS = 2e-4
"""What rounding in float32, or of the differences, may change in a gradient, relative to the largest."""


def check_kernel(kernel: Kernel, x: Tensor | None = None, z: Tensor | None = None) -> None:
    """Assert the contract of `kl.Kernel`, in float32 and in float64.

    The kernel is symmetric and positive semi-definite; its diagonal equals the full matrix's and is exact for
    equal rows; blocks and slices agree with the whole; dtype and device are kept; inputs are not changed and
    results not shared; zero rows, equal rows and strided memory do no harm; `config()` is plain and builds an
    equal kernel; and `resolve` replaces "auto" deterministically. If the class defines its gradient in x, that is the
    limit of differences, and finite on zero, equal and parallel rows.

    Args:
        kernel: the kernel; it may hold "auto" parameters.
        x: float tensor, shape (m, d); 24 seeded normal rows with d = 20 by default. Rows should differ by
            more than rounding, which kernels that are not smooth at x = z enlarge.
        z: float tensor, shape (p, d), p != m; 17 rows by default.

    Raises:
        AssertionError: naming the property that failed, the dtype and by how much.

    Example:
        >>> from kl.kernels import Gaussian, ReluNTK
        >>> check_kernel(Gaussian(bandwidth=3.0) + 0.5 * ReluNTK(depth=2))
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 20, generator=generator) if x is None else x
    if z is None:
        z = torch.randn(17, x.shape[1], generator=generator).to(x)
    _check_config(kernel)
    kernel = _check_resolve(kernel, x)
    for dtype in TOLERANCES:
        _check_inputs(kernel, x.to(dtype), z.to(dtype))
        _check_symmetric_definite(kernel, x.to(dtype))
        _check_diagonal(kernel, x.to(dtype))
        _check_blocks(kernel, x.to(dtype), z.to(dtype))
        _check_degenerate_rows(kernel, x.to(dtype))
        _check_precision(kernel, x.to(dtype), z.to(dtype))
        if kernel.has_gradients:
            _check_gradients(kernel, x.to(dtype), z.to(dtype))


def _check_config(kernel: Kernel) -> None:
    params = getattr(type(kernel), "__dataclass_params__", None)
    _require(is_dataclass(kernel) and params.frozen, kernel, "must be a frozen dataclass")
    config = kernel.config()
    try:
        same = json.loads(json.dumps(config)) == config
    except TypeError as error:
        raise AssertionError(f"{kernel}: config() must hold plain values only: {error}") from error
    _require(same, kernel, f"config() must hold plain str, numbers, lists and dicts; got {config}")
    try:
        rebuilt = kernel_from_config(config, own_classes(kernel))
    except InputError as error:
        raise AssertionError(f"{kernel}: kernel_from_config(kernel.config()) failed: {error}") from error
    for cls in own_classes(kernel):
        name = kernel_name(cls)
        top = "<locals>" not in name
        _require(top, kernel, f"{name} must stand at the top of a module: nothing finds it by its name")
    _require(rebuilt == kernel, kernel, f"kernel_from_config(kernel.config()) gave another kernel, {rebuilt}")
    _require(hash(rebuilt) == hash(kernel), kernel, "equal kernels must have equal hashes")


def _check_resolve(kernel: Kernel, x: Tensor) -> Kernel:
    resolved = kernel.resolve(x)
    _require(resolved == kernel.resolve(x), kernel, "resolve(x) must be deterministic")
    _require(resolved == resolved.resolve(x), kernel, "resolving twice must change nothing")
    _require(not _holds_auto(resolved.config()), kernel, f'resolve(x) must leave no "auto"; got {resolved}')
    if _holds_auto(kernel.config()):
        try:
            kernel(x)
        except InputError:
            return resolved
        raise AssertionError(f'{kernel}: must raise InputError while a parameter is still "auto"')
    _require(resolved == kernel, kernel, f'resolve(x) must change nothing but "auto"; got {resolved}')
    return resolved


def _check_inputs(kernel: Kernel, x: Tensor, z: Tensor) -> None:
    kept_x, kept_z = x.clone(), z.clone()
    values, diagonal = kernel(x, z), kernel.diag(x)
    wanted = ((len(x), len(z)), (len(x),))
    got = (tuple(values.shape), tuple(diagonal.shape))
    _require(got == wanted, kernel, f"matrix and diagonal must have the shapes {wanted}; got {got}")
    for name, result in (("matrix", values), ("diagonal", diagonal)):
        kept = (result.dtype, result.device) == (x.dtype, x.device)
        _require(kept, kernel, f"the {name} must be {x.dtype} on {x.device}; got {result.dtype} on {result.device}")
    _require(torch.equal(x, kept_x) and torch.equal(z, kept_z), kernel, f"inputs were changed ({x.dtype})")
    first = values.clone()
    try:
        values.add_(1)
        diagonal.add_(1)
    except RuntimeError as error:
        raise AssertionError(f"{kernel}: results must be new tensors that may be overwritten: {error}") from error
    unshared = torch.equal(kernel(x, z), first) and torch.equal(x, kept_x) and torch.equal(z, kept_z)
    _require(unshared, kernel, f"overwriting a result changed the next one or the inputs ({x.dtype})")
    strided = torch.cat([x, x], dim=1)[:, : x.shape[1]]
    _check_close(kernel, "non-contiguous rows give other values", kernel(strided, z.T.contiguous().T), first, x, z)


def _check_symmetric_definite(kernel: Kernel, x: Tensor) -> None:
    values = kernel(x)
    _check_close(kernel, "not symmetric", values, values.T, x, x)
    eigenvalues = torch.linalg.eigvalsh(values.double())
    allowed = TOLERANCES[x.dtype].definite * float(eigenvalues[-1].abs())
    _require(
        float(eigenvalues[0]) >= -allowed,
        kernel,
        f"not positive semi-definite: smallest eigenvalue {float(eigenvalues[0]):.3g}, "
        f"allowed {-allowed:.3g} ({x.dtype})",
    )


def _has_exact_diagonal(kernel: Kernel) -> bool:
    """Whether equal rows are promised to be told exactly: by kernels of inner products, at any number of features."""
    return kernel.uses_products(sys.maxsize) > 0


def _check_diagonal(kernel: Kernel, x: Tensor) -> None:
    diagonal, values = kernel.diag(x), kernel(x)
    if _has_exact_diagonal(kernel):
        error = float((values.diagonal() - diagonal).abs().max())
        _require(error == 0, kernel, f"diag(x) differs from the full diagonal by {error:.3g} ({x.dtype})")
    else:
        _check_close(kernel, "diag(x) differs from the full diagonal", values.diagonal(), diagonal, x, x)


def _check_blocks(kernel: Kernel, x: Tensor, z: Tensor) -> None:
    rows, centres = Rows.of(x), Rows.of(z)
    everywhere = torch.arange(len(x), device=x.device)
    whole, across = kernel(x), kernel(x, z)
    _check_close(kernel, "K(x, z) is not K(z, x) transposed", kernel(z, x).T, across, x, z)
    for size in (1, 7):
        starts = range(0, len(x), size)
        down = [kernel.block(rows[i : i + size], rows, everywhere[i : i + size]) for i in starts]
        _check_close(kernel, f"blocks of {size} rows give other values", torch.cat(down), whole, x, x)
        right = [kernel.block(rows, rows[i : i + size], everywhere - i) for i in starts]
        _check_close(kernel, f"blocks of {size} columns give other values", torch.cat(right, dim=1), whole, x, x)
        diagonal = torch.cat([kernel.diag(x[i : i + size]) for i in starts])
        _check_close(kernel, f"diag on slices of {size} rows gives other values", diagonal, kernel.diag(x), x, x)
        starts = range(0, len(z), size)
        right = [kernel.block(rows, centres[i : i + size]) for i in starts]
        _check_close(kernel, f"slices of {size} rows of z give other values", torch.cat(right, dim=1), across, x, z)


def _check_degenerate_rows(kernel: Kernel, x: Tensor) -> None:
    rows = torch.cat([x[:3], x[:3], torch.zeros_like(x[:2]), -x[:1], 2 * x[:1]])
    values, diagonal = kernel(rows), kernel.diag(rows)
    finite = bool(torch.isfinite(values).all() and torch.isfinite(diagonal).all())
    _require(finite, kernel, f"not finite on zero, equal, opposite or parallel rows ({x.dtype})")
    error = float((values.diagonal() - diagonal).abs().max())
    exact = error == 0 or not _has_exact_diagonal(kernel)
    _require(exact, kernel, f"diagonal not exact on zero and equal rows: off by {error:.3g} ({x.dtype})")
    # |K(x, z)|^2 <= K(x, x) K(z, z), also where equal rows are not known to be so.
    bound = (diagonal[:, None] * diagonal[None, :]).clamp(min=0).sqrt()
    excess = float((values.abs() - bound).max())
    allowed = TOLERANCES[x.dtype].blocks * float(diagonal.abs().max())
    _require(
        excess <= allowed,
        kernel,
        f"|K(x, z)| exceeds sqrt(K(x, x) K(z, z)) by {excess:.3g}, allowed {allowed:.3g} ({x.dtype})",
    )


def _check_precision(kernel: Kernel, x: Tensor, z: Tensor) -> None:
    exact = kernel(x.double(), z.double())
    error = float((kernel(x, z).double() - exact).abs().max())
    allowed = TOLERANCES[x.dtype].float64 * _scale(kernel, x, z)
    _require(error <= allowed, kernel, f"{x.dtype} differs from float64 by {error:.3g}, allowed {allowed:.3g}")


def _check_gradients(kernel: Kernel, x: Tensor, z: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(len(z), 2, generator=generator).to(x)
    wanted, rows, centres = _differences(kernel, x.double(), z.double(), v.double()), Rows.of(x), Rows.of(z)
    allowed = GRADIENTS * float(wanted.abs().max())

    def close(failure: str, got: Tensor, wanted: Tensor) -> None:
        error = float((got.double() - wanted).abs().max())
        _require(error <= allowed, kernel, f"{failure}: off by {error:.3g}, allowed {allowed:.3g} ({x.dtype})")

    close("gradients are not the limit of differences", gradient_matmul(kernel, rows, centres, v), wanted)
    signs = torch.randint(0, 2, (len(x), 3, 2), generator=generator).to(x) * 2 - 1
    found = gradient_row_matmul(kernel, rows, centres, v, signs)
    close("gradients of combinations at each row differ", found, torch.einsum("iko,iod->ikd", signs.double(), wanted))
    u = torch.rand(len(x), generator=generator).to(x) / len(x)
    close(
        "sums of gradients over rows differ",
        gradient_sum(kernel, rows, centres, v, u),
        torch.tensordot(u.double(), wanted, 1),
    )
    hard = torch.cat([x[:3], x[:3], torch.zeros_like(x[:2]), -x[:1], 2 * x[:1]])
    found = gradient_matmul(kernel, Rows.of(hard), Rows.of(hard), torch.ones_like(hard[:, :1]))
    _require(bool(found.isfinite().all()), kernel, f"gradients not finite on zero, equal or parallel rows ({x.dtype})")
    if kernel.shift_invariant:
        same = torch.arange(len(x), device=x.device)
        at_itself = gradient_matmul(kernel, rows[:1], rows[:1], torch.ones_like(x[:1, :1]), same[:1])
        _require(not bool(at_itself.any()), kernel, f"a row must add exactly 0 to the gradient at itself ({x.dtype})")


def _differences(kernel: Kernel, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """The gradients of K(x, z) v by central differences, shape (m, c, d); the step is short, to meet no kink."""
    step = 1e-7 * float(x.abs().max().clamp(min=1e-30))
    steps = step * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.stack([(kernel(x + each, z) - kernel(x - each, z)) @ v / (2 * step) for each in steps], dim=2)


def _check_close(kernel: Kernel, failure: str, got: Tensor, wanted: Tensor, x: Tensor, z: Tensor) -> None:
    error = float((got - wanted).abs().max())
    allowed = TOLERANCES[x.dtype].blocks * _scale(kernel, x, z)
    # A NaN compares false, and so fails too.
    _require(error <= allowed, kernel, f"{failure}: off by {error:.3g}, allowed {allowed:.3g} ({x.dtype})")


def _scale(kernel: Kernel, x: Tensor, z: Tensor) -> float:
    largest = kernel.diag(x).double().abs().max() * kernel.diag(z).double().abs().max()
    return float(largest.sqrt())


def _holds_auto(config: Any) -> bool:
    if isinstance(config, dict):
        return any(_holds_auto(value) for value in config.values())
    return any(_holds_auto(item) for item in config) if isinstance(config, list) else config == "auto"


def _require(holds: bool, kernel: Kernel, failure: str) -> None:
    if not holds:
        raise AssertionError(f"{kernel}: {failure}")
