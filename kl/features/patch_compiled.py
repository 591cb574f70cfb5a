"""Responses of patches to a dictionary by compiled code, patch_sums.cpp, which encodes and adds them in registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from kl.compiled import best, load
from kl.features.patch_responses import Term
from kl.rows.int8 import OFFSET

GROUP = 4  # values of a patch that are multiplied together at most, so that all libraries take the same patches
DTYPES = {1: torch.int32, 2: torch.int16, 4: torch.int8}  # of the dictionary, by the values that are


class Runs(NamedTuple):
    """Positions in runs that belong to the same cells; positions without a cell are left out."""

    order: Tensor  # int64, shape: (places,)
    ends: Tensor  # of the runs in `order`, int64, shape: (runs,)
    members: Tensor  # 1 where a run is in a cell, uint8, shape: (cells, runs)


class CompiledResponses:
    """The same numbers as `PlainResponses`, on a CPU.

    Args:
        patches: the block, whole numbers, float32, shape (m, d).
        thresholds: subtracted from a product; None instead rounds it to steps of 128. Whole numbers, shape (m,).
        terms: the encoding.
        library: one of `kl.compiled.LIBRARIES`; None is the best.

    Raises:
        NotImplementedError: there is no such library on this machine.
    """

    itemsize = 0

    def __init__(
        self,
        patches: Tensor,
        thresholds: Tensor | None,
        terms: Sequence[Term],
        library: str | None = None,
    ) -> None:
        code = best() if library is None else load(library)
        if code is None:
            raise NotImplementedError("kl was installed without compiled code for this processor")
        self._code = code
        self._group, block = self._code.patch_group(), self._code.patch_columns()
        m, d = patches.shape
        self.columns = -(-d // GROUP) * GROUP
        self._entries, self._terms, self._rounded = m, len(terms), thresholds is None
        right = pad(patches, (0, self.columns - d, 0, -m % block)).to(DTYPES[self._group])
        self._right = right.view(-1, block, self.columns // self._group, self._group).transpose(1, 2).contiguous()
        bias = torch.zeros(len(right)) if thresholds is None else -pad(thresholds, (0, -m % block))
        if self._group == GROUP:  # the left bytes have no sign
            bias = bias - OFFSET * right.sum(dim=1)
        self._bias = bias.to(torch.int32)
        self._low = torch.tensor([term.low for term in terms], dtype=torch.int32)
        self._high = torch.tensor([term.high for term in terms], dtype=torch.int32)

    def prepare(self, units: Tensor) -> Tensor:
        """See `Responses`; shape (n, positions, `columns`)."""
        if self._group < GROUP:
            return units.to(DTYPES[self._group], memory_format=torch.contiguous_format)
        return units.to(torch.int8, memory_format=torch.contiguous_format).view(torch.uint8).add_(OFFSET)

    def band(self, places: slice, cells: Tensor) -> Runs:
        """See `Responses`."""
        patterns, run = torch.unique(cells, dim=1, return_inverse=True)
        order = run.argsort(stable=True)
        held = patterns.any(dim=0)
        order = order[held[run[order]]]
        lengths = run.bincount(minlength=patterns.shape[1])[held]
        members = patterns[:, held].to(torch.uint8, memory_format=torch.contiguous_format)
        return Runs(order + places.start, lengths.cumsum(dim=0), members)

    def sums(self, prepared: Tensor, band: Runs) -> Tensor:
        """See `Responses`; int32."""
        n, positions, _ = prepared.shape
        m = len(self._bias)
        found = torch.zeros(self._terms, len(band.members), n, m, dtype=torch.int32)
        self._code.patch_sums(
            *(prepared.data_ptr(), n, positions, self.columns // self._group),
            *(self._right.data_ptr(), self._bias.data_ptr(), m),
            *(self._terms, self._rounded, self._low.data_ptr(), self._high.data_ptr()),
            *(band.order.data_ptr(), band.ends.data_ptr(), len(band.ends)),
            *(band.members.data_ptr(), len(band.members), torch.get_num_threads(), found.data_ptr()),
        )
        return found[..., : self._entries]
