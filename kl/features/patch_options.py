"""The options of patch features, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from kl.checks import check_count, check_count_or_none, check_one_of, check_positive, check_seed, plain
from kl.errors import InputError
from kl.system.memory import parse_memory


@dataclass(eq=False)
class PatchOptions:
    """How patch features are learnt and computed; `kl.Patches`, which has them, describes each.

    Raises:
        InputError: an option is out of its range.
    """

    count: int = 1024
    size: int = 6
    whitening: float = 0.1
    dictionary: str = "random"
    mirrored: bool = False
    encoding: str = "soft"
    active: float = 0.3
    threshold: float = 0.15
    pool: int | None = None
    stride: int | None = None
    normalize: bool = True
    seed: int = 0
    memory: int | str = "256MB"

    def __post_init__(self) -> None:
        for each in fields(self):
            setattr(self, each.name, plain(getattr(self, each.name)))
        check_count("count", self.count)
        check_count("size", self.size)
        if self.size == 1:
            raise InputError("size must be at least 2 pixels, because a patch of one pixel has no contrast; got 1")
        self.whitening = check_positive("whitening", self.whitening, remedy="try 0.1")
        check_one_of("dictionary", self.dictionary, ("random", "kmeans"))
        check_one_of("encoding", self.encoding, ("count", "soft", "rectified"))
        self.active = check_positive("active", self.active, remedy="try 0.3")
        self.threshold = _check_below_one("threshold", self.threshold)
        if self.active >= 1:
            raise InputError(f"active must be a share of the responses below 1; got {self.active}: try 0.3")
        check_count_or_none("pool", self.pool, "half of the positions")
        check_count_or_none("stride", self.stride, "2 x 2 cells")
        for name in ("mirrored", "normalize"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False; got {getattr(self, name)!r}")
        check_seed("seed", self.seed)
        parse_memory(self.memory)

    @property
    def entries(self) -> int:
        """Patches of the dictionary, with mirror images."""
        return self.count * (2 if self.mirrored else 1)

    @property
    def signs(self) -> int:
        """Features of a cell and a patch of the dictionary."""
        return 2 if self.encoding == "rectified" else 1


def _check_below_one(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    raise InputError(f"{name} must be a number from 0 to below 1; got {value!r}: try 0.15")
