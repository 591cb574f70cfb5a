"""Products of rows of floats, in float32 and float64; rows that hold bfloat16 values may take bfloat16 units."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from kl.rows.workspace import Workspace


def float_product(
    x: Tensor,  # shape: (m, d)
    z: Tensor,  # shape: (p, d)
    rounded: bool,
    workspace: Workspace,
) -> Tensor:
    """x z^T in the dtype of both, shape (m, p), in the workspace.

    Args:
        x: m rows.
        z: p rows.
        rounded: whether both hold bfloat16 values, which float32 may multiply on bfloat16 units.
        workspace: memory of the result.
    """
    out = workspace.take(len(x), len(z), x, x.dtype)
    with bfloat16_products(rounded and x.dtype == torch.float32, x.device):
        return torch.mm(x, z.T, out=out)


@contextlib.contextmanager
def bfloat16_products(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let float32 matrix products use bfloat16 or TF32 units within this block, and only there.

    Rows that are rounded to bfloat16 lose nothing, because the float32 sums of the units hold their products exactly.
    """
    if not wanted:
        yield
        return
    on_gpu = device.type == "cuda"
    switch = torch.backends.cuda.matmul if on_gpu else torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = switch.fp32_precision
    switch.fp32_precision = "tf32" if on_gpu else "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before
