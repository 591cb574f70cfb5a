"""Cells of positions, over which responses are added."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kl.errors import InputError


@dataclass(frozen=True)
class Cells:
    """Square cells of response positions, over which the responses are pooled."""

    starts: tuple[range, range]
    """First row of each row of cells, first column of each column of cells."""
    sides: tuple[int, int]
    """Rows and columns of positions of a cell."""
    positions: tuple[int, int]
    """Rows and columns of positions of an image."""

    @classmethod
    def of(cls, positions: tuple[int, int], pool: int | None, stride: int | None) -> Cells:
        """Cells of side `pool`; see `kl.Patches`.

        Raises:
            InputError: a cell does not fit.
        """
        sides = tuple(-(-each // 2) if pool is None else pool for each in positions)
        if max(side - each for side, each in zip(sides, positions, strict=True)) > 0:
            raise InputError(
                f"pool must be at most the {min(positions)} positions of a patch along the shorter side of an image; "
                f"got {pool}: give a smaller pool= or size=, or larger images"
            )
        steps = (stride or max(1, each - side) for each, side in zip(positions, sides, strict=True))
        rows, columns = (
            range(0, each - side + 1, step) for each, side, step in zip(positions, sides, steps, strict=True)
        )
        return cls((rows, columns), (sides[0], sides[1]), positions)

    def __len__(self) -> int:
        return len(self.starts[0]) * len(self.starts[1])

    @property
    def size(self) -> int:
        """Positions of a cell."""
        return self.sides[0] * self.sides[1]

    def mirrored(self) -> bool:
        """Whether the mirror image of the cells is the same cells."""
        starts = self.starts[1]
        return starts[0] + starts[-1] + self.sides[1] == self.positions[1]

    def rows_in(self, band: slice) -> list[slice]:
        """Of each row of cells the rows of positions that lie in a band, counted from the start of the band."""
        ends = [(max(start, band.start), min(start + self.sides[0], band.stop)) for start in self.starts[0]]
        return [slice(low - band.start, max(low, high) - band.start) for low, high in ends]

    def over_columns(
        self,
        maps: Tensor,  # float64, shape: (..., columns of positions, k)
    ) -> Tensor:
        """Sums over the columns of each column of cells, shape (..., columns of cells, k)."""
        parts = [maps[..., start : start + self.sides[1], :].sum(dim=-2) for start in self.starts[1]]
        return torch.stack(parts, dim=-2)
