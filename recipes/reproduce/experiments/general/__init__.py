"""General kernel models: EigenPro 2, 3 and 4 against epochs, seconds, centres and rows; and augmented images."""

from __future__ import annotations

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments.general.runs import augmented, curves_table, periods, run_table, runs, surface
from recipes.reproduce.experiments.general.shown import (
    augment_claim,
    augment_table,
    by_epoch_and_second,
    course_table,
    delayed_claim,
    gaussian_claim,
    published_table,
    surface_figure,
    time_figure,
    time_table,
)
from recipes.reproduce.experiments.kernels import MAIN, RADIAL, search
from recipes.reproduce.page.presentation import Presentation
from recipes.reproduce.published import EIGENPRO_4_SOURCE
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import rows_of, stacked

DATA = ("cifar10", "fashion-mnist")
COLUMNS = (
    "part name data n p kernel bandwidth T projection augment m epochs seconds_per_epoch seconds train_mse "
    "train_mse_running test_error diverged"
)


class General(Experiment):
    """p centres against a centre at every row; delayed projections against a projection after each step."""

    name = "general"
    title = "EigenPro 3 and 4 with p centres on colour CIFAR-10 and Fashion-MNIST, beside EigenPro 2; augmented images"
    source = EIGENPRO_4_SOURCE

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The searches for bandwidths first; then the runs."""
        names = setting.distinct(*DATA)
        searches: list[Point] = [search(setting, data, kernel) for data in names for kernel in MAIN if kernel in RADIAL]
        if not all(point in results for point in searches):
            return searches
        found: list[Point] = list(searches)
        for data in names:
            for kernel in MAIN:
                found += runs(setting, data, kernel, results).values()
            found += augmented(setting, data).values()
        found += periods(setting).values()
        found += surface(setting).values()
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure for each set, one of time against p, one of error against n and p."""
        names = setting.distinct(*DATA)
        curves = {data: curves_table(setting, data, results) for data in names}
        timed = run_table("time", periods(setting), results)
        grid = run_table("surface", surface(setting), results)
        gains = [run_table("augment", augmented(setting, data), results) for data in names]
        every = stacked([*curves.values(), timed, grid, *gains])
        return Presentation(
            figures={
                **{f"general-{setting.data(data)}": by_epoch_and_second(found) for data, found in curves.items()},
                "general-time": time_figure(timed),
                "general-surface": surface_figure(grid),
            },
            rows=rows_of(every.assign(seconds_per_epoch=every["fastest"]), COLUMNS),
            claims=[
                *(gaussian_claim(found) for found in curves.values()),
                delayed_claim(timed),
                *(augment_claim(found) for found in gains),
            ],
            tables=[
                *(course_table(found) for found in curves.values()),
                time_table(timed),
                augment_table(stacked(gains)),
                published_table(),
            ],
            sentences=[
                "Training errors of EigenPro 3 and 4 are over all rows after the last epoch, as EigenPro 2's; where "
                "train_mse_running has them instead, means over the batches of an epoch, each before its step. The "
                "step size falls to 0 over the last half of a run, so that a run of more epochs is not a run of fewer "
                "that went on.",
                "Seconds are of training steps, projections included; centres are random training rows.",
            ],
        )
