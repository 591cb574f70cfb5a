"""Rows of floats as three integer digits, whose inner products int8 matrix units add up exactly.

A row is x_i = s_i (d_0 + d_1 / 2^8 + d_2 / 2^16) with s_i = max_k |x_ik| / 127 and digits in -128..127. The products of
digits of one order a + b are summed in int32, without any error, and the orders in float32:

    <x_i, z_j> = s_i s_j sum_{o < 3} 2^{-8 o} sum_{a + b = o} <d_a, d'_b>

These are six int8 products and leave float32's own error. The digits differ from x_ik by at most 2^-23 max |x_i|. The
products, which also leave out the orders 3 and 4, differ from <x_i, z_j> by at most 2^-20 d max |x_i| max |z_j|. Errors
of random signs cancel: their root mean square is about 2^-25 sqrt(d) max |x_i| max |z_j|, as measured; see
`suit_digits`.

Two digits are not offered, because the order <d_1, d'_1> that three products leave out is positive for equal rows, a
bias of 2^-14.6 to 2^-13.7 of |x_i|^2 for 100 to 3072 normal features, and with it as a fourth product they are no
faster than bfloat16 units.

An entry depends on its two rows alone, and <x_i, z_j> = <z_j, x_i> to the bit; but one row that holds NaN, or whose
maximum is neither 0 nor in 2^-60..2^60, sends its whole set to floats. The scale is no power of two, which would waste
up to a bit of each row: the error of normal rows would double, as measured.

Source: Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix multiplication by using fast routines of
matrix multiplication and its applications, doi:10.1007/s11075-011-9478-1; with int8 units Ootomo, Ozaki and Yokota
2024, DGEMM on integer matrix multiplication unit, arXiv:2306.11975.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.compiled import code_for
from kl.compiled.kernel_values import add_digits
from kl.rows.flip import flipped
from kl.rows.float_product import float_product
from kl.rows.int8 import MAX_FEATURES, MIN_FEATURES, MULTIPLE, OFFSET, int8_is_exact, int8_product, seconds
from kl.rows.workspace import Workspace, rows_at_a_time, spans, take_rows

log = logging.getLogger(__name__)

DIGITS = 3  # of a feature
LEAST_ROWS = 1024  # of a set that is split into digits; the products of a smaller one take no time
BITS = 8  # of a digit; the lower digits take all of -128..127
LARGEST = 127  # of the highest digit
LEAST, MOST = 2.0**-60, 2.0**60  # of max |x_i|, so that products of scales neither overflow nor lose digits
# Times the seconds of the float product, in each of three rounds, because other work on the machine may slow down one.
PAYS, ROUNDS = 0.9, 3
PROBED_FEATURES = 2048  # at most; with more features digits gain more, and the probe would take longer
PROBED_ROWS, PROBED_ROWS_ON_GPU = 1024, 4096  # of both sides of a tile


@dataclass(frozen=True)
class Digits:
    """The digits d_0, d_1 and d_2 of rows x_i, and the scales s_i."""

    values: Tensor  # int8, shape: (n, 3, d filled up to a multiple of 16)
    scale: Tensor  # s_i, float32, shape: (n,)

    def __getitem__(self, index: slice | Tensor) -> Digits:
        return Digits(take_rows(self.values, index), take_rows(self.scale, index))

    @classmethod
    def cat(cls, parts: Sequence[Digits]) -> Digits:
        """The rows of several sets, one after the other."""
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.scale for part in parts]))

    def flipped(self, shape: Sequence[int], axes: Sequence[int]) -> Digits:
        """The rows with some axes reversed, where a row is seen as a tensor of a shape with d elements."""
        values, d = self.values.clone(), math.prod(shape)
        values[:, :, :d] = flipped(self.values[:, :, :d].flatten(0, 1), shape, axes).unflatten(0, (-1, DIGITS))
        return replace(self, values=values)

    def inner(self, other: Digits, workspace: Workspace) -> Tensor:
        """<x_i, z_j>, float32, shape (m, p), in the workspace.

        Products of one order are one int8 product: [d_0 d_1 d_2] with [d'_2 d'_1 d'_0], and parts of them.
        """
        width = self.values.shape[2]
        left, right = self.values.flatten(1), other.values.flip(1).flatten(1)
        out = workspace.take(len(self.scale), len(other.scale), self.scale, torch.float32)
        code = code_for(out)
        for order in reversed(range(DIGITS)):
            sums = int8_product(left[:, : (order + 1) * width], right[:, (DIGITS - 1 - order) * width :], workspace)
            floats = sums.view(torch.float32)
            if code is not None:
                add_digits(code, sums, out, order == DIGITS - 1, None if order else (self.scale, other.scale))
            elif order == DIGITS - 1:
                out.copy_(sums)
            else:  # a CPU takes twice as long to add tensors of two types, so they are converted in place first
                torch.add(sums if sums.is_cuda else floats.copy_(sums), out, alpha=2.0**-BITS, out=out)
        if code is not None:
            return out
        # s_i s_j is one factor, so that the result is symmetric to the bit.
        return out.mul_(torch.mul(self.scale[:, None], other.scale[None, :], out=floats))


def split(
    x: Tensor,  # shape: (n, d)
) -> Digits | None:
    """The digits of float32 rows; None, which keeps them floats, if a maximum is neither 0 nor in 2^-60..2^60."""
    n, d = x.shape
    if x.dtype != torch.float32 or not n or not MIN_FEATURES <= d <= MAX_FEATURES:
        return None
    largest = _largest(x)
    if not ((largest == 0) | ((largest >= LEAST) & (largest <= MOST))).all():  # NaN is neither
        return None
    scale = torch.where(largest > 0, largest / LARGEST, 1.0)
    values = torch.zeros(n, DIGITS, -(-d // MULTIPLE) * MULTIPLE, dtype=torch.int8, device=x.device)
    shifts = [BITS * place for place in reversed(range(DIGITS))]
    raised = sum(OFFSET << shift for shift in shifts)  # makes the digits 0..255, which can be read off
    for rows in spans(n, rows_at_a_time(d)):
        whole = (x[rows] / scale[rows, None]).mul_(2.0 ** shifts[0]).round_().int().add_(raised)
        for digit, shift in enumerate(shifts):
            values[rows, digit, :d] = (whole >> shift).bitwise_and_(2**BITS - 1).sub_(OFFSET)
    return Digits(values, scale)


def suit_digits(
    x: Tensor,  # shape: (n, d)
    sq_norm: Tensor,  # shape: (n,)
) -> bool:
    """Whether (max |x_i|)^2 sqrt(d) <= |x_i|^2 on average, so that digits lose no more than floats.

    The error of <x_i, z_j>, relative to |x_i| |z_j|, is then about 2^-25, half a unit of float32. Rows with few large
    values do not suit: with one scale for a row little is left for its small values.
    """
    peaks = _largest(x).double().square() / sq_norm.double().clamp(min=torch.finfo(torch.float64).tiny)
    return bool(peaks.mean() * math.sqrt(x.shape[1]) <= 1)


def _largest(
    x: Tensor,  # shape: (n, d)
) -> Tensor:
    """max_k |x_ik|, shape (n,), without a copy of x; NaN if a row holds one."""
    return torch.maximum(x.amax(dim=1), -x.amin(dim=1))


def digits_pay(device: torch.device, d: int) -> bool:
    """Whether products of rows of d features as digits are faster on this device than as floats; measured once.

    The probe takes as many features or somewhat fewer, where digits gain less.
    """
    if not MIN_FEATURES <= d <= MAX_FEATURES or not int8_is_exact(device):
        return False
    return _probe(device.type, device.index, min(1 << (d.bit_length() - 1), PROBED_FEATURES))


def most_integers(n: int, d: int) -> int:
    """How many int8 integers may be kept of a feature of n rows on a device of this machine: 3 if digits pay, or 1."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return DIGITS if n >= LEAST_ROWS and any(digits_pay(torch.device(device), d) for device in devices) else 1


@functools.lru_cache
def _probe(kind: str, index: int | None, d: int) -> bool:
    """`digits_pay` by one tile both ways."""
    device = torch.device(kind, index) if index is not None else torch.device(kind)
    side = PROBED_ROWS_ON_GPU if device.type == "cuda" else PROBED_ROWS
    x = torch.rand(side, d, generator=torch.Generator().manual_seed(0)).to(device)
    digits, workspace = split(x), Workspace()
    assert digits is not None, "they are within the range"
    for _ in range(ROUNDS):
        as_digits = seconds(lambda: digits.inner(digits, workspace), repeats=2)
        ratio = as_digits / seconds(lambda: float_product(x, x, False, workspace), repeats=2)
        if ratio >= PAYS:
            break
    pays = ratio < PAYS
    names = f"{DIGITS} integer digits"
    way = f"by {names} on {device}: it takes" if pays else f"as floats on {device}: {names} would take"
    log.info("products of float rows of %d or more features are computed %s %.2g times as long", d, way, ratio)
    return pays
