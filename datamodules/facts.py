"""Facts about a published data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """The class attribute `facts` of a data module: `kl data list` shows it, and `kl data check` compares with it."""

    n_train: int
    n_test: int
    num_features: int
    num_classes: int
    origin: str
    """Who published the set, or how it is made."""
    class_counts: tuple[int, ...] = ()
    """Training rows of each class; empty if unknown."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """MD5 of the unpacked files, by name."""
