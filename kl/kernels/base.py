"""What a kernel is: the class every kernel extends, and the two families that need only a formula."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from kl.errors import InputError
from kl.kernels.bandwidth import median_distance
from kl.pair import Pair
from kl.rows import Rows, check_finite_matrix, far_origin
from kl.workspace import Workspace

Bandwidth = float | Literal["auto"]

# Up to this many features distances are summed coordinate by coordinate: as fast as by inner products, and without
# their cancellation, which smooth kernels of few features amplify.
DIRECT_FEATURES = 16


class Kernel(ABC):
    """A positive semi-definite function K(x, z) on R^d.

    Kernels are frozen dataclasses: parameters validated once, compared by value, copied with
    `dataclasses.replace`. Most new kernels should extend `RadialKernel` or `GramKernel`, which need one
    formula. One that is no function of <x, z>, |x|^2 and |z|^2 extends this class and gives `_block` and
    `_diag`.
    """

    name: ClassVar[str] = ""  # what users type after --kernel; empty for kernels outside kl
    shift_invariant: ClassVar[bool] = False  # whether K(x + a, z + a) = K(x, z) for every a

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """K(x_i, z_j) as a matrix, z = x by default.

        Args:
            x: float tensor, shape (m, d).
            z: float tensor of x's dtype, shape (p, d).

        Returns:
            Tensor of shape (m, p). With z left out the diagonal is exact.

        Raises:
            InputError: x or z is no finite float matrix, their widths differ, or the bandwidth is still
                "auto".
        """
        rows = Rows.of(check_finite_matrix("x", x))
        if z is None:
            return self.block(rows, rows, same=torch.arange(len(rows), device=x.device))
        check_finite_matrix("z", z)
        if z.shape[1] != x.shape[1] or z.dtype != x.dtype:
            raise InputError(
                f"z must have x's columns and dtype; got {z.shape[1]} {z.dtype} and {x.shape[1]} {x.dtype}"
            )
        return self.block(rows, Rows.of(z))

    def diag(self, x: Tensor) -> Tensor:
        """K(x_i, x_i) for every row of x, shape (m,)."""
        self._require_resolved()
        return self._diag(Rows.of(check_finite_matrix("x", x)))

    def block_diag(self, x: Rows) -> Tensor:
        """K(x_i, x_i) for rows whose norms are known, shape (n,), in the dtype of the kernel values."""
        self._require_resolved()
        return self._diag(x)

    def origin_of(self, x: Tensor) -> Tensor:
        """What to subtract from all rows, shape (d,): `far_origin`, and 0 where that would change the values."""
        return far_origin(x) if self.shift_invariant else torch.zeros_like(x[0])

    def block(self, x: Rows, z: Rows, same: Tensor | None = None, workspace: Workspace | None = None) -> Tensor:
        """K(x_i, z_j), shape (m, p), for rows whose norms are known: what the engine calls on every tile.

        `same[i]` is the row of z that x_i is, or any number outside 0..p-1; there the distance is exactly zero rather
        than the rounding error of a cancellation. The result lies in `workspace` where one is given.
        """
        self._require_resolved()
        return self._values(Pair(x, z, same, self.uses_products(x.data.shape[1]), workspace))

    def uses_products(self, d: int) -> int:
        """How often the values for d features need the inner products or distances of a `Pair`; 0 for none."""
        return 0

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """This kernel with `bandwidth="auto"` replaced by the median distance of a seeded subsample of x."""
        if getattr(self, "bandwidth", None) == "auto":
            bandwidth = median_distance(check_finite_matrix("x", x), seed=seed)
            return replace(self, bandwidth=bandwidth)  # type: ignore[type-var]
        return self

    def config(self) -> dict[str, Any]:
        """Plain str, numbers, lists and dicts from which `kernel_from_config` makes an equal kernel.

        Raises:
            InputError: the class is no dataclass, so its parameters are unknown.
        """
        if not is_dataclass(self):
            raise InputError(
                f"{type(self).__name__} must be a frozen dataclass: write @dataclass(frozen=True) above the class"
            )
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"kernel": kernel_name(type(self)), **values}

    def __add__(self, other: Kernel) -> Kernel:
        from kl.kernels.composite import Sum  # not at the top: composite extends this module

        return Sum((self, other)) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Kernel | float) -> Kernel:
        from kl.kernels.composite import Product, Scaled

        if isinstance(other, Kernel):
            return Product((self, other))
        return Scaled(self, other) if isinstance(other, Real) else NotImplemented

    __rmul__ = __mul__

    def _require_resolved(self) -> None:
        if getattr(self, "bandwidth", None) == "auto":
            raise InputError(
                'bandwidth is still "auto": call kernel.resolve(x) with the training features first, or give a number'
            )

    def _values(self, pair: Pair) -> Tensor:
        return self._block(pair.x.data.to(pair.x.dtype), pair.z.data.to(pair.x.dtype))

    def _block(self, x: Tensor, z: Tensor) -> Tensor:
        """K(x, z), a new tensor of shape (m, p), from feature matrices of shapes (m, d) and (p, d)."""
        raise TypeError(f"{type(self).__name__} must define _block (or extend GramKernel or RadialKernel)")

    @abstractmethod
    def _diag(self, x: Rows) -> Tensor:
        """K(x_i, x_i), shape (m,)."""


class GramKernel(Kernel):
    """A kernel that is a function of <x, z>, |x|^2 and |z|^2. A subclass gives `_evaluate`."""

    def uses_products(self, d: int) -> int:
        """See `Kernel.uses_products`."""
        return 1

    @abstractmethod
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        """Kernel values from inner products.

        Args:
            gram: <x_i, z_j>, shape (m, p); may be overwritten, and should be: the tile is in cache.
            x_sq: |x_i|^2, shape (m, 1).
            z_sq: |z_j|^2, shape (1, p).

        Returns:
            Shape (m, p); the caller may overwrite it, as it may `gram`.
        """

    def _values(self, pair: Pair) -> Tensor:
        return self._evaluate(pair.inner(), pair.x.sq_norm[:, None], pair.z.sq_norm[None, :])

    def _diag(self, x: Rows) -> Tensor:
        sq = x.sq_norm[:, None]
        return self._evaluate(sq.clone(), sq, sq).squeeze(1)


@dataclass(frozen=True)
class RadialKernel(GramKernel):
    """A kernel that is a function of the squared Euclidean distance |x - z|^2. A subclass gives `_profile`.

    Args:
        bandwidth: length scale in the units of the features; "auto" is the median pairwise distance of the
            data.

    Raises:
        InputError: the bandwidth is neither "auto" nor a number above 0 whose square float32 can hold.
    """

    shift_invariant: ClassVar[bool] = True

    bandwidth: Bandwidth = "auto"

    def __post_init__(self) -> None:
        if self.bandwidth != "auto":
            bandwidth = check_positive("bandwidth", self.bandwidth, 'or "auto"')
            if not 1e-15 <= bandwidth <= 1e15:
                raise InputError(
                    f"bandwidth must lie between 1e-15 and 1e15, so that float32 holds its square; "
                    f"got {bandwidth!r}: rescale the features"
                )
            object.__setattr__(self, "bandwidth", bandwidth)

    @property
    def _bandwidth(self) -> float:
        self._require_resolved()
        assert not isinstance(self.bandwidth, str)
        return self.bandwidth

    @abstractmethod
    def _profile(self, sq_dist: Tensor) -> Tensor:
        """Kernel values from squared distances of shape (m, p), which may be overwritten."""

    def uses_products(self, d: int) -> int:
        """See `Kernel.uses_products`; distances between rows of few features are summed directly."""
        return int(d > DIRECT_FEATURES)

    def _values(self, pair: Pair) -> Tensor:
        x, z = pair.x, pair.z
        if pair.plain:
            return self._plain_values(pair)
        if self.uses_products(x.data.shape[1]):
            return self._profile(pair.sq_dist())
        distance = torch.cdist(x.data.to(x.dtype), z.data.to(x.dtype), compute_mode="donot_use_mm_for_euclid_dist")
        return self._profile(distance.square_())

    def _plain_values(self, pair: Pair) -> Tensor:
        if self.uses_products(pair.x.data.shape[1]):
            sq_dist = pair.sq_dist()
        else:
            columns = zip(pair.x.data.unbind(1), pair.z.data.unbind(1), strict=True)
            sq_dist = sum((x[:, None] - z[None, :]).square() for x, z in columns)  # type: ignore[assignment]
        # At distance 0 the root has an infinite slope, which would make the gradient NaN.
        apart = sq_dist > 0
        values = self._profile(torch.where(apart, sq_dist, 1.0))
        return torch.where(apart, values, self._profile(sq_dist.new_zeros(1, 1)))

    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return self._profile(gram.mul_(-2).add_(x_sq).add_(z_sq).clamp_(min=0))


def is_ours(cls: type[Kernel]) -> bool:
    """Whether a kernel's class is one of kl's."""
    return cls.__module__.startswith("kl.kernels.")


def kernel_name(cls: type[Kernel]) -> str:
    """What configurations call a class: kl's by their names, others "package.module:Class".

    A user's class may inherit or invent a `name`, which would not lead back to that class.
    """
    return cls.name if is_ours(cls) else f"{cls.__module__}:{cls.__qualname__}"


def check_positive(name: str, value: Any, more: str = "") -> float:
    """`value` as a float; InputError unless it is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise InputError(f"{name} must be a finite number above 0 {more}".rstrip() + f"; got {value!r}")
    return float(value)  # numpy's floats would not load from a checkpoint with weights_only=True


def check_not_negative(name: str, value: Any) -> float:
    """`value` as a float; InputError unless it is a finite number, 0 or above."""
    if not _is_finite(value) or value < 0:
        raise InputError(f"{name} must be a finite number, 0 or above; got {value!r}")
    return float(value)


def check_one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`; InputError unless it is one of those allowed."""
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def check_count(name: str, value: Any) -> int:
    """`value` as an int; InputError unless it is a whole number, 1 or above."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number, 1 or above; got {value!r}")
    return int(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Kernel):
        return value.config()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
