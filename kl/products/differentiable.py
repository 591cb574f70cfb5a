"""Kernel products as a graph of plain operations: for gradients with respect to the inputs, and for export.

`kl.products.blocks` writes into memory that it uses again and looks at values to choose its path; neither autograd nor
an exported graph can follow that. Here every product is taken at once, in one way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kl.errors import KLError
from kl.kernels.kernel import Kernel
from kl.rows.pair import Pair
from kl.rows.root import under_root
from kl.rows.rows import Rows

# Methods that overwrite a tensor's shape or its place in the graph, not its values.
_NOT_VALUES = frozenset(
    f"{name}_"
    for name in ("detach", "requires_grad", "resize", "set", "squeeze", "swapaxes", "swapdims", "t", "transpose")
) | {"unsqueeze_"}


def plain_rows(
    x: Tensor,  # shape: (m, d)
) -> Rows:
    """Rows as floats. Their norms are summed in float64 in one operation, whatever the number of rows."""
    return Rows(x, x.double().square().sum(dim=1).to(x.dtype))


def plain_matmul(kernel: Kernel, x: Rows, z: Rows, v: Tensor) -> Tensor:
    """K(x, z) v, shape (m, c), with v of shape (p, c) in the dtype of x."""
    products = kernel.uses_products(x.data.shape[1])
    return kernel._values(Pair(x, z, uses=products, plain=True)) @ v


def differentiable_matmul(
    kernel: Kernel,
    x: Tensor,  # shape: (m, d)
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
) -> Tensor:
    """K(x, z) v, shape (m, c), with its gradient with respect to x.

    Formulas of kernels overwrite their arguments; here every operation of a formula gives a new tensor instead. If x
    equals a row of z and the kernel is radial, that row adds 0 to the gradient, which is right for smooth kernels and a
    choice for others.

    Raises:
        KLError: in backward: the gradient is not finite, because the kernel has no derivative there.
    """

    def product(x: Tensor) -> Tensor:
        with _Functional():
            return plain_matmul(kernel, plain_rows(x), z, v)

    def check(gradient: Tensor | None) -> None:
        if gradient is not None and not bool(gradient.isfinite().all()):
            row = int((~gradient.isfinite()).any(dim=1).nonzero()[0])
            raise KLError(
                f"the gradient of {kernel} at row {row} of x is not finite: the row is 0, equals a centre or a "
                "multiple of one, where this kernel has no derivative, or the numbers are too large"
            )

    x = x.view_as(x)  # the hook goes to this view, not to the caller's tensor
    x.register_hook(check)
    return torch.func.functionalize(product)(x)


class _Functional(TorchFunctionMode):
    """Replaces each method that overwrites a tensor by the method that returns a new one, and writes the result back.

    `torch.func.functionalize` does this, too, but refuses some of the methods.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        twin = getattr(Tensor, name[:-1], None) if name.endswith("_") and not name.startswith("_") else None
        if callable(twin) and name not in _NOT_VALUES:
            value = twin(*args, **kwargs)
            return args[0].zero_().add_(value)  # a copy has no derivative in `functionalize`
        return func(*args, **kwargs)


class ExportedMachine(nn.Module):
    """f(x) = sum_j alpha_j K(x - origin, z_j) of any number of rows, for torch.export, ONNX and torch.jit.trace.

    The values differ from the machine's by rounding, because the module computes 8-bit features in floats, too.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        centers: z_1..z_p less the origin, shape (p, d).
        origin: shape (d,).
        weights: alpha, shape (p, c).
        rounded: whether features are rounded to bfloat16 (precision "medium").
        root: M^(1/2) of the machine's metric, see `kl.rows.root.under_root`; None if it has none.
    """

    centers: Tensor
    origin: Tensor
    root: Tensor | None
    sq_norm: Tensor
    weights: Tensor

    def __init__(
        self,
        kernel: Kernel,
        centers: Tensor,
        origin: Tensor,
        weights: Tensor,
        rounded: bool = False,
        root: Tensor | None = None,
    ) -> None:
        super().__init__()
        rows = plain_rows(centers.detach().clone())
        self.kernel, self.rounded = kernel, rounded
        self.register_buffer("centers", rows.data)
        self.register_buffer("sq_norm", rows.sq_norm)
        self.register_buffer("origin", origin.detach().clone())
        self.register_buffer("root", None if root is None else root.detach().clone())
        self.register_buffer("weights", weights.detach().to(centers.dtype, copy=True))

    def forward(
        self,
        x: Tensor,  # shape: (m, d), in the dtype of the centres
    ) -> Tensor:
        """f(x), shape (m, c)."""
        x = under_root(x - self.origin, self.root)
        x = x.bfloat16().to(x.dtype) if self.rounded else x
        return plain_matmul(self.kernel, plain_rows(x), Rows(self.centers, self.sq_norm), self.weights)
