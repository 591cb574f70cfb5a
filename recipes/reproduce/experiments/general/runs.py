"""The runs of `general`, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.reproduce.experiments.kernels import MAIN, run
from recipes.reproduce.page.drawing import short_count
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.general import GeneralFit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Results
from recipes.reproduce.table import DataFrame, Row, stacked, sweep_table

AUGMENT = {"cifar10": "shift:1,flip", "fashion-mnist": "shift:1"}  # no flip, because all shoes point to the left
PROJECTIONS = {"eigenpro": "an epoch of EigenPro 2", "factor": "a factor"}


def centers(setting: Setting) -> tuple[int, ...]:
    """Numbers of centres."""
    return setting.choose(tiny=(20, 60), quick=(100, 300, 600), full=(1000, 5000, 20_000))


def runs(setting: Setting, data: str, kernel: KernelSpec, results: Results) -> dict[str, Fit | GeneralFit]:
    """EigenPro 2 on all rows, EigenPro 4 for every p, EigenPro 3 for the middle p."""
    two = run(setting, data, kernel, results, whole=True)
    epochs = setting.choose(tiny=3, quick=10, full=10)
    sizes = centers(setting)
    four = {eigenpro_4(p): GeneralFit(sample=two.sample, kernel=two.kernel, centers=p, epochs=epochs) for p in sizes}
    middle = sizes[len(sizes) // 2]
    three = GeneralFit(sample=two.sample, kernel=two.kernel, centers=middle, period=1, epochs=epochs)
    return {"EigenPro 2": two, **four, f"EigenPro 3, p = {short_count(middle)}": three}


def eigenpro_4(p: int) -> str:
    """The name of a run with p centres."""
    return f"EigenPro 4, p = {short_count(p)}"


def base(setting: Setting) -> tuple[Sample, KernelSpec]:
    """Fashion-MNIST without changes, and the Laplacian of [B18]."""
    n = setting.choose(tiny=200, quick=2000, full=None)
    sample = setting.sample("fashion-mnist", n, setting.choose(tiny=None, quick=1000, full=None))
    return sample, setting.kernels("fashion-mnist")[1]


def periods(setting: Setting) -> dict[tuple[int, str, int | None], GeneralFit]:
    """EigenPro 3 and 4 with both projections, by p, projection and period."""
    sample, kernel = base(setting)
    sizes = setting.choose(tiny=(20, 60), quick=(250, 500, 1000), full=(1000, 2000, 5000, 10_000, 20_000))
    epochs = setting.choose(tiny=2, quick=2, full=1)
    return {
        (p, projection, period): GeneralFit(
            sample=sample, kernel=kernel, centers=p, period=period, projection=projection, epochs=epochs
        )
        for p in sizes
        for projection in PROJECTIONS
        for period in (None, 1)
    }


def surface(setting: Setting) -> dict[tuple[int, int], GeneralFit]:
    """EigenPro 4 by n and p, p at most n."""
    sample, kernel = base(setting)
    sizes = setting.choose(tiny=(100, 200), quick=(250, 500, 1000, 2000), full=(1000, 3000, 10_000, 30_000, 60_000))
    by_p = setting.choose(tiny=(20, 60), quick=(60, 250, 1000), full=(300, 1000, 3000, 10_000, 20_000))
    epochs = setting.choose(tiny=3, quick=10, full=10)
    return {
        (n, p): GeneralFit(
            sample=setting.sample("fashion-mnist", n, sample.test_size),
            kernel=kernel,
            centers=p,
            epochs=epochs,
            test_every=epochs,
        )
        for n in sizes
        for p in by_p
        if p <= n
    }


def augmented(setting: Setting, data: str) -> dict[str, GeneralFit]:
    """Runs on n images: without augmentation, with n centres; augmented, with n centres and with 4 n centres."""
    n = setting.choose(tiny=60, quick=1000, full=10_000)
    epochs = setting.choose(tiny=3, quick=20, full=30)
    how = AUGMENT.get(setting.data(data), "shift:1")
    sample = setting.sample(data, n, setting.choose(tiny=None, quick=1000, full=None))
    return {
        name: GeneralFit(
            sample=sample,
            kernel=setting.kernels(data)[1],
            centers=centers,
            epochs=epochs,
            test_every=epochs,
            augment=augment,
        )
        for name, centers, augment in (
            ("as they are", n, None),
            ("augmented", n, how),
            ("augmented, 4 times the centres", 4 * n, how),
        )
    }


def run_table(part: str, points: Mapping[Any, Fit | GeneralFit], results: Results) -> DataFrame:
    """A row for each run; `fastest` are the seconds of the fastest epoch, `name` says which run it is."""
    names = [key if isinstance(key, str) else PROJECTIONS.get(key[1], "") for key in points]
    return sweep_table(
        points.values(),
        results,
        part=lambda run: part,
        p=lambda run: getattr(run["point"], "centers", run["n"]),
        T=lambda run: run.get("projection_period"),
        fastest=lambda run: min(run["seconds_per_epoch"]),
        seconds=lambda run: sum(run["seconds_per_epoch"]),
        mse=lambda run: run["final"].get("train/mse"),
        train_mse=lambda run: None if is_running(run, results) else run["mse"],
        train_mse_running=lambda run: run["mse"] if is_running(run, results) else None,
        test_error=lambda run: run["final"].get("val/error", 1.0),  # 1 if the run diverged at once
    ).assign(name=names)


def is_running(run: Row, results: Results) -> bool:
    """Whether training metrics are means over an epoch's batches, as in old results of EigenPro 3 and 4."""
    return isinstance(run["point"], GeneralFit) and "train_metrics" not in results[run["point"]]


def curves_table(setting: Setting, data: str, results: Results) -> DataFrame:
    """The `run_table` of a set's runs, kernel by kernel."""
    return stacked(run_table("curves", runs(setting, data, kernel, results), results) for kernel in MAIN)
