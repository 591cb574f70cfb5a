"""A recursive feature machine on a function of a few directions: does it find them, and does that help?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    from torch import Tensor

RANK = {"single-index": 1, "product": 2, "parity": 3}
"""The directions of each target."""


@dataclass(frozen=True, kw_only=True)
class Directions(Point):
    """y = g(u) with u = U^T x, x normal in R^d, and U of shape (d, k) with random orthonormal columns.

    The targets g are "single-index", sin(2 u_1); "product", u_1 u_2; and "parity", tanh(3 u_1) tanh(3 u_2) tanh(3 u_3),
    a smooth product of three signs. A quarter as many rows as n, drawn beside them, choose the round.

    The result has `rounds`, of which the first is the plain kernel, each with test_error (the mean squared error on
    2000 rows, divided by the variance of their targets), held_out_mse, and sine (of the largest principal angle between
    the k leading eigenvectors of the metric and U; None for the plain kernel); and `chosen`, the round of least
    held_out_mse. It is computed on the CPU.
    """

    kind: ClassVar[str] = "directions"
    TEST_ROWS: ClassVar[int] = 2000

    target: str
    n: int
    d: int
    kernel: KernelSpec
    ridge: float
    rounds: int
    seed: int

    def run(self, context: Context) -> Result:
        """Draw the rows, and learn the metric for all rounds."""
        import torch

        from kl.features.chain import evaluate_solution
        from kl.features.learning import Choice, FeatureLearning
        from kl.solve import Problem

        generator = torch.Generator().manual_seed(self.seed)
        u = torch.linalg.qr(torch.randn(self.d, RANK[self.target], generator=generator, dtype=torch.float64)).Q
        x = torch.randn(self.n + self.n // 4 + self.TEST_ROWS, self.d, generator=generator)
        y = target_of(self.target, x.double() @ u)[:, None]
        train, held, test = (
            slice(self.n),
            slice(self.n, self.n + self.n // 4),
            slice(self.n + self.n // 4, None),
        )
        learning = FeatureLearning(
            Problem.of(x[train], y[train]),
            self.kernel.build(),
            ridge=self.ridge,
            memory=context.memory,
            seed=self.seed,
            choice=Choice(self.rounds, patience=self.rounds),
            held_out=Problem.of(x[held], y[held]),
        )
        rounds = []
        while not learning.is_finished and (fit := learning.step()) is not None:
            square = (evaluate_solution(fit.solution, x[test]) - y[test]).square().mean()
            rounds.append(
                {
                    "test_error": float(square / y[test].var(correction=0)),
                    "held_out_mse": learning.scores[-1],
                    "sine": None if fit.metric is None else largest_sine(fit.metric.dense(), u),
                }
            )
        return {"rounds": rounds, "chosen": learning.scores.index(min(learning.scores))}

    def describe(self) -> str:
        """The target and the draw."""
        return f"recursive feature machine, {self.target}, n={self.n}, d={self.d}, seed {self.seed}"

    @property
    def seconds(self) -> float:
        """A factorisation and an average of gradients a round."""
        return 0.3 + (self.rounds + 1) * (4e-8 * self.n**2 + self.n**3 / 1e11)


def target_of(
    name: str,
    u: Tensor,  # shape: (n, k)
) -> Tensor:
    """g(u), shape (n,)."""
    if name == "single-index":
        return (2 * u[:, 0]).sin()
    return u.prod(dim=1) if name == "product" else (3 * u).tanh().prod(dim=1)


def largest_sine(
    metric: Tensor,  # symmetric, shape: (d, d)
    directions: Tensor,  # orthonormal columns, shape: (d, k)
) -> float:
    """The sine of the largest principal angle between the k leading eigenvectors of a metric and k directions.

    It is the spectral norm of (I - V V^T) U, which is accurate for small angles too.
    """
    import torch

    leading = torch.linalg.eigh(metric).eigenvectors[:, -directions.shape[1] :]
    return float(torch.linalg.matrix_norm(directions - leading @ (leading.T @ directions), ord=2))
