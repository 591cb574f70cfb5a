"""Interpolants in one dimension of a sinusoid, with and without one target far off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.sweep.point import Context, Point, Result


@dataclass(frozen=True, kw_only=True)
class Outlier(Point):
    """y_i = sin(2 pi x_i) at x_i = i / (n - 1), and the same targets with `size` added to the one in the middle.

    Solved directly in float64. The result has `outlier` (its x), `x` (the training points), `grid` (`FINE` points per
    spacing); and `clean` and `outlier_fit`, each with y (targets), values (on the grid), rkhs_norm and
    relative_residual.
    """

    kind: ClassVar[str] = "outlier"
    FINE: ClassVar[int] = 50

    kernel: KernelSpec
    n: int = 41
    size: float = 3.0

    def run(self, context: Context) -> Result:
        """Solve both with one matrix."""
        import torch

        import kl
        from kl.rkhs import evaluate

        x = torch.linspace(0, 1, self.n, dtype=torch.float64)[:, None]
        grid = torch.linspace(0, 1, self.FINE * (self.n - 1) + 1, dtype=torch.float64)[:, None]
        middle = self.n // 2
        clean = torch.sin(2 * torch.pi * x)
        y = torch.cat([clean, clean], dim=1)
        y[middle, 1] += self.size
        kernel = self.kernel.build()
        solved = kl.interpolate(kernel, x, y, memory=context.memory, solver="direct")
        values = evaluate(kernel, x, solved.alpha, grid)
        residuals = (solved.fitted - y).norm(dim=0) / y.norm(dim=0)
        fits = [
            {
                "y": y[:, i].tolist(),
                "values": values[:, i].tolist(),
                "rkhs_norm": float(solved.rkhs_norm_per_class[i]),
                "relative_residual": float(residuals[i]),
            }
            for i in range(2)
        ]
        return {
            "x": x.flatten().tolist(),
            "grid": grid.flatten().tolist(),
            "outlier": float(x[middle]),
            "clean": fits[0],
            "outlier_fit": fits[1],
            "solver": solved.solver,
            "jitter": solved.jitter,
        }

    def describe(self) -> str:
        """The kernel, n and the outlier."""
        return f"sinusoid at {self.n} points with an outlier of {self.size:g}, {self.kernel}"

    @property
    def seconds(self) -> float:
        """A small matrix."""
        return 0.05
