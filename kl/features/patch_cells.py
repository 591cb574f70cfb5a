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

    def within(
        self,
        places: slice,  # counted row by row
    ) -> tuple[slice, Tensor]:
        """The cells that hold some of the positions, perhaps with others between, and 1 for each position of a cell.

        Returns:
            The cells' numbers, and an int8 matrix, 0 or 1, shape (these cells, positions).
        """
        place = torch.arange(places.start, places.stop)
        rows, columns = (
            (at >= torch.tensor(starts)[:, None]) & (at < torch.tensor(starts)[:, None] + side)
            for at, starts, side in zip(
                (place // self.positions[1], place % self.positions[1]), self.starts, self.sides, strict=True
            )
        )
        matrix = (rows[:, None] & columns[None]).flatten(0, 1)
        found = matrix.any(dim=1).nonzero()[:, 0]
        if not len(found):
            return slice(0, 0), matrix[:0].to(torch.int8)
        numbers = slice(int(found[0]), int(found[-1]) + 1)
        return numbers, matrix[numbers].to(torch.int8)
