"""A general kernel model trained by EigenPro 3 or 4, with the metrics of every epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.training import train
from recipes.reproduce.sweep.point import Context, Point, Result


@dataclass(frozen=True, kw_only=True)
class GeneralFit(Point):
    """Training for a number of epochs.

    The result is that of `points.training.train` with other_seconds, rkhs_norm and the chosen parameters as in `Fit`,
    and train_metrics: "end of epoch". In results without train_metrics, such as the results of record, training metrics
    are means over the batches of an epoch, each before its step.
    """

    kind: ClassVar[str] = "general-fit"

    sample: Sample
    kernel: KernelSpec
    centers: int
    """p; the centres are random training rows, augmented like the training rows."""
    period: int | None = None
    """T; None: automatic, EigenPro 4; 1: EigenPro 3."""
    projection: str = "auto"
    epochs: int = 10
    test_every: int = 1
    augment: str | None = None

    def run(self, context: Context) -> Result:
        """Train, and evaluate."""
        import kl

        start = time.perf_counter()
        data = self.sample.datamodule(context, augment=self.augment)
        auto: Any = "auto"
        machine = kl.GeneralKernelMachine(
            self.kernel.build(),
            self.centers if self.augment is not None else min(self.centers, len(data.train_set)),
            projection_period=auto if self.period is None else self.period,
            projection=self.projection,
            memory=context.memory,
            seed=self.sample.seed,
        )
        found = train(context, machine, data, self.epochs, self.test_every)
        return {
            **found,
            "train_metrics": "end of epoch",
            "other_seconds": time.perf_counter() - start - sum(found["seconds_per_epoch"]),
            "rkhs_norm": machine.rkhs_norm,
            **machine.parameters_chosen,
        }

    @property
    def method(self) -> str:
        """EigenPro 3 or 4."""
        return "EigenPro 3" if self.period == 1 else "EigenPro 4"

    def describe(self) -> str:
        """The draw, the kernel, the centres."""
        more = [f"augmented by {self.augment}"] * (self.augment is not None)
        more += [f"projected by {self.projection}"] * (self.projection != "auto")
        words = [f"{self.method}, {self.sample}, {self.kernel}", f"p = {self.centers}", f"{self.epochs} epochs", *more]
        return ", ".join(words)

    @property
    def seconds(self) -> float:
        """Kernel values between rows and centres, and the projections."""
        n, p = self.sample.rows, self.centers
        batches = n / 400
        slow = self.projection == "eigenpro"
        projections = (batches if self.period == 1 else n / p + 1) * p * p * (3e-9 if slow else 4e-10)
        return 2.0 + 4e-9 * p * p + self.epochs * (5e-9 * n * p + projections + 0.02) + self.epochs * 3e-5 * p / 10
