"""One bandwidth at one level of label noise: the interpolant beside the run until the labels are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.reproduce.page.presentation import number
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.sweep.point import Result

TRAIN_MSE = 0.01  # a tenth of that of f = 0 with ten classes; reached before the last training error is gone

HEADER = (
    "bandwidth",
    "noise",
    "test error, interpolated",
    "overfitted",
    "epochs",
    f"to mse {TRAIN_MSE:g}",
    "RKHS norm",
)


@dataclass(frozen=True)
class Case:
    """One kernel and level of noise: the interpolant and the run until the labels are fitted."""

    kernel: KernelSpec
    """With the bandwidth used."""
    fraction: float
    noise: float
    level: Result | None
    """Of the interpolant; None where K is singular."""
    reason: str | None
    """Why, then."""
    fit: Result

    @property
    def n(self) -> int:
        """Training rows."""
        return self.fit["n"]

    @property
    def cap(self) -> int:
        """Epochs trained."""
        return self.fit["epochs"]

    @property
    def interpolated_error(self) -> float | None:
        """Against test labels noised like the training labels; None where K is singular."""
        return None if self.level is None else self.level["test_error_noisy"]

    @property
    def overfitted_error(self) -> float | None:
        """The same of the run's last epoch; None where training errors are left."""
        final = self.fit["final"]
        return final.get("val/error_noisy", final.get("val/error")) if self.fitted else None

    @property
    def fitted(self) -> int | None:
        """Epochs until zero training error; None where it was not reached."""
        return self.fit["fitted_epoch"]

    @property
    def epochs_to_mse(self) -> int | None:
        """Epochs until a training mse of TRAIN_MSE; None where it was not reached."""
        return next((i + 1 for i, mse in enumerate(self.fit["curves"].get("train/mse", [])) if mse <= TRAIN_MSE), None)

    @property
    def norm(self) -> float | None:
        """|f|_H of the interpolant; None where K is singular."""
        return None if self.level is None else self.level["rkhs_norm"]

    def row(self) -> dict[str, Any]:
        """A record."""
        return {
            "n": self.n,
            "kernel": self.kernel.name,
            "fraction": self.fraction,
            "bandwidth": self.kernel.bandwidth,
            "label_noise": self.noise,
            "interpolated_test_error": self.level and self.level["test_error"],
            "interpolated_test_error_noisy": self.interpolated_error,
            "rkhs_norm": self.norm,
            "relative_residual": self.level and self.level["relative_residual"],
            "singular": self.reason,
            "overfitted_test_error": self.fit["final"].get("val/error") if self.fitted else None,
            "overfitted_test_error_noisy": self.overfitted_error,
            "epochs_to_zero_training_error": self.fitted,
            "epochs_to_train_mse": self.epochs_to_mse,
            "epochs": self.cap,
            "diverged": self.fit["diverged"],
        }

    def cells(self) -> tuple[str, ...]:
        """A row of the table; see HEADER."""
        over = f"over {self.cap}"
        return (
            f"{self.kernel.bandwidth:g} ({self.fraction:.0%})",
            f"{self.noise:.0%}",
            percent(self.interpolated_error, "singular"),
            percent(self.overfitted_error, "not reached"),
            str(self.fitted or over),
            str(self.epochs_to_mse or over),
            "singular" if self.norm is None else number(self.norm),
        )


def percent(value: float | None, missing: str) -> str:
    """A fraction in percent."""
    return missing if value is None else f"{value:.2%}"
