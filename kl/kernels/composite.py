"""Sums, products and positive multiples of kernels, which are kernels again.

Source: Schoelkopf and Smola 2002, Learning with Kernels, Propositions 13.1 and 13.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from kl.errors import InputError
from kl.kernels.base import Kernel, check_positive
from kl.pair import Pair
from kl.rows import Rows


@dataclass(frozen=True)
class _Combination(Kernel):
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
        """See `Kernel.uses_products`: the sum over the parts."""
        return sum(part.uses_products(d) for part in self.parts)

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Whether all parts are."""
        return all(part.shift_invariant for part in self.parts)

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """See `Kernel.resolve`."""
        return replace(self, parts=tuple(part.resolve(x, seed) for part in self.parts))

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

    Source: Schoelkopf and Smola 2002, Proposition 13.1.

    Example:
        >>> from kl.kernels import Gaussian, Laplacian
        >>> Gaussian(2.0) + 0.5 * Laplacian(10.0)
        Sum(parts=(Gaussian(bandwidth=2.0), Scaled(part=Laplacian(bandwidth=10.0), scale=0.5)))
    """

    name: ClassVar[str] = "sum"

    def _values(self, pair: Pair) -> Tensor:
        return reduce(torch.Tensor.add_, (part._values(pair) for part in self.parts))

    def _diag(self, x: Rows) -> Tensor:
        return reduce(torch.add, (part._diag(x) for part in self.parts))


@dataclass(frozen=True)
class Product(_Combination):
    """K_1(x, z) K_2(x, z) ..., usually written `k1 * k2`. All parts share the inner products.

    Args:
        parts: the kernels; products among them are merged into this one.

    Raises:
        InputError: parts is empty or holds something that is no kernel.

    Source: Schoelkopf and Smola 2002, Proposition 13.2.

    Example:
        >>> from kl.kernels import Gaussian, Laplacian
        >>> Gaussian(2.0) * Laplacian(10.0)
        Product(parts=(Gaussian(bandwidth=2.0), Laplacian(bandwidth=10.0)))
    """

    name: ClassVar[str] = "product"

    def _values(self, pair: Pair) -> Tensor:
        return reduce(torch.Tensor.mul_, (part._values(pair) for part in self.parts))

    def _diag(self, x: Rows) -> Tensor:
        return reduce(torch.mul, (part._diag(x) for part in self.parts))


@dataclass(frozen=True)
class Scaled(Kernel):
    """scale K(x, z), usually written `scale * k`.

    Args:
        part: the kernel.
        scale: a finite number above 0; with another the function would not be positive semi-definite.

    Raises:
        InputError: part is no kernel, or scale is out of its range.

    Source: Schoelkopf and Smola 2002, Proposition 13.1.

    Example:
        >>> from kl.kernels import Gaussian
        >>> 2.0 * Gaussian(1.0)
        Scaled(part=Gaussian(bandwidth=1.0), scale=2.0)
    """

    name: ClassVar[str] = "scaled"

    part: Kernel
    scale: float

    def __post_init__(self) -> None:
        _check_kernel("part", self.part)
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def uses_products(self, d: int) -> int:
        """See `Kernel.uses_products`."""
        return self.part.uses_products(d)

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Whether the part is."""
        return self.part.shift_invariant

    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        """See `Kernel.resolve`."""
        return replace(self, part=self.part.resolve(x, seed))

    def _require_resolved(self) -> None:
        self.part._require_resolved()

    def _values(self, pair: Pair) -> Tensor:
        return self.part._values(pair).mul_(self.scale)

    def _diag(self, x: Rows) -> Tensor:
        return self.part._diag(x) * self.scale


def _check_kernel(name: str, value: object) -> None:
    if not isinstance(value, Kernel):
        raise InputError(f"{name} must hold kernels, such as Gaussian(1.0); got {value!r}")
