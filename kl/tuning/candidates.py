"""The kernels that are compared: each at every bandwidth, all bandwidths resolved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from kl.checks import check_positive
from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.kernels.registry import build_kernel

POWERS = range(-3, 5)  # of 2, times the median distance: the bandwidths of "auto"


@dataclass(frozen=True)
class Candidates:
    """Kernels to compare, as the caller named them."""

    kernels: tuple[Kernel, ...]
    """Kernels whose bandwidth may be "auto"."""
    bandwidths: tuple[float, ...] | None
    """Bandwidths of the kernels that have "auto"; None is `POWERS`."""

    @classmethod
    def of(cls, kernels: Sequence[str | Kernel] | str | Kernel, bandwidths: Sequence[float] | str) -> Candidates:
        """Check and build them.

        Raises:
            InputError: a list is empty, a kernel is unknown, or a bandwidth is no number above 0.
        """
        named = [kernels] if isinstance(kernels, str | Kernel) else list(kernels)
        if not named:
            raise InputError('kernels must name one kernel at least; got none: try kernels=("laplacian", "gaussian")')
        built = tuple(dict.fromkeys(build_kernel(each) for each in named))
        if isinstance(bandwidths, str):
            if bandwidths != "auto":
                raise InputError(f'bandwidths must be "auto" or a list of numbers; got {bandwidths!r}: try "auto"')
            return cls(built, None)
        try:
            values = [check_positive("bandwidths", each, remedy="leave it out, or give auto") for each in bandwidths]
        except TypeError as error:
            raise InputError(f'bandwidths must be "auto" or a list of numbers; got {bandwidths!r}') from error
        if not values:
            raise InputError('bandwidths must hold one number at least; got none: try "auto"')
        return cls(built, tuple(sorted(set(values))))

    def resolved(
        self,
        x: Tensor,  # shape: (n, d)
        seed: int,
    ) -> list[Kernel]:
        """Every kernel at every bandwidth; a kernel without a bandwidth, or with a number for it, is there once.

        Raises:
            InputError: "auto" is asked for, but most rows are equal.
        """
        if all(getattr(each, "bandwidth", None) != "auto" for each in self.kernels):
            return [each.resolve(x, seed) for each in self.kernels]  # parts of sums may be "auto"
        found: dict[Kernel, None] = {}
        for kernel in self.kernels:
            if getattr(kernel, "bandwidth", None) == "auto":
                values = self.bandwidths or self._multiples(kernel, x, seed)
                found |= {replace(kernel, bandwidth=value): None for value in values}  # type: ignore[type-var]
            else:
                found[kernel.resolve(x, seed)] = None
        return list(found)

    @staticmethod
    def _multiples(kernel: Kernel, x: Tensor, seed: int) -> tuple[float, ...]:
        """Of the median distance, in the norm that the kernel itself takes for "auto"."""
        try:
            median: float = kernel.resolve(x, seed).bandwidth  # type: ignore[attr-defined]
        except InputError as error:
            raise InputError(
                'bandwidths="auto" needs rows that differ, but the median distance of the rows of x is 0: give '
                "bandwidths as numbers"
            ) from error
        return tuple(math.ldexp(median, power) for power in POWERS)
