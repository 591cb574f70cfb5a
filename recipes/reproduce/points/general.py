"""A general kernel model trained by EigenPro 3 or 4, with the metrics of every epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.reproduce.point import Context, Point, Result
from recipes.reproduce.points.fit import curves, fit_and_test, quiet_trainer
from recipes.reproduce.sample import KernelSpec, Sample

if TYPE_CHECKING:
    import pytorch_lightning as pl


@dataclass(frozen=True, kw_only=True)
class GeneralFit(Point):
    """Training for a number of epochs.

    The result has `curves`, tested_epochs, epochs, seconds_per_epoch, other_seconds, final, diverged, rkhs_norm, the
    chosen parameters and data_source, as that of `Fit`; training metrics are means over batches, each before its step.
    """

    kind: ClassVar[str] = "general-fit"

    sample: Sample
    kernel: KernelSpec
    centers: int
    """p, random training rows."""
    period: int | None = None
    """T; None: automatic, EigenPro 4; 1: EigenPro 3."""
    projection: str = "auto"
    epochs: int = 10
    test_every: int = 1
    augment: str | None = None

    def run(self, context: Context) -> Result:
        """Train, and evaluate."""
        import callbacks
        import kl

        start = time.perf_counter()
        data = self.sample.datamodule(context, augment=self.augment)
        auto: Any = "auto"
        machine = kl.GeneralKernelMachine(
            self.kernel.build(),
            min(self.centers, len(data.train_set)),
            projection_period=auto if self.period is None else self.period,
            projection=self.projection,
            memory=context.memory,
            seed=self.sample.seed,
        )
        history, timing = callbacks.History(), callbacks.Timing()
        observers: list[pl.Callback] = [history, timing]
        trainer = quiet_trainer(context, self.epochs, self.test_every, observers)
        diverged = False
        try:
            fit_and_test(trainer, machine, data)
        except kl.DivergenceError:
            diverged = True
        return {
            **curves(trainer, history, timing),
            "other_seconds": time.perf_counter() - start - sum(timing.seconds_per_epoch),
            "diverged": diverged,
            "final": {**machine.train_metrics, **machine.eval_metrics},
            "rkhs_norm": machine.rkhs_norm,
            **machine.parameters_chosen,
            "data_source": data.source,
            "n": len(data.train_set),
            "d": data.num_features,
            "c": data.num_outputs,
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
        """Kernel values of rows with centres, and those of projections."""
        n, p = self.sample.rows, self.centers
        batches = n / 400
        slow = self.projection == "eigenpro"
        projections = (batches if self.period == 1 else n / p + 1) * p * p * (3e-9 if slow else 4e-10)
        return 2.0 + 4e-9 * p * p + self.epochs * (5e-9 * n * p + projections + 0.02) + self.epochs * 3e-5 * p / 10
