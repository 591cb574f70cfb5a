"""Interpolants whose kernel learns its metric, on labels some of which are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result


@dataclass(frozen=True, kw_only=True)
class Learned(Point):
    """Rounds of a recursive feature machine of ridge 0 on the first four fifths of a draw; the rest choose the round.

    All labels of the draw have the noise, also those that choose. The result has `rounds`, of which the first is the
    plain kernel, each with train_error, test_error, test_error_noisy (fractions; against clean test labels, and against
    test labels noised like the training labels), rkhs_norm (in the space of that round's kernel) and held_out_mse;
    `chosen`, the round of least held_out_mse; and n (of the rows that are fitted), d, c, data_source. It is computed on
    the CPU.
    """

    kind: ClassVar[str] = "learned"

    sample: Sample
    kernel: KernelSpec
    noise: float
    rounds: int

    def run(self, context: Context) -> Result:
        """Learn the metric for all rounds, and test each."""

        from kl.features.chain import evaluate_solution
        from kl.features.learning import Choice, FeatureLearning
        from kl.metrics import error
        from kl.solve import Problem

        data = self.sample.datamodule(context, self.noise)
        x, y, test = data.train_set.x, data.train_set.y.double(), data.require_test_set()
        n = len(x) * 4 // 5
        learning = FeatureLearning(
            Problem.of(x[:n], y[:n]),
            self.kernel.build(),
            ridge=0.0,
            memory=context.memory,
            seed=self.sample.seed,
            choice=Choice(self.rounds, patience=self.rounds),
            held_out=Problem.of(x[n:], y[n:]),
        )
        rounds = []
        while not learning.is_finished and (fit := learning.step()) is not None:
            scores = evaluate_solution(fit.solution, test.x)
            rounds.append(
                {
                    "train_error": error(evaluate_solution(fit.solution, x[:n]), y[:n]),
                    "test_error": error(scores, test.y),
                    "test_error_noisy": error(scores, test.y if test.y_noisy is None else test.y_noisy),
                    "rkhs_norm": fit.solution.rkhs_norm,
                    "held_out_mse": learning.scores[-1],
                }
            )
        chosen = learning.scores.index(min(learning.scores))
        facts = {"n": n, "d": x.shape[1], "c": y.shape[1], "data_source": data.source}
        return {"rounds": rounds, "chosen": chosen, **facts}

    def describe(self) -> str:
        """The draw and the noise."""
        return f"recursive feature machine that interpolates, {self.sample}, label noise {self.noise:.0%}"

    @property
    def seconds(self) -> float:
        """A factorisation and an average of gradients a round."""
        n = self.sample.rows
        return 0.5 + (self.rounds + 1) * (1e-6 * n**2 + n**3 / 1e11)
