"""A kernel that does not tell an image from its mirror image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from kl.checks import check_count
from kl.errors import InputError
from kl.kernels.gram import GramKernel
from kl.kernels.kernel import Kernel
from kl.rows.flip import flipped
from kl.rows.pair import Pair
from kl.rows.rows import Rows
from kl.rows.workspace import rows_at_a_time


@dataclass(frozen=True)
class Mirrored(Kernel):
    """(K(x, z) + K(x, T z)) / 2, where T reverses axes of a row and K(T x, T z) = K(x, z).

    With pixels of shape (channels, height, width) and axes (2,), T z is the left-right mirror image of z. A machine
    with this kernel on n images is the machine with K on the n images and their n mirror images with the same labels:
    the interpolant of least norm of all 2 n rows has equal weights for an image and its mirror image, so that it is
    sum_i a_i (K(x, x_i) + K(x, T x_i)) / 2. So has the minimiser of the squared errors and r |f|^2, whose ridge is r/2
    here. The matrix has n^2 entries instead of 4 n^2.

    Args:
        part: the kernel K, one of <x, z>, |x|^2 and |z|^2 (`GramKernel`), for which K(T x, T z) = K(x, z).
        shape: the shape of a row, whose product is d.
        axes: the axes of `shape` that T reverses.

    Raises:
        InputError: part is no such kernel, or shape or axes are none.

    Source: Haasdonk and Burkhardt 2007, Invariant kernel functions for pattern analysis and machine learning (kernels
    integrated over transformations).

    Example:
        >>> import torch
        >>> from kl.kernels import Gaussian
        >>> kernel = Mirrored(Gaussian(1.0), shape=(1, 1, 2), axes=(2,))
        >>> kernel(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.6839, 0.6839],
                [0.6839, 0.6839]])
    """

    name: ClassVar[str] = "mirrored"
    is_combination: ClassVar[bool] = True

    part: GramKernel
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.part, GramKernel):
            raise InputError(
                "part must be a kernel of distances or inner products, such as Gaussian(1.0), whose value is the same "
                f"for two mirror images; got {self.part!r}"
            )
        for name in ("shape", "axes"):
            if not isinstance(getattr(self, name), list | tuple):
                raise InputError(f"{name} must be a tuple of whole numbers; got {getattr(self, name)!r}")
        shape = tuple(check_count("each of shape", side) for side in self.shape)
        axes = tuple(self.axes)
        if (
            not axes
            or len(set(axes)) < len(axes)
            or not all(type(axis) is int and 0 <= axis < len(shape) for axis in axes)
        ):
            raise InputError(f"axes must be different whole numbers from 0 to {len(shape) - 1}; got {self.axes!r}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "axes", axes)

    def _require_width(self, d: int) -> None:
        if d != math.prod(self.shape):
            raise InputError(
                f"rows of shape {self.shape} have {math.prod(self.shape)} features; got {d}: give the rows' shape"
            )

    @property
    def bandwidth(self) -> float | str | None:
        """The part's bandwidth; None if it has none."""
        return getattr(self.part, "bandwidth", None)

    def uses_products(self, d: int) -> int:
        """What the part needs."""
        return self.part.uses_products(d)

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """The kernel whose part has its "auto" bandwidth resolved on x, see `Kernel.resolve`."""
        return replace(self, part=self.part.resolve(x, seed))  # type: ignore[arg-type]  # of the part's own class

    @property
    def has_gradients(self) -> bool:
        """False: learning features from it is not defined."""
        return False

    def _without_gradients(self, method: str = "", formula: str = "") -> str:
        return "a mirrored kernel has no gradient to learn features from: leave the mirror images out"

    def _require_resolved(self) -> None:
        self.part._require_resolved()

    def _values(self, pair: Pair) -> Tensor:
        d = pair.z.data.shape[1]
        self._require_width(d)
        x, z = pair.x, pair.z
        if len(x) < len(z):  # K(T x, z) = K(x, T z), and fewer rows are faster to reverse
            x = x.flipped(self.shape, self.axes)
        else:
            z = z.flipped(self.shape, self.axes)
        other = Pair(x, z, uses=self.part.uses_products(d), plain=pair.plain)
        found = self.part._values(pair)
        if pair.plain:
            return (found + self.part._values(other)) / 2
        found.add_(self.part._values(other)).div_(2)
        return pair.with_exact(found, self._diag(pair.x)) if pair.has_same else found

    def _diag(self, x: Rows) -> Tensor:
        self._require_width(x.data.shape[1])
        sq = x.sq_norm[:, None]
        inner = torch.cat([self._inner(part.double()) for part in x.data.split(rows_at_a_time(x.data.shape[1]))])
        return (self.part._diag(x) + self.part._evaluate(inner.to(x.dtype)[:, None], sq, sq).squeeze(1)).div_(2)

    def _inner(self, x: Tensor) -> Tensor:
        """<x_i, T x_i>, shape (m,)."""
        return (x * flipped(x, self.shape, self.axes)).sum(dim=1)
