"""The exact interpolant where there is one, for sweeps that go to where K is singular."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kl.errors import SingularKernelError
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.sweep.point import Context, Result


@dataclass(frozen=True, kw_only=True)
class ExactWhereSolvable(Exact):
    """The exact interpolant or, where K is singular to working precision, why there is none.

    Without one the result is `levels` = None and the `reason`.
    """

    kind: ClassVar[str] = "exact-where-solvable"

    def run(self, context: Context) -> Result:
        """Solve, and evaluate on the test set."""
        try:
            return super().run(context)
        except SingularKernelError as error:
            return {"levels": None, "reason": str(error)}
