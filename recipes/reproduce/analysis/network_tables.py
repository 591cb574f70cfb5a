"""The numbers of `networks` as tables: by epoch, at the end, on whole sets, and under label noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipes.reproduce import network_models as models
from recipes.reproduce.network_models import NOISES, kernel_seconds
from recipes.reproduce.page.drawing import Style, kernel_look, style_of
from recipes.reproduce.points.training import error_within
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import whole, whole_fit
from recipes.reproduce.sweep.point import Point, Result, Results
from recipes.reproduce.table import DataFrame, Row, by_epoch, rows_of, sweep_table, table

PATCHES, MLP, CNN, AUGMENTED = "Gaussian on patches", "ReLU MLP", "CNN", "CNN, augmented"
LAPLACIAN = "Laplacian, exact"
LAST, CHOSEN = f"{CNN}, last epoch", f"{CNN}, chosen epoch"
STYLES = {PATCHES: style_of(6), MLP: style_of(2), CNN: style_of(3), AUGMENTED: style_of(5)}
ALONE: Style = {"linestyle": "", "markersize": 7, "markerfacecolor": "white"}  # a result without a curve


def time_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each epoch of each model that has epochs, on fewer rows; `style` is how the model is drawn."""
    found: list[Row] = []

    def add(point: Point, name: str, style: Style) -> None:
        found.extend({**row, "model": name, "style": style} for row in rows_of(by_epoch(sweep_table([point], results))))

    for data in names:
        for kernel in setting.kernels(data):
            look = kernel_look({"kernel": kernel.name})
            add(models.fewer_fit(setting, data, kernel), f"{kernel.title}, EigenPro", look)
        add(models.noisy_mlp(setting, data, 0.0), MLP, STYLES[MLP])
        for augmented, name in ((False, CNN), (True, AUGMENTED)):
            add(models.noisy_cnn(setting, data, 0.0, augmented), name, STYLES[name])
    return table(found)


def end_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each model on fewer rows without noise.

    `test_error`, `epoch` and `seconds` are of the last epoch or of the one that held-out rows choose; `within` is the
    test error in `within_seconds`, those of the kernel machine on patches; None if no epoch, or no solve, ends in them.
    """
    found: list[Row] = []
    for data in names:
        on_patches = results[models.on_patches(setting, data)]
        limit = kernel_seconds(on_patches)
        same = {"data": on_patches["data_source"], "set": title(on_patches["data_source"]), "n": on_patches["n"]}

        def add(name: str, style: Style, same: Row = same, limit: float = limit, **more: Any) -> None:
            found.append({**same, "model": name, "name": name, "within_seconds": limit, "style": style, **more})

        for kernel in setting.kernels(data):
            look = kernel_look({"kernel": kernel.name})
            fit = results[models.fewer_fit(setting, data, kernel)]
            add(f"{kernel.title}, EigenPro", look, within=error_within(fit, limit), **last_epoch(fit))
            solved = results[models.noisy(setting, data, kernel)]
            add(f"{kernel.title}, exact", {**look, **ALONE}, **solve(solved, solved["seconds"], limit))
        add(PATCHES, {**STYLES[PATCHES], **ALONE}, **solve(on_patches, limit, limit))
        plain = results[models.noisy_mlp(setting, data, 0.0)]
        add(MLP, STYLES[MLP], within=error_within(plain, limit), **last_epoch(plain))
        for augmented, name in ((False, CNN), (True, AUGMENTED)):
            hurried = models.hurried_cnn(setting, results, data, augmented)
            within = None if hurried is None else results[hurried]["chosen_error"]
            tuned = results[models.noisy_cnn(setting, data, 0.0, augmented)]
            add(name, {**STYLES[name], **ALONE}, within=within, **chosen_epoch(tuned))
    return table(found)


def whole_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each model on a whole set without noise."""
    found: list[Row] = []
    for data in names:

        def add(name: str, result: Result, row: Row) -> None:
            same = {"data": result["data_source"], "set": title(result["data_source"]), "n": result["n"]}
            found.append({**same, "model": name, "name": name, **row})

        for kernel in setting.kernels(data):
            fit = results[whole_fit(setting, data, kernel)]
            add(f"{kernel.title}, EigenPro", fit, last_epoch(fit))
            solved = results[whole(setting, data, kernel)]
            add(f"{kernel.title}, exact", solved, solve(solved, solved["seconds"], solved["seconds"]))
        plain = results[models.whole_mlp(setting, data)]
        add(MLP, plain, last_epoch(plain))
        for augmented, name in ((False, CNN), (True, AUGMENTED)):
            tuned = results[models.whole_cnn(setting, results, data, augmented)]
            add(name, tuned, chosen_epoch(tuned))
    return table(found)


def last_epoch(result: Result) -> Row:
    """The end of a run."""
    return at_epoch(result, result["epochs"])


def chosen_epoch(result: Result) -> Row:
    """A tuned network at the epoch that held-out rows choose."""
    return at_epoch(result, result["chosen_epoch"])


def at_epoch(result: Result, epoch: int) -> Row:
    """Errors and seconds at the end of an epoch."""
    curves = result["curves"]
    errors = {"train_error": curves["train/error"][epoch - 1], "test_error": curves["val/error"][epoch - 1]}
    return {"epoch": epoch, "seconds": sum(result["seconds_per_epoch"][:epoch]), **errors}


def solve(result: Result, seconds: float, limit: float) -> Row:
    """The first level of an exact limit, which has no epoch."""
    level = result["levels"][0]
    errors = {"train_error": level["train_error"], "test_error": level["test_error"]}
    return {"epoch": None, "seconds": seconds, "within": level["test_error"] if seconds <= limit else None, **errors}


def noise_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each model and level of noise; a network's last epoch and another count as two models.

    The other one of the convolutional network is chosen on held-out rows, that of the fully connected one on the test
    set. Their train_error is None.
    """
    found: list[Row] = []
    for data in names:
        solves = {
            f"{kernel.title}, exact": (models.noisy(setting, data, kernel), kernel_look({"kernel": kernel.name}))
            for kernel in setting.kernels(data)
        }
        first = results[models.on_patches(setting, data)]
        same = {"data": first["data_source"], "set": title(first["data_source"]), "n": first["n"], "c": first["c"]}
        for name, (point, style) in {**solves, PATCHES: (models.on_patches(setting, data), STYLES[PATCHES])}.items():
            for level in results[point]["levels"]:
                found.append({**same, **level, "model": name, "style": style})
        for name, make in ((MLP, models.noisy_mlp), (CNN, models.noisy_cnn)):
            runs = {noise: results[make(setting, data, noise)] for noise in NOISES}
            other = {**STYLES[name], "linestyle": ":", "markerfacecolor": "white"}
            named = {**same, "model": f"{name}, last epoch", "style": STYLES[name]}
            for noise, run in runs.items():
                ends = {"train_error": run["final"]["train/error"], "test_error": run["curves"]["val/error"][-1]}
                found.append({**named, "noise": noise, **ends})
            which = "chosen epoch" if name == CNN else "best epoch"
            named = {**same, "model": f"{name}, {which}", "style": other, "train_error": None}
            for noise, run in runs.items():
                error = run["chosen_error"] if name == CNN else min(run["curves"]["val/error"])
                found.append({**named, "noise": noise, "test_error": error})
    return table(found)
