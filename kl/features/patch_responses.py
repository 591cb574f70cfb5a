"""Responses of patches to a dictionary, encoded and added over cells: in bytes where products of bytes are fast."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.features.patch_options import PatchOptions
from kl.rows.int8 import MULTIPLE, OFFSET, int8_is_exact, int8_product, seconds
from kl.rows.workspace import Workspace

log = logging.getLogger(__name__)

UNIT = 127  # the norm of a whitened patch
STEP = 128  # of a product of two patches, which "soft" and "rectified" round to multiples of it
HIGHEST = 127  # the largest response in these steps; 127^2 / 128 = 126 is a cosine of 1


class Term(NamedTuple):
    """A feature is sign (sum over its cell of clamp(r, low, high) - offset), and all these are whole numbers.

    The response r is z - t for "count", with z = <k(W p), D_k> and the threshold t, and round(z / 128) for the others.
    """

    sign: int
    low: int
    high: int
    offset: int


def terms_of(options: PatchOptions) -> list[Term]:
    """One for each sign: [z > t] = clamp(z - t, 0, 1), and max(r - t, 0) = clamp(r, min=t) - t, and so on."""
    if options.encoding == "count":
        return [Term(1, 0, 1, 0)]
    t = round(options.threshold * UNIT**2 / STEP)
    return [Term(1, t, HIGHEST, t), Term(-1, -HIGHEST, -t, -t)][: options.signs]


def encoded(
    r: Tensor,  # shape: (k, m)
    terms: list[Term],
    workspace: Workspace,
) -> Iterator[Tensor]:
    """r clamped to each term in turn, to be used before the next; the last overwrites r, the others the workspace."""
    for term in terms:
        out = r if term is terms[-1] else workspace.take(len(r), r.shape[1], r, r.dtype)
        yield torch.clamp(r, term.low, term.high, out=out)


class PlainResponses:
    """Responses to a block of the dictionary by int8 or float32 products, encoded in float32, on any device.

    Args:
        patches: the block, whole numbers, float32, shape (m, d).
        thresholds: subtracted from a product; None instead rounds it to steps of 128. Whole numbers, shape (m,).
        terms: the encoding.
        integer: whether products are of int8.
    """

    itemsize = 4
    """Bytes of a response."""

    def __init__(self, patches: Tensor, thresholds: Tensor | None, terms: list[Term], integer: bool = False) -> None:
        self._thresholds, self._terms, self._integer = thresholds, terms, integer
        self.columns = -(-patches.shape[1] // MULTIPLE) * MULTIPLE if integer else patches.shape[1]
        if integer:
            self._right = pad(patches, (0, self.columns - patches.shape[1])).to(torch.int8)
        else:
            self._right = patches if thresholds is not None else patches / STEP  # exact, because 128 is a power of 2
        self._workspace, self._encoded = Workspace(), Workspace()

    def prepare(self, units: Tensor) -> Tensor:
        """Whitened patches, whole numbers, float32, shape (n, positions, `columns`), as `sums` takes them."""
        units = units.transpose(0, 1).contiguous()
        return units.to(torch.int8) if self._integer else units

    def ones(self, matrix: Tensor) -> Tensor:
        """A matrix of 0 and 1, int8, as `sums` takes it."""
        return matrix.to(self._right.device, torch.float32)

    def sums(
        self,
        units: Tensor,  # of `prepare`, shape: (positions, n, `columns`)
        cells: Tensor,  # 0 or 1, float32, shape: (cells, positions)
    ) -> Tensor:
        """Encoded responses added over cells, whole numbers, float32, shape (terms, cells, n, m)."""
        left = units.flatten(0, 1)
        # Exact in float32, which holds whole numbers up to 2^24.
        z = self._workspace.take(len(left), len(self._right), left, torch.float32)
        if not self._integer:
            torch.mm(left, self._right.T, out=z)
        elif self._thresholds is None:
            torch.div(int8_product(left, self._right, self._encoded), STEP, out=z)
        else:
            z.copy_(int8_product(left, self._right, self._encoded))
        z = z.round_() if self._thresholds is None else z.sub_(self._thresholds)
        found = [torch.mm(cells, each.view(len(units), -1)) for each in encoded(z, self._terms, self._encoded)]
        return torch.stack(found).view(len(found), len(cells), units.shape[1], -1)


class ByteResponses:
    """The same by products of bytes whose results oneDNN encodes as bytes before they reach memory, on a CPU.

    The left bytes have no sign. They are k + 128, and the product has 128 sum_j D_kj too much, which oneDNN subtracts
    together with the threshold, in float32, which is exact while 255 |D_k|_1 < 2^24: for all patches of norm 127.

    Args:
        patches: the block, whole numbers, float32, shape (m, d).
        thresholds: subtracted from a product; None instead rounds it to steps of 128. Whole numbers, shape (m,).
        terms: the encoding.
    """

    itemsize = 1

    def __init__(self, patches: Tensor, thresholds: Tensor | None, terms: list[Term]) -> None:
        scale = 1 / STEP if thresholds is None else 1.0
        self.columns = patches.shape[1]
        self._terms = terms
        self._right = torch.ops.onednn.qlinear_prepack(patches.to(torch.int8), None)
        self._bias = -scale * (OFFSET * patches.sum(dim=1) + (0 if thresholds is None else thresholds))
        self._scale, self._zeros = torch.full_like(self._bias, scale), torch.zeros(len(patches), dtype=torch.int32)
        self._encoded = Workspace()

    def prepare(self, units: Tensor) -> Tensor:
        """Whitened patches, whole numbers, float32, shape (n, positions, `columns`), as `sums` takes them."""
        signed = units.transpose(0, 1).to(torch.int8, memory_format=torch.contiguous_format)
        return signed.view(torch.uint8).add_(OFFSET)  # wraps round

    def ones(self, matrix: Tensor) -> Tensor:
        """A matrix of 0 and 1, int8, as `sums` takes it."""
        return matrix

    def sums(
        self,
        units: Tensor,  # of `prepare`, shape: (positions, n, `columns`)
        cells: Tensor,  # 0 or 1, int8, shape: (cells, positions)
    ) -> Tensor:
        """Encoded responses added over cells, int32, shape (terms, cells, n, m)."""
        low, high = min(term.low for term in self._terms), max(term.high for term in self._terms)
        r = torch.ops.onednn.qlinear_pointwise(
            *(units.flatten(0, 1), 1.0, 0, self._right, self._scale, self._zeros, self._bias, 1.0, 0, torch.int8),
            *("hardtanh", [float(low), float(high)], ""),
        )
        found = torch.empty(len(self._terms), len(cells), r.shape[1] * units.shape[1], dtype=torch.int32)
        # The product has clamped a single term.
        parts = encoded(r, self._terms, self._encoded) if len(self._terms) > 1 else [r]
        for each, out in zip(parts, found, strict=True):
            torch._int_mm(cells, each.view(len(units), -1), out=out)
        return found.view(*found.shape[:2], units.shape[1], -1)


Responses = PlainResponses | ByteResponses


def responses_on(device: torch.device) -> Callable[[Tensor, Tensor | None, list[Term]], Responses]:
    """The faster of the two on a device, where both give the same numbers."""
    if device.type == "cpu" and _bytes_are_exact():
        return ByteResponses
    integer = device.type != "cpu" and int8_is_exact(device)
    return functools.partial(PlainResponses, integer=integer)


@functools.cache
def _bytes_are_exact() -> bool:
    """Whether `ByteResponses` gives the numbers of `PlainResponses` on this CPU, and no slower; measured once."""
    generator = torch.Generator().manual_seed(0)
    m, positions, d = 512, 529, 36
    patches = torch.randint(-25, 26, (m, d), generator=generator).float()
    units = torch.randint(-UNIT, UNIT + 1, (2, positions, d), generator=generator).float()
    units[:, :9], units[:, 9:18] = UNIT, -UNIT  # at the extremes a unit that adds pairs in 16 bits would saturate
    patches[:9], patches[9:18], patches[18:27, ::2] = UNIT, -UNIT, UNIT
    cells = (torch.rand(4, positions, generator=generator) < 0.5).to(torch.int8)
    thresholds = torch.randint(-99, 99, (m,), generator=generator).float()
    rounded = [Term(1, 20, HIGHEST, 20), Term(-1, -HIGHEST, -20, -20)]
    try:
        exact = True
        for t, terms in ((thresholds, [Term(1, 0, 1, 0)]), (None, rounded[:1]), (None, rounded)):
            plain, fast = PlainResponses(patches, t, terms), ByteResponses(patches, t, terms)
            given, prepared = plain.prepare(units), fast.prepare(units)
            floats = cells.float()
            exact &= torch.equal(plain.sums(given, floats), fast.sums(prepared, cells).float())
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        reason = str(error).split("\n")[0]
    else:
        found = [seconds(lambda: fast.sums(prepared, cells)[0, 0]), seconds(lambda: plain.sums(given, floats)[0, 0])]
        if exact and found[0] <= found[1]:
            return True
        reason = "they are slower than float32 ones" if exact else "they are not exact"
    log.info("patches are multiplied in float32: products of bytes are of no use here (%s)", reason)
    return False
