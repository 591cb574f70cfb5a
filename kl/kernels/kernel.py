"""The class that every kernel extends, and sums, products and multiples of kernels.

Source of the combinations: Schoelkopf and Smola 2002, Learning with Kernels, Propositions 13.1 and 13.2.
"""

from __future__ import annotations

import operator
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import reduce
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.checks import check_positive
from kl.errors import InputError
from kl.kernels.bandwidth import median_distance
from kl.kernels.gradients import Gradients
from kl.rows.pair import Pair
from kl.rows.rows import Rows, check_finite_matrix, far_origin
from kl.rows.workspace import Workspace


class Kernel(ABC):
    """A positive semi-definite function K(x, z) on R^d.

    Kernels are frozen dataclasses: parameters validated once, compared by value, copied with `dataclasses.replace`.
    Extend `RadialKernel` for a function of |x - z|, or `GramKernel` for a function of <x, z>, |x|^2 and |z|^2, because
    each of them needs one formula. Extend this class for any other kernel, and define `_block` and `_diag`.

    Example:
        >>> import dataclasses, torch, kl
        >>> @dataclasses.dataclass(frozen=True)
        ... class Minimum(kl.Kernel):  # K(x, z) = sum_j min(x_j, z_j)
        ...     def _block(self, x, z):
        ...         return torch.minimum(x[:, None], z[None]).sum(dim=2)
        ...     def _diag(self, x):
        ...         return x.data.sum(dim=1)
        >>> Minimum()(torch.tensor([[1.0, 2.0], [3.0, 1.0]])).tolist()
        [[3.0, 2.0], [2.0, 4.0]]
    """

    name: ClassVar[str] = ""  # what users type after --kernel; empty for kernels outside kl
    aliases: ClassVar[tuple[str, ...]] = ()  # other names that users may type
    is_combination: ClassVar[bool] = False  # made of other kernels; a command line cannot name such a kernel
    shift_invariant: ClassVar[bool] = False  # whether K(x + a, z + a) = K(x, z) for every a

    def __call__(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The kernel matrix K(x_i, z_j); z is x by default.

        Args:
            x: float tensor, shape (m, d).
            z: float tensor of x's dtype, shape (p, d).

        Returns:
            Tensor of shape (m, p). If z is left out, the diagonal is exact.

        Raises:
            InputError: x or z is no finite float matrix, their widths differ, or the bandwidth is still "auto".
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
        """The row to subtract from all rows, shape (d,), so that distances keep their digits.

        For a shift-invariant kernel the row is `far_origin`; for any other kernel it is 0, because a shift would change
        the kernel values.
        """
        return far_origin(x) if self.shift_invariant else torch.zeros_like(x[0])

    def block(self, x: Rows, z: Rows, same: Tensor | None = None, workspace: Workspace | None = None) -> Tensor:
        """K(x_i, z_j), shape (m, p), for rows whose norms are known; `kl.products.blocks` calls it on every tile.

        Args:
            x: m rows.
            z: p rows.
            same: for each row of x the index of the same row in z, or any number outside 0..p-1 if z does not hold it,
                shape (m,). At these pairs the distance is exactly zero, not the rounding error of a cancellation.
            workspace: memory that the result is written to; None is new memory.
        """
        self._require_resolved()
        return self._values(Pair(x, z, same, self.uses_products(x.data.shape[1]), workspace))

    def gradients(self, x: Rows, z: Rows, same: Tensor | None = None, workspace: Workspace | None = None) -> Gradients:
        """grad_x K(x_i, z_j) for all pairs of a tile; the arguments are those of `block`.

        `kl.products.gradients` multiplies with it. A radial kernel adds exactly 0 where x_i = z_j. For a kernel that is
        not smooth there, such as the Laplacian, that is a convention: the mean over the directions from which x comes.

        Raises:
            InputError: the class does not define its gradient; the message names the method to define.
        """
        self._require_resolved()
        if not self.has_gradients:
            raise InputError(self._without_gradients())
        uses = sys.maxsize if self.is_combination else self.uses_products(x.data.shape[1])
        return self._gradients(Pair(x, z, same, uses, workspace))

    @property
    def has_gradients(self) -> bool:
        """Whether the class defines its gradient in x, which learning features needs."""
        return defined_with(type(self), "_gradients", "_values", "_block")

    def uses_products(self, d: int) -> int:
        """How many times the values for d features need the inner products or distances of a `Pair`; 0 for none."""
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
        return Sum((self, other)) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Kernel | float) -> Kernel:
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

    def _gradients(self, pair: Pair) -> Gradients:
        """grad_x K(x_i, z_j), new tensors; on equal rows the limit or, where there is none, 0."""
        raise InputError(self._without_gradients())

    def _without_gradients(self, method: str = "_gradients(self, pair)", formula: str = "its values") -> str:
        name = type(self).__name__
        return f"{name} must define {method}, the derivative of {formula}, to learn features; or choose another kernel"

    @abstractmethod
    def _diag(self, x: Rows) -> Tensor:
        """K(x_i, x_i), shape (m,)."""


def defined_with(cls: type[Kernel], method: str, *formulas: str) -> bool:
    """Whether a class has this derivative of its formulas, and not only the derivative of the formula of a parent."""
    first, *others = (
        next(i for i, each in enumerate(cls.__mro__) if name in vars(each)) for name in (method, *formulas)
    )
    return all(first <= other for other in others)


def is_ours(cls: type[Kernel]) -> bool:
    """Whether a kernel's class is one of kl's."""
    return cls.__module__.startswith("kl.kernels.")


