"""Responses of patches to a dictionary, encoded and added over cells, by torch: in float32 or in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.features.patch_options import PatchOptions
from kl.rows.int8 import MULTIPLE, OFFSET, int8_product
from kl.rows.workspace import Workspace

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


class Responses(Protocol):
    """Responses to a block of the dictionary, of whole numbers: all classes give the same."""

    @property
    def itemsize(self) -> int:
        """Bytes that a response takes in memory; 0 if it stays in registers."""

    @property
    def columns(self) -> int:
        """Values of a patch that `prepare` takes, the last of which are 0."""

    def prepare(self, units: Tensor) -> Tensor:
        """Whitened patches, whole numbers, float32, shape (n, positions, `columns`), as `sums` takes them."""

    def band(self, places: slice, cells: Tensor) -> Any:
        """Positions and the cells that hold them, 0 or 1, int8, shape (cells, places), as `sums` takes them."""

    def sums(self, prepared: Tensor, band: Any) -> Tensor:
        """Encoded responses of a band of positions, added over cells: whole numbers, shape (terms, cells, n, m)."""


class PlainResponses:
    """Responses to a block of the dictionary by int8 or float32 products, encoded in float32, on any device.

    Args:
        patches: the block, whole numbers, float32, shape (m, d).
        thresholds: subtracted from a product; None instead rounds it to steps of 128. Whole numbers, shape (m,).
        terms: the encoding.
        integer: whether products are of int8.
    """

    itemsize = 4

    def __init__(self, patches: Tensor, thresholds: Tensor | None, terms: list[Term], integer: bool = False) -> None:
        self._thresholds, self._terms, self._integer = thresholds, terms, integer
        self.columns = -(-patches.shape[1] // MULTIPLE) * MULTIPLE if integer else patches.shape[1]
        if integer:
            self._right = pad(patches, (0, self.columns - patches.shape[1])).to(torch.int8)
        else:
            self._right = patches if thresholds is not None else patches / STEP  # exact, because 128 is a power of 2
        self._workspace, self._encoded = Workspace(), Workspace()

    def prepare(self, units: Tensor) -> Tensor:
        """See `Responses`; shape (positions, n, `columns`)."""
        units = units.transpose(0, 1).contiguous()
        return units.to(torch.int8) if self._integer else units

    def band(self, places: slice, cells: Tensor) -> tuple[slice, Tensor]:
        """See `Responses`."""
        return places, cells.to(self._right.device, torch.float32)

    def sums(self, prepared: Tensor, band: tuple[slice, Tensor]) -> Tensor:
        """See `Responses`; float32."""
        places, cells = band
        units = prepared[places]
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
        """See `Responses`; shape (positions, n, `columns`)."""
        signed = units.transpose(0, 1).to(torch.int8, memory_format=torch.contiguous_format)
        return signed.view(torch.uint8).add_(OFFSET)  # wraps round

    def band(self, places: slice, cells: Tensor) -> tuple[slice, Tensor]:
        """See `Responses`."""
        return places, cells

    def sums(self, prepared: Tensor, band: tuple[slice, Tensor]) -> Tensor:
        """See `Responses`; int32."""
        places, cells = band
        units = prepared[places]
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
