"""A point of a sweep: one computation whose fields say all that its result depends on."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

Result = dict[str, Any]
"""The result of a point: plain values that JSON can hold."""


@dataclass(frozen=True)
class Context:
    """Where points are computed, which is not part of their keys.

    It changes seconds and rounding, and the batch, step size and rank that EigenPro chooses. Therefore epochs to a goal
    and overfitted norms differ between a CPU and a GPU, and with the memory. Records name the machine.
    """

    data_dir: str | None = None
    accelerator: str = "auto"
    memory: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Point(ABC):
    """One computation. Points with equal fields are the same point, in any experiment.

    A subclass is a frozen dataclass of plain values (and of dataclasses of them), and defines `run`, `describe` and
    `seconds`.
    """

    kind: ClassVar[str]
    revision: ClassVar[int] = 1
    """Part of the key; raise it when the computation changes, so that old results are not taken for new ones."""

    @abstractmethod
    def run(self, context: Context) -> Result:
        """Compute the result.

        Raises:
            KLError: the result cannot be computed; the message says why.
        """

    @abstractmethod
    def describe(self) -> str:
        """The point on one line, for people."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """A guess of its seconds on two cores; estimates are corrected by the points done before."""

    def settings(self) -> dict[str, Any]:
        """The fields, the kind and the revision, as JSON values."""
        return json.loads(json.dumps({"kind": self.kind, "revision": self.revision, **asdict(self)}))

    @property
    def key(self) -> str:
        """A name of the point, the same in every process."""
        return f"{self.kind}-{hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:16]}"


Results = Mapping[Point, Result]
"""Results by their points."""
