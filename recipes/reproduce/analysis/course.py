"""How a training run went: its errors and seconds, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from recipes.reproduce.points.fit import Fit
from recipes.reproduce.setting import title
from recipes.reproduce.sweep.point import Result

HEADER = ("", "test error, epoch 1", "last", "lowest", "training error, last", "fitted at", "s, epoch 1", "s, later")
"""Of a table of courses; "fitted at" is the first epoch without a training error."""


@dataclass(frozen=True)
class Course:
    """A run that was tested now and then; one that diverged has only the epochs before."""

    point: Fit
    source: str
    """Where the rows came from."""
    n: int
    diverged: bool
    train_mse: tuple[float, ...]
    train_error: tuple[float, ...]
    tested: tuple[int, ...]
    """Epochs with a test."""
    test_error: tuple[float, ...]
    """After those."""
    seconds: tuple[float, ...]
    """Of each epoch's training steps."""

    @property
    def epochs(self) -> list[int]:
        """1, 2, ..."""
        return list(range(1, len(self.train_error) + 1))

    @property
    def elapsed(self) -> list[float]:
        """Seconds of training up to the end of each epoch."""
        return list(accumulate(self.seconds))

    @property
    def fitted(self) -> int | None:
        """The first epoch without a training error; None where there is none."""
        return next((epoch for epoch, value in zip(self.epochs, self.train_error, strict=True) if value == 0), None)

    @property
    def data(self) -> str:
        """Set and rows, as figures have them."""
        return f"{title(self.source)}, n={self.n}"

    def rows(self) -> list[dict[str, Any]]:
        """A record for each epoch."""
        kernel, test_error = self.point.kernel, dict(zip(self.tested, self.test_error, strict=True))
        return [
            {
                "data": self.source,
                "n": self.n,
                "unit_norm": self.point.sample.unit_norm,
                "kernel": kernel.name,
                "bandwidth": kernel.bandwidth,
                "depth": kernel.depth,
                "power": getattr(kernel, "power", None),
                "epoch": epoch,
                "seconds": self.elapsed[i],
                "train_mse": self.train_mse[i],
                "train_error": self.train_error[i],
                "test_error": test_error.get(epoch),
                "diverged": self.diverged,
            }
            for i, epoch in enumerate(self.epochs)
        ]

    def cells(self) -> tuple[str, ...]:
        """A row of a table; see HEADER."""
        kernel, errors = self.point.kernel, self.test_error
        bandwidth = "" if kernel.bandwidth is None else f" {kernel.bandwidth:g}"
        name = f"{kernel.title}{bandwidth}{' (diverged)' if self.diverged else ''}"
        if not errors:
            return (name, *[""] * (len(HEADER) - 1))
        return (
            name,
            f"{errors[0]:.2%}" if self.tested[0] == 1 else "",
            f"{errors[-1]:.2%}",
            f"{min(errors):.2%}",
            f"{self.train_error[-1]:.3%}",
            str(self.fitted or "not reached"),
            f"{self.seconds[0]:.2f}",
            f"{median(self.seconds[1:]):.2f}" if len(self.seconds) > 1 else "",
        )


def course(point: Fit, fit: Result) -> Course:
    """A run from its result; of an epoch that broke off nothing is taken."""
    curves = fit["curves"]
    mse, error, test = (tuple(curves.get(tag, [])) for tag in ("train/mse", "train/error", "val/error"))
    tested, seconds = tuple(fit["tested_epochs"]), tuple(fit["seconds_per_epoch"][: len(error)])
    return Course(point, fit["data_source"], fit["n"], fit["diverged"], mse, error, tested, test, seconds)
