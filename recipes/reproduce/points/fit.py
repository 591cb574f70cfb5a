"""A kernel machine trained by EigenPro 2, with the metrics of every epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.training import train
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    import pytorch_lightning as pl


@dataclass(frozen=True, kw_only=True)
class Fit(Point):
    """Training for a number of epochs, or until the training data is fitted.

    The result is that of `points.training.train` with other_seconds (all but training steps: reading the data, set-up,
    each epoch's metrics, tests), fitted_epoch (the first epoch that met the stopping condition; None if none did),
    rkhs_norm, rkhs_norm_per_class and the chosen parameters.
    """

    kind: ClassVar[str] = "fit"

    sample: Sample
    kernel: KernelSpec
    noise: float = 0.0
    """Fraction of the labels to replace."""
    epochs: int = 20
    """The most epochs."""
    until_interpolated: bool = False
    """Stop at zero training classification error: the "overfitted" classifier of [B18]."""
    until_mse: float | None = None
    """Stop at this training mse, even if the training error is 0 earlier."""
    test_every: int = 1
    """Epochs from one evaluation on the test set to the next; 0: only after the last."""
    batch_size: int | None = None
    """m; None: automatic."""
    top_q: int | None = None
    """q; None: automatic; 0: plain kernel SGD."""

    def run(self, context: Context) -> Result:
        """Train, and evaluate."""
        from pytorch_lightning.callbacks import EarlyStopping

        import callbacks
        import kl

        start = time.perf_counter()
        data = self.sample.datamodule(context, self.noise)
        auto: Any = "auto"
        machine = kl.KernelMachine(
            self.kernel.build(),
            batch_size=auto if self.batch_size is None else min(self.batch_size, len(data.train_set)),
            top_q=auto if self.top_q is None else self.top_q,
            memory=context.memory,
            seed=self.sample.seed,
        )
        observers: list[pl.Callback] = []
        if self.until_interpolated:
            observers.append(callbacks.StopWhenInterpolated())
        if self.until_mse is not None:
            observers.append(
                EarlyStopping(
                    "train/mse",
                    stopping_threshold=self.until_mse,
                    patience=self.epochs,  # never stops for lack of progress
                    check_on_train_epoch_end=True,
                )
            )
        found = train(context, machine, data, self.epochs, self.test_every, observers)
        return {
            **found,
            "other_seconds": time.perf_counter() - start - sum(found["seconds_per_epoch"]),
            "fitted_epoch": self._fitted_epoch(found["curves"]),
            "rkhs_norm": machine.rkhs_norm,
            "rkhs_norm_per_class": machine.rkhs_norm_per_class.tolist(),
            **machine.parameters_chosen,
        }

    def _fitted_epoch(self, curves: dict[str, list[float]]) -> int | None:
        mses = curves.get("train/mse", [])
        errors = curves.get("train/error", [1.0] * len(mses))  # regression has none
        met = [
            (self.until_interpolated and error == 0) or (self.until_mse is not None and mse < self.until_mse)
            for error, mse in zip(errors, mses, strict=True)
        ]
        return met.index(True) + 1 if True in met else None

    def describe(self) -> str:
        """The draw, the kernel, the noise, the parameters that are not automatic."""
        forced = [f"m={self.batch_size}"] * (self.batch_size is not None) + [f"q={self.top_q}"] * (
            self.top_q is not None
        )
        until = " until interpolated" if self.until_interpolated else ""
        until += "" if self.until_mse is None else f" until mse {self.until_mse:g}"
        noise = f", label noise {self.noise:.0%}" if self.noise else ""
        return ", ".join([f"EigenPro, {self.sample}, {self.kernel}{noise}", f"{self.epochs} epochs{until}", *forced])

    @property
    def seconds(self) -> float:
        """Epochs with K kept, and the tests."""
        n, stops = self.sample.rows, self.until_interpolated or self.until_mse is not None
        epochs = self.epochs / 4 if stops else self.epochs
        steps = n / (self.batch_size or 1000)
        tests = epochs / self.test_every if self.test_every else 1
        return 1.0 + 3e-9 * n * n + epochs * (8e-10 * n * n + 1e-3 * steps + 0.01) + tests * 2e-5 * n
