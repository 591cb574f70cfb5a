"""K(x, z) v in one Triton kernel on a GPU: the kernel values stay in registers, and K is never written.

The blocked product (`kl.products.blocks`) writes each tile of inner products, and its formula reads and writes the tile
several times; on a GPU these passes take more time than the products. The fused kernel computes the same values in the
same precisions, so it differs from the blocked product by the order of the sums and by rounding.

No GPU has run it yet: tests run it by Triton's interpreter and compile it for several GPUs. So it is taken only where
the environment variable KL_FUSED is 1, and where a probe finds it right and faster; docs/how/gpus.md.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kl.kernels.kernel import Kernel
from kl.kernels.radial import (
    DIRECT_FEATURES,
    ExponentialPower,
    Gaussian,
    InverseMultiquadric,
    Laplacian,
    Matern32,
    Matern52,
)
from kl.kernels.relu import ReluNNGP, ReluNTK
from kl.rows.digits import split
from kl.rows.int8 import LEVELS, seconds
from kl.rows.rows import Rows, row_sq_norm

log = logging.getLogger(__name__)

SWITCH = "KL_FUSED"  # the environment variable; 1 asks for the fused product
MOST_OUTPUTS = 64  # columns of v; the sums of more do not fit into the registers
NARROWEST = 16  # columns of v in the kernel, at least, because matrix units need as many
WAVES = 4  # tiles of rows for each multiprocessor, below which z is split into parts
# The probe: rows of x, at most so many values of them, rows of z, columns of v, and what makes the choice. Tolerated
# is an error of 2^-18 of sum_j |K_ij v_jk|: float32 makes a fortieth of it, and a product in TF32 ten times as much.
PROBED_ROWS, PROBED_VALUES, PROBED_COLUMNS = 2**14, 2**24, 1024
TOLERATED, PAYS, ROUNDS = 2.0**-18, 0.9, 3
CAPABILITY = (8, 0)  # of a GPU, at least: for older ones Triton cannot compile int8 products

# For each kernel what the formulas in `fused_kernel` call scale and power (of ReLU networks sq_bias and of_zero). A
# subclass may have another formula, so the class must be one of these itself.
FORMULAS: dict[type[Kernel], Callable[[Any], tuple[float, float]]] = {
    **dict.fromkeys((Gaussian, Laplacian, Matern32, Matern52), lambda kernel: (kernel._rate, 0.0)),
    ExponentialPower: lambda kernel: (kernel.bandwidth**-2, kernel.power / 2),
    InverseMultiquadric: lambda kernel: (kernel.bandwidth**-2, 0.0),
    ReluNTK: lambda kernel: (kernel.bias**2, kernel.bias**2 * (2 - 2.0 ** (1 - kernel.depth))),
    ReluNNGP: lambda kernel: (0.0, 0.0),
}


@dataclass(frozen=True)
class Tiles:
    """Rows of x, rows of z and features of the tiles of one program, its warps, and its stages of loads."""

    rows: int = 128
    columns: int = 64
    features: int = 64
    warps: int = 8
    stages: int = 3


# "codes" are 8-bit integers on one grid, "few" are few features, which are not tiled. These are first guesses: the
# Gaussian of up to 16 outputs fits into the registers of compute capability 8.0 and 9.0; integers of 128 x 128 do not.
TILES = {
    "codes": Tiles(features=128),
    "digits": Tiles(features=64),
    "floats": Tiles(features=16),
    "rounded": Tiles(features=32),
    "few": Tiles(features=16),
}


class Choice(NamedTuple):
    """Whether products are fused, and why, in words."""

    fused: bool
    why: str


def kind_of(kernel: Kernel, x: Rows, z: Rows) -> str | None:
    """What the fused kernel calls these rows, a key of `TILES`; None if it cannot multiply them."""
    plain = x.dtype == z.dtype == x.data.dtype == z.data.dtype == torch.float32
    if type(kernel) not in FORMULAS or not plain or x.data.stride(1) != 1 or z.data.stride(1) != 1:
        return None
    if x.data.shape[1] <= DIRECT_FEATURES:
        return "few"
    if x.codes is not None and z.codes is not None:
        return "codes" if x.codes.grid is not None and x.codes.grid == z.codes.grid else None
    if x.digits is not None and z.digits is not None:
        return "digits"
    return "rounded" if x.rounded and z.rounded else "floats"


def choose(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    c: int,
) -> Choice:
    """Whether `kernel_matmul` takes the fused kernel for K(x, z) v with c columns of v."""
    if not x.data.is_cuda:
        return Choice(False, "blocked, because fused products need CUDA")
    if os.environ.get(SWITCH) != "1":
        return Choice(False, f"blocked, because the environment variable {SWITCH} is not 1")
    kind = kind_of(kernel, x, z)
    if kind is None or not 1 <= c <= MOST_OUTPUTS:
        return Choice(False, "blocked, because the fused kernel does not have this kernel, dtype or number of outputs")
    device = x.data.device
    d = x.data.shape[1]
    return _probe(device.type, device.index, _probed_kernel(kernel, d), kind, d, _width(c))


def fused_matmul(
    kernel: Kernel,
    x: Rows,  # m rows
    z: Rows,  # p rows
    v: Tensor,  # shape: (p, c)
    same: Tensor | None = None,  # shape: (m,)
    tiles: Tiles | None = None,
    parts: int | None = None,
) -> Tensor:
    """K(x, z) v, shape (m, c), float32 without a gradient, by one Triton kernel; the same to the bit in every call.

    Args:
        kernel: a kernel of `FORMULAS`; its bandwidth must be resolved.
        x: the m rows of evaluation, float32.
        z: the p centres, float32.
        v: weights, shape (p, c), c up to 64.
        same: for each row of x the index of the same row in z, or any number outside 0..p-1 if z does not hold it,
            shape (m,); at these pairs the distance is exactly 0.
        tiles: of the programs; None is those of `TILES`.
        parts: into how many parts z is split, whose products are summed at the end; None is as many as occupy the GPU.
    """
    from kl.products.fused_kernel import fused_product

    kind, c, p = kind_of(kernel, x, z), v.shape[1], len(z)
    assert kind is not None
    assert c <= MOST_OUTPUTS
    if not len(x) or not p or not c:
        return x.sq_norm.new_zeros(len(x), c)
    if same is None:
        same = torch.full((len(x),), -1, device=x.data.device)
    tiles, weights = tiles or TILES[kind], v.detach().to(torch.float32).contiguous()
    blocks = -(-len(x) // tiles.rows)
    parts = parts or -(-WAVES * _multiprocessors(x.data.device) // blocks)
    span = -(-p // (parts * tiles.columns)) * tiles.columns
    parts = -(-p // span)
    out = weights.new_empty(parts, len(x), c)
    ours, x_sq, x_scale = _operand(kind, x)
    others, z_sq, z_scale = _operand(kind, z)
    unit = x.codes.grid[0] ** 2 if kind == "codes" and x.codes is not None and x.codes.grid is not None else 1.0
    d = ours.shape[-1]  # for integers the features filled up with zeros
    with torch.cuda.device_of(ours):
        fused_product[blocks, parts](
            *(ours, others, x_sq, z_sq, x_scale, z_scale, same, weights, out, len(x), p, c, d),
            *(ours.stride(0), others.stride(0), unit, *FORMULAS[type(kernel)](kernel), span),
            KIND=kind,
            FORMULA=type(kernel).name,
            DEPTH=getattr(kernel, "depth", 0),
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            FEATURES=tiles.features,
            OUTPUTS=_width(c),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            enable_fp_fusion=True,
        )
    return out[0] if parts == 1 else out.sum(dim=0)


def _operand(kind: str, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """The rows, their squared norms and their scales, as `fused_kernel.fused_product` takes them."""
    if kind == "codes" and rows.codes is not None:
        return rows.codes.values, rows.codes.centred, rows.sq_norm
    if kind == "digits" and rows.digits is not None:
        return rows.digits.values, rows.sq_norm, rows.digits.scale
    return rows.data, rows.sq_norm, rows.sq_norm


def _width(c: int) -> int:
    """Columns of v in the kernel: a power of two, 16 or more."""
    return max(NARROWEST, 1 << (c - 1).bit_length())


@functools.lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@functools.lru_cache
def _probed_kernel(kernel: Any, d: int) -> Kernel:
    """The kernel with a bandwidth that suits `probed_rows`, so that one probe stands for all bandwidths."""
    return replace(kernel, bandwidth=math.sqrt(d / 6)) if hasattr(kernel, "bandwidth") else kernel


@functools.lru_cache
def _probe(device_type: str, index: int | None, kernel: Kernel, kind: str, d: int, width: int) -> Choice:
    """`choose` by one tile of K both ways; once a process for each device, kernel, kind and number of features."""
    device = torch.device(device_type, index) if index is not None else torch.device(device_type)
    m = max(PROBED_COLUMNS, min(PROBED_ROWS, PROBED_VALUES // d))
    x = probed_rows(kind, m, d, device)
    z, same = x[:PROBED_COLUMNS], torch.arange(m, device=device)
    v = torch.randn(len(z), width, generator=torch.Generator().manual_seed(1)).to(device)
    try:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
            raise NotImplementedError(f"it needs compute capability {CAPABILITY[0]}.{CAPABILITY[1]}")
        error = relative_error(kernel, x, z, v, same)
        if not error <= TOLERATED:  # true for NaN, too
            choice = Choice(False, f"blocked, because the fused kernel is wrong here: its error is {error:.2g}")
        else:
            choice = _faster(kernel, x, z, v, same)
    except Exception as reason:  # no triton, or a GPU or a version that it does not compile for
        first = str(reason).split("\n")[0]
        choice = Choice(False, f"blocked, because the fused kernel fails here ({type(reason).__name__}: {first})")
    log.info("%s products of %d features (%s) on %s are %s", type(kernel).__name__, d, kind, device, choice.why)
    return choice


def probed_rows(kind: str, m: int, d: int, device: torch.device) -> Rows:
    """m rows of d numbers in 0..1 that `kind_of` calls by this kind; |x - z|^2 is d / 6 on average."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, LEVELS + 1, (m, d), generator=generator, dtype=torch.uint8).to(device).float() / LEVELS
    if kind == "codes":
        return Rows.of(x)
    if kind == "rounded":
        x = x.bfloat16().float()
    rows = Rows(x, row_sq_norm(x), rounded=kind == "rounded")
    return replace(rows, digits=split(x)) if kind == "digits" else rows


def relative_error(kernel: Kernel, x: Rows, z: Rows, v: Tensor, same: Tensor) -> float:
    """The largest difference between the fused and the blocked product, over the largest sum_j |K_ij v_jk|."""
    values = kernel.block(x, z, same)
    difference = (fused_matmul(kernel, x, z, v, same) - values @ v).abs().max()
    return float(difference / (values @ v.abs()).max())


def _faster(kernel: Kernel, x: Rows, z: Rows, v: Tensor, same: Tensor) -> Choice:
    """The choice by time, in several rounds, because other work on the machine may slow down one."""
    for _ in range(ROUNDS):
        fused = seconds(lambda: fused_matmul(kernel, x, z, v, same), repeats=3)
        ratio = fused / seconds(lambda: kernel.block(x, z, same) @ v, repeats=3)
        if ratio >= PAYS:
            return Choice(False, f"blocked, because fused they take {ratio:.2g} times the seconds")
    return Choice(True, f"fused, in {ratio:.2g} times the seconds of blocked ones")
