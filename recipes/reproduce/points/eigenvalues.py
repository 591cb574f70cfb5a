"""The eigenvalues of a kernel matrix, and how near it is to the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result


@dataclass(frozen=True, kw_only=True)
class Eigenvalues(Point):
    """The spectrum of K(X, X).

    The result has `eigenvalues` (of K, descending), `mean_off_diagonal`, and `identity_distance`: |K - I|_F / |I|_F.
    """

    kind: ClassVar[str] = "eigenvalues"

    sample: Sample
    kernel: KernelSpec

    def run(self, context: Context) -> Result:
        """Decompose, in float64 on the CPU."""
        import torch

        from kl import Rows
        from kl.products.blocks import symmetric_kernel_matrix

        data = self.sample.datamodule(context)
        matrix = symmetric_kernel_matrix(self.kernel.build(), Rows.of(data.train_set.x).double())
        n = len(matrix)
        values = torch.linalg.eigvalsh(matrix).flip(0)
        off = (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
        identity = (matrix - torch.eye(n, dtype=matrix.dtype)).norm() / n**0.5
        return {
            "eigenvalues": values.tolist(),
            "mean_off_diagonal": float(off),
            "identity_distance": float(identity),
            "n": n,
            "data_source": data.source,
        }

    def describe(self) -> str:
        """The draw and the kernel."""
        return f"eigenvalues, {self.sample}, {self.kernel}"

    @property
    def seconds(self) -> float:
        """An eigen-decomposition."""
        return 0.3 + 5 * (self.sample.rows / 2000) ** 3
