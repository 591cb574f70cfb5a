"""The exact interpolant if there is one, for sweeps in which K may be singular."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kl.errors import SingularKernelError
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.sweep.point import Context, Result


@dataclass(frozen=True, kw_only=True)
class ExactWhereSolvable(Exact):
    """The exact interpolant or, if K is singular to working precision, the reason why there is none.

    Without an interpolant the result is `levels` = None and the `reason`.
    """

    kind: ClassVar[str] = "exact-where-solvable"

    def run(self, context: Context) -> Result:
        """Solve, and evaluate on the test set."""
        try:
            return super().run(context)
        except SingularKernelError as error:
            return {"levels": None, "reason": str(error)}
