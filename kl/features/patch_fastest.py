"""The fastest of the ways to the responses of patches on a device, among those that give the same numbers there."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from kl.features.patch_compiled import CompiledResponses
from kl.features.patch_responses import HIGHEST, UNIT, ByteResponses, PlainResponses, Responses, Term
from kl.rows.int8 import int8_is_exact, seconds

log = logging.getLogger(__name__)

Kind = Callable[[Tensor, Tensor | None, list[Term]], Responses]

WAYS: dict[str, Kind] = {"compiled code": CompiledResponses, "products of bytes": ByteResponses}


def responses_on(device: torch.device) -> Kind:
    """The fastest class of responses on a device, measured once a process on a CPU."""
    if device.type == "cpu":
        return fastest_on_cpu()
    return functools.partial(PlainResponses, integer=int8_is_exact(device))


@functools.cache
def fastest_on_cpu() -> Kind:
    """The fastest class on this CPU, of those that give the numbers of `PlainResponses`."""
    generator = torch.Generator().manual_seed(0)
    m, positions, d = 512, 529, 36
    patches = torch.randint(-25, 26, (m, d), generator=generator).float()
    units = torch.randint(-UNIT, UNIT + 1, (2, positions, d), generator=generator).float()
    units[:, :9], units[:, 9:18] = UNIT, -UNIT  # at the extremes a unit that adds pairs in 16 bits would saturate
    patches[:9], patches[9:18], patches[18:27, ::2] = UNIT, -UNIT, UNIT
    cells = (torch.rand(4, positions, generator=generator) < 0.5).to(torch.int8)
    thresholds = torch.randint(-99, 99, (m,), generator=generator).float()
    rounded = [Term(1, 20, HIGHEST, 20), Term(-1, -HIGHEST, -20, -20)]
    cases = [(thresholds, [Term(1, 0, 1, 0)]), (None, rounded[:1]), (None, rounded)]

    def run(kind: Kind) -> tuple[list[Tensor], float]:
        found = []
        for given, terms in cases:
            responses = kind(patches, given, terms)
            prepared, band = responses.prepare(units), responses.band(slice(0, positions), cells)
            found.append(responses.sums(prepared, band).float())
        return found, seconds(lambda: responses.sums(prepared, band)[0, 0])

    fastest: Kind = PlainResponses
    expected, plain = run(PlainResponses)
    best = plain
    for name, kind in WAYS.items():
        try:
            found, taken = run(kind)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            log.info("responses of patches: %s cannot be used here (%s)", name, str(error).split("\n")[0])
            continue
        exact = all(map(torch.equal, found, expected))
        log.info(
            "responses of patches: %s take%s %.2f of the seconds of float32%s",
            *(name, "s" if name == "compiled code" else "", taken / plain, "" if exact else ", but is not exact"),
        )
        if exact and taken <= best:
            fastest, best = kind, taken
    return fastest
