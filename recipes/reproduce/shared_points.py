"""Points that several experiments share: written once, so that they are computed once."""

from __future__ import annotations

from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, sweep_table

MNIST_NOISES = (0.0, 0.01, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Levels of label noise in every exact solve of MNIST, because further right-hand sides cost next to nothing."""
EPOCHS = 20  # [B18] Tables 3-4


def whole(setting: Setting, data: str, kernel: KernelSpec) -> Exact:
    """The exact interpolant of a whole set; colour images are turned gray, as in [B18]."""
    n = setting.choose(tiny=200, quick=3000, full=None)
    return exact(setting, data, n, kernel, 0, MNIST_NOISES if data == "mnist" else (0.0,))


def whole_fit(setting: Setting, data: str, kernel: KernelSpec) -> Fit:
    """EigenPro on the same rows, for 20 epochs."""
    return Fit(
        sample=whole(setting, data, kernel).sample, kernel=kernel, epochs=setting.choose(tiny=3, quick=20, full=EPOCHS)
    )


def overfitted(sample: Sample, kernel: KernelSpec, noise: float, epochs: int) -> Fit:
    """EigenPro until the first epoch with zero training classification error [B18], tested at its end."""
    return Fit(sample=sample, kernel=kernel, noise=noise, epochs=epochs, until_interpolated=True, test_every=0)


def whole_points(setting: Setting, *names: str) -> list[Point]:
    """`whole_fit` and `whole` for each set and kernel."""
    return [
        make(setting, data, kernel)
        for data in setting.distinct(*names)
        for kernel in setting.kernels(data)
        for make in (whole_fit, whole)
    ]


def whole_table(setting: Setting, results: Results, *names: str) -> DataFrame:
    """A row for each run of `whole_points`, with exact_train_mse, exact_test_error and exact_seconds of its limit."""
    limits = {
        whole_fit(setting, data, kernel): results[whole(setting, data, kernel)]
        for data in setting.distinct(*names)
        for kernel in setting.kernels(data)
    }
    return sweep_table(
        limits,
        results,
        exact_train_mse=lambda run: limits[run["point"]]["levels"][0]["train_mse"],
        exact_test_error=lambda run: limits[run["point"]]["levels"][0]["test_error"],
        exact_seconds=lambda run: limits[run["point"]]["seconds"],
    )


def exact(
    setting: Setting, data: str, n: int | None, kernel: KernelSpec, seed: int, noises: tuple[float, ...] = MNIST_NOISES
) -> Exact:
    """The exact interpolant of n rows."""
    gray = {"grayscale": True} if data == "cifar10" else {}
    test_size = setting.choose(tiny=None, quick=2000, full=None)
    return Exact(sample=setting.sample(data, n, test_size, seed, **gray), kernel=kernel, noises=noises)
