"""The limit that epochs are measured against: a plain float32 product of the same 2 n^2 d flops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.system.clock import fastest

MM = "float32 mm of the same flops"
TILE = 2048  # columns of the variant whose results stay in cache


@dataclass(frozen=True)
class Limit:
    """The fastest float32 pass over X X^T that we know how to ask torch for."""

    seconds: float
    gflops: float
    """2 n^2 d flops over the seconds, in 10^9 a second."""
    variant: str


def mm_limit(
    x: Tensor,  # shape: (n, d), float32
    batch_size: int,
    repeats: int = 3,
    device: torch.device | str = "cpu",
) -> Limit:
    """Time X_B X^T for all batches of `batch_size` rows in turn, into preallocated memory.

    Several layouts are tried on one batch; the fastest layout is timed on all batches.
    """
    x = x.to(device)
    n, d = x.shape
    m = min(batch_size, n)
    out = torch.empty(m, n, device=x.device)
    turned = x.T.contiguous()
    tiles = [x[i : i + TILE].T.contiguous() for i in range(0, n, TILE)]
    tile_out = torch.empty(m, min(TILE, n), device=x.device)

    def rows_times_view(batch: Tensor) -> None:
        torch.mm(batch, x.T, out=out[: len(batch)])

    def rows_times_columns(batch: Tensor) -> None:
        torch.mm(batch, turned, out=out[: len(batch)])

    def rows_times_tiles(batch: Tensor) -> None:
        for tile in tiles:
            to = tile_out if tile.shape[1] == tile_out.shape[1] and len(batch) == m else None
            if to is None:
                torch.mm(batch, tile)
            else:
                torch.mm(batch, tile, out=to)

    variants = {"x.T": rows_times_view, "contiguous x.T": rows_times_columns, "tiles of x.T": rows_times_tiles}
    trial = {}
    for name, work in variants.items():
        work(x[:m])
        trial[name] = fastest(lambda work=work: work(x[:m]), 3, x.device)  # type: ignore[misc]
    name = min(trial, key=lambda each: trial[each])

    def whole_pass() -> None:
        for batch in x.split(m):
            variants[name](batch)

    seconds = fastest(whole_pass, repeats, x.device)
    return Limit(seconds, 2e-9 * n * n * d / seconds, name)


def mm_rate(device: torch.device | str) -> float:
    """Flops a second of a small product: for estimates only."""
    a = torch.rand(1024, 1024, device=device)
    torch.mm(a, a)
    return 2 * 1024**3 / fastest(lambda: torch.mm(a, a), 5, device)


class Limits:
    """Limits by the shape of the rows and the batch size, each measured once.

    Args:
        repeats: timed passes of each; the fastest counts.
        device: the torch device.
    """

    def __init__(self, repeats: int, device: str) -> None:
        self.repeats, self.device = repeats, device
        self.measured: dict[tuple[int, int, int], Limit] = {}

    def of(self, x: Tensor, batch_size: int) -> Limit:
        """The limit for these rows and batches."""
        key = (len(x), x.shape[1], min(batch_size, len(x)))
        if key not in self.measured:
            self.measured[key] = mm_limit(x, batch_size, self.repeats, self.device)
        return self.measured[key]