def kernel_name(cls: type[Kernel]) -> str:
    """What configurations call a class: kl's classes by their `name`, others "package.module:Class".

    A class outside kl is not called by its `name`, because the user may have inherited or invented a `name` that leads
    to another class.
    """
    return cls.name if is_ours(cls) else f"{cls.__module__}:{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Kernel):
        return value.config()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class _Combination(Kernel):
    is_combination: ClassVar[bool] = True

    parts: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, list | tuple) or not self.parts:
            raise InputError(f"parts must be a list or tuple of kernels; got {self.parts!r}")
        flat: list[Kernel] = []
        for part in self.parts:
            _check_kernel("parts", part)
            flat.extend(part.parts if type(part) is type(self) else [part])  # (a + b) + c is a + b + c
        object.__setattr__(self, "parts", tuple(flat))

    def uses_products(self, d: int) -> int:
        """The sum of what the parts need: each part asks the pair for the inner products again."""
        return sum(part.uses_products(d) for part in self.parts)

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Whether all parts are shift-invariant."""
        return all(part.shift_invariant for part in self.parts)

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """The kernel whose parts have their "auto" bandwidths resolved on x, see `Kernel.resolve`."""
        return replace(self, parts=tuple(part.resolve(x, seed) for part in self.parts))

    @property
    def has_gradients(self) -> bool:
        """Whether all parts have gradients."""
        return all(part.has_gradients for part in self.parts)

    def _without_gradients(self, method: str = "", formula: str = "") -> str:
        return next(part._without_gradients() for part in self.parts if not part.has_gradients)

    def _require_resolved(self) -> None:
        for part in self.parts:
            part._require_resolved()


@dataclass(frozen=True)
class Sum(_Combination):
    """K_1(x, z) + K_2(x, z) + ..., usually written `k1 + k2`. All parts share the inner products.

    Args:
        parts: the kernels; sums among them are merged into this one.

    Raises:
        InputError: parts is empty or holds something that is no kernel.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, Proposition 13.1.

    Example:
        >>> from kl.kernels import Gaussian, Laplacian
        >>> Gaussian(2.0) + 0.5 * Laplacian(10.0)
        Sum(parts=(Gaussian(bandwidth=2.0), Scaled(part=Laplacian(bandwidth=10.0), scale=0.5)))
    """

    name: ClassVar[str] = "sum"

    def _values(self, pair: Pair) -> Tensor:
        return reduce(torch.Tensor.add_, (part._values(pair) for part in self.parts))

    def _gradients(self, pair: Pair) -> Gradients:
        return reduce(operator.add, (part._gradients(pair) for part in self.parts))

    def _diag(self, x: Rows) -> Tensor:
        return reduce(torch.add, (part._diag(x) for part in self.parts))


@dataclass(frozen=True)
class Product(_Combination):
    """K_1(x, z) K_2(x, z) ..., usually written `k1 * k2`. All parts share the inner products.

    Args:
        parts: the kernels; products among them are merged into this one.

    Raises:
        InputError: parts is empty or holds something that is no kernel.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, Proposition 13.2.

    Example:
        >>> from kl.kernels import Gaussian, Laplacian
        >>> Gaussian(2.0) * Laplacian(10.0)
        Product(parts=(Gaussian(bandwidth=2.0), Laplacian(bandwidth=10.0)))
    """

    name: ClassVar[str] = "product"

    def _values(self, pair: Pair) -> Tensor:
        return reduce(torch.Tensor.mul_, (part._values(pair) for part in self.parts))

    def _gradients(self, pair: Pair) -> Gradients:
        values = [part._values(pair) for part in self.parts]
        found = []
        for i, part in enumerate(self.parts):
            gradients = part._gradients(pair)
            for other in (*values[:i], *values[i + 1 :]):
                gradients.multiply_(other)
            found.append(gradients)
        return reduce(operator.add, found)

    def _diag(self, x: Rows) -> Tensor:
        return reduce(torch.mul, (part._diag(x) for part in self.parts))


@dataclass(frozen=True)
class Scaled(Kernel):
    """scale K(x, z), usually written `scale * k`.

    Args:
        part: the kernel K.
        scale: a finite number above 0; with any other number the function is not positive semi-definite.

    Raises:
        InputError: part is no kernel, or scale is out of its range.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, Proposition 13.1.

    Example:
        >>> from kl.kernels import Gaussian
        >>> 2.0 * Gaussian(1.0)
        Scaled(part=Gaussian(bandwidth=1.0), scale=2.0)
    """

    name: ClassVar[str] = "scaled"
    is_combination: ClassVar[bool] = True

    part: Kernel
    scale: float

    def __post_init__(self) -> None:
        _check_kernel("part", self.part)
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def uses_products(self, d: int) -> int:
        """What the part needs."""
        return self.part.uses_products(d)

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Whether the part is shift-invariant."""
        return self.part.shift_invariant

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """The kernel whose part has its "auto" bandwidth resolved on x, see `Kernel.resolve`."""
        return replace(self, part=self.part.resolve(x, seed))

    @property
    def has_gradients(self) -> bool:
        """Whether the part has gradients."""
        return self.part.has_gradients

    def _without_gradients(self, method: str = "", formula: str = "") -> str:
        return self.part._without_gradients()

    def _require_resolved(self) -> None:
        self.part._require_resolved()

    def _values(self, pair: Pair) -> Tensor:
        return self.part._values(pair).mul_(self.scale)

    def _gradients(self, pair: Pair) -> Gradients:
        return self.part._gradients(pair).multiply_(self.scale)

    def _diag(self, x: Rows) -> Tensor:
        return self.part._diag(x) * self.scale


def _check_kernel(name: str, value: object) -> None:
    if not isinstance(value, Kernel):
        raise InputError(f"{name} must hold kernels, such as Gaussian(1.0); got {value!r}")
