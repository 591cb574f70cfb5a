"""Which entries of a symmetric (d, d) matrix of features are kept: all, the diagonal, or blocks of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kl.errors import InputError

KINDS = ("full", "diagonal", "blocks")


@dataclass(frozen=True)
class Structure:
    """The kept entries of a symmetric (d, d) matrix, as a tuple of tensors: its parts.

    Make one with `Structure.of`.

    Args:
        kind: "full": one part of shape (d, d); "diagonal": one part of shape (d,); "blocks": a part of shape (g, g) for
            each group of g columns.
        d: columns.
        groups: of "blocks", the columns of each group; together they are all columns, each once.

    Example:
        >>> import torch
        >>> from kl.features.structure import Structure
        >>> Structure.of([[0, 2], [1]], d=3).dense((torch.ones(2, 2), torch.full((1, 1), 5.0)))
        tensor([[1., 0., 1.],
                [0., 5., 0.],
                [1., 0., 1.]])
    """

    kind: str
    d: int
    groups: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, given: str | Structure | Sequence[Sequence[int]], d: int) -> Structure:
        """Read "full", "diagonal", or a list of groups of columns.

        Raises:
            InputError: it is none of these, or the groups are not all d columns, each once.
        """
        if isinstance(given, Structure):
            given = given.groups if given.kind == "blocks" else given.kind
        if isinstance(given, str):
            if given not in ("full", "diagonal"):
                raise InputError(f"metric must be full, diagonal or a list of groups of columns; got {given!r}")
            return cls(given, d)
        try:
            groups = tuple(tuple(int(column) for column in group) for group in given)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"metric must be full, diagonal or a list of groups of columns; got {given!r}: try [[0, 1], [2]]"
            ) from error
        named = [column for group in groups for column in group]
        if sorted(named) != list(range(d)) or not all(groups):
            wrong = sorted({each for each in named if named.count(each) > 1 or not 0 <= each < d})
            missing = sorted(set(range(d)) - set(named))
            which = (
                f"{wrong[0]} is none or there twice"
                if wrong
                else f"{missing[0]} is missing"
                if missing
                else "one is empty"
            )
            raise InputError(f"metric must have groups of all columns 0..{d - 1}, each once; got groups where {which}")
        return cls("blocks", d, groups)

    def zeros(self, like: Tensor) -> tuple[Tensor, ...]:
        """Parts of zeros, in float64."""
        return tuple(like.new_zeros(shape, dtype=torch.float64) for shape in self.shapes)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the parts."""
        if self.kind == "blocks":
            return [(len(group), len(group)) for group in self.groups]
        return [(self.d,) if self.kind == "diagonal" else (self.d, self.d)]

    def outer(
        self,
        rows: Tensor,  # shape: (r, d)
        weights: Tensor | None = None,  # shape: (r,)
    ) -> tuple[Tensor, ...]:
        """The parts of sum_r weights_r rows_r rows_r^T."""
        if self.kind == "diagonal":
            squares = rows.square()
            return (squares.sum(dim=0) if weights is None else weights @ squares,)
        weighted = rows if weights is None else weights[:, None] * rows
        if self.kind == "full":
            return (weighted.T @ rows,)
        return tuple(weighted[:, group].T @ rows[:, group] for group in map(list, self.groups))

    def dense(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole matrix, shape (d, d)."""
        if self.kind == "full":
            return parts[0].clone()
        if self.kind == "diagonal":
            return parts[0].diag()
        out = parts[0].new_zeros(self.d, self.d)
        for group, part in zip(self.groups, parts, strict=True):
            index = torch.tensor(group, device=part.device)
            out[index[:, None], index] = part
        return out

    def diagonal(self, parts: Sequence[Tensor]) -> Tensor:
        """The diagonal, shape (d,)."""
        if self.kind == "diagonal":
            return parts[0].clone()
        if self.kind == "full":
            return parts[0].diagonal().clone()
        out = parts[0].new_zeros(self.d)
        for group, part in zip(self.groups, parts, strict=True):
            out[list(group)] = part.diagonal()
        return out

    def check(self, name: str, parts: Any) -> tuple[Tensor, ...]:
        """The parts in float64, if they are finite tensors of the right shapes.

        Raises:
            InputError: they are not; the message calls them `name`.
        """
        if not isinstance(parts, list | tuple) or not all(isinstance(part, Tensor) for part in parts):
            raise InputError(f"{name} must be a list of tensors; got {type(parts).__name__}")
        if (shapes := [tuple(part.shape) for part in parts]) != self.shapes:
            raise InputError(f"{name} must have the shapes {self.shapes} for a {self.kind} metric; got {shapes}")
        if not all(part.is_floating_point() and bool(part.isfinite().all()) for part in parts):
            raise InputError(f"{name} must be finite numbers; got NaN, infinity or another type")
        return tuple(part.detach().double() for part in parts)
