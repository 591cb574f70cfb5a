"""Kernel machines and ReLU networks on the same rows: test error against time, and under label noise."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from recipes.reproduce import network_models as models
from recipes.reproduce.analysis.network_claims import ahead_claim, equal_time_claim, harmless_claim
from recipes.reproduce.analysis.network_tables import (
    AUGMENTED,
    CHOSEN,
    CNN,
    LAPLACIAN,
    LAST,
    PATCHES,
    end_table,
    noise_table,
    time_table,
    whole_table,
)
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.network_models import NOISES
from recipes.reproduce.page.drawing import Style, finish, log, panel, panels, percent, scale
from recipes.reproduce.page.presentation import Presentation, Table
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, groups, rows_of

DATA = ("mnist", "fashion-mnist")


class Networks(Experiment):
    """Both kernels on pixels, one on patches of pixels, a fully connected and a tuned convolutional network."""

    name = "networks"
    title = "Kernel machines and ReLU networks: test error against time and under label noise"
    source = f"{B18} sections 1 and 4 (its comparison with networks is of behaviour, not of numbers)"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """All models on whole sets without noise, and on fewer rows at all levels of noise."""
        return models.points(setting, results, DATA)

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Two figures with a panel for each set."""
        names = setting.distinct(*DATA)
        clean, wrong = (models.noisy_cnn(setting, names[0], noise).epochs for noise in (0.0, NOISES[-1]))
        timed, noised = time_table(setting, results, names), noise_table(setting, results, names)
        ends, whole_sets = end_table(setting, results, names), whole_table(setting, results, names)
        columns = "part data n model epoch seconds train_error test_error"
        errors = noised.groupby(["set", "n", "model"], sort=False)["test_error"].agg(list).reset_index()
        return Presentation(
            figures={"networks-time": time_figure(timed, ends), "networks-noise": noise_figure(noised)},
            rows=[
                # An exact limit has no epoch.
                {name: row[name] for name in row if row[name] is not None}
                for row in (
                    *rows_of(timed.assign(part="time"), columns),
                    *rows_of(ends.assign(part="end"), f"{columns} within within_seconds"),
                    *rows_of(whole_sets.assign(part="whole"), "part data n model epoch train_error test_error"),
                    *rows_of(noised.assign(part="noise"), "part data n model noise train_error test_error"),
                )
            ],
            claims=[
                *(
                    equal_time_claim(
                        own[own["model"] == PATCHES].iloc[0].to_dict(), own[own["model"].isin((CNN, AUGMENTED))]
                    )
                    for own in groups(ends, "set")
                ),
                *(
                    ahead_claim(own, kernel, (LAST, CHOSEN))
                    for own in groups(noised, "set")
                    for kernel in (PATCHES, LAPLACIAN)
                ),
                *(harmless_claim(own, noise) for own in groups(noised, "set") for noise in NOISES[1:]),
            ],
            tables=[
                Table.of(
                    "no label noise, fewer rows",
                    ends,
                    ("", "{set} n={n}, {name}"),
                    ("test error in the seconds of the kernel on patches", "{within:.2%}"),
                    ("last epoch; of a CNN the one chosen on held-out rows", "{test_error:.2%}"),
                    ("epochs", "{epoch}"),
                    ("seconds", "{seconds:.1f}"),
                    ("training error", "{train_error:.3%}"),
                ),
                Table.of(
                    "no label noise, whole sets",
                    whole_sets,
                    ("", "{set} n={n}, {name}"),
                    ("test error", "{test_error:.2%}"),
                    ("training error", "{train_error:.3%}"),
                    ("epochs", "{epoch}"),
                ),
                Table.of(
                    "test error against clean labels, under label noise",
                    errors,
                    ("", "{set} n={n}, {model}"),
                    *((f"{noise:.0%}", f"{{test_error[{i}]:.2%}}") for i, noise in enumerate(NOISES)),
                ),
            ],
            sentences=[
                "Seconds are those of the training steps; what EigenPro needs to set up its preconditioner and what "
                "any model needs for evaluation is left out. Those of an exact limit are of the whole solve, and on "
                "patches also of the features of training and test rows.",
                f"The convolutional network is {architecture(setting, names[0])}, trained by SGD with momentum, "
                "weight decay, and a learning rate that falls along a cosine to 0. Its learning rate, of "
                f"{' and '.join(f'{rate:g}' for rate in models.RATES)}, and its epoch are chosen on a tenth of the "
                "training rows, whose labels are as noisy as the others; then it is trained on all rows. In the "
                "seconds of the kernel machine it has as many epochs as end in them; there and on whole sets it has "
                "the learning rate that was chosen on fewer rows, and its last epoch counts. The seconds of the search "
                "are not counted, as those in which the kernel's bandwidth and patches were found are not.",
                f"On fewer rows it has {clean} epochs without label noise, {wrong} with it. Its width, weight decay "
                "and augmentation are not tuned.",
                "The augmented network sees images that are shifted by up to 2 pixels and, if they are no digits, "
                "mirrored; no kernel machine here does.",
                "The fully connected network is plain: one learning rate, no decay, nothing tuned. Its best epoch is "
                "chosen by the test set itself: no rule for early stopping does better.",
                "Seconds on whole sets are not shown, because points of several machines are compared there; the "
                "record names the machines.",
            ],
        )


def architecture(setting: Setting, data: str) -> str:
    """The convolutional network in words."""
    point = models.noisy_cnn(setting, data, 0.0)
    return f"of {len(point.widths)} convolutions with batch norm and {'-'.join(map(str, point.widths))} channels"


def time_figure(timed: DataFrame, ends: DataFrame) -> Figure:
    """Test error against seconds of training, without label noise.

    Hollow marks are of exact limits, and of the convolutional networks in the seconds of the kernel machine on patches.
    """
    figure, (axes,) = panels(1, timed["set"].nunique(), width=3.6, height=3.4)
    up = scale("test error", 10, lambda: LogLocator(subs=(1, 2, 5)), lambda value: f"{100 * value:g}%")
    same: Style = {"across": log("seconds of training"), "up": up}
    for each, own, end in zip(axes, groups(timed, "set"), groups(ends, "set"), strict=True):
        panel(each, own, "seconds", "test_error", "model", "style", label="{model}", title="{set}, n={n}", **same)
        exact, hurried = end[end["epoch"].isna()], end[end["model"].isin((CNN, AUGMENTED))]
        panel(each, exact, "seconds", "test_error", "model", "style", label="{model}", **same)
        said = "{model}, same seconds"
        panel(each, hurried, "within_seconds", "within", "model", "style", label=said, **same)
        each.set_xlabel("seconds of training")
        last = [error for column in ("test_error", "within") for error in end[column].dropna()]
        each.set_ylim(error_limits([*(list(model["test_error"]) for model in groups(own, "model")), last]))
    finish(figure, columns=3)
    return figure


def noise_figure(noised: DataFrame) -> Figure:
    """Test error against clean labels by the fraction of noised training labels."""
    figure, (axes,) = panels(1, noised["set"].nunique(), width=3.6, height=3.0)
    scales: Style = {
        "across": scale("training labels replaced at random", ticks={noise: f"{noise:.0%}" for noise in NOISES})
    }
    scales["up"] = percent("test error, clean labels")
    for each, own in zip(axes, groups(noised, "set"), strict=True):
        panel(each, own, "noise", "test_error", "model", "style", label="{model}", title="{set}, n={n}", **scales)
        each.set_ylim(bottom=0)
    finish(figure, columns=3)
    return figure


def error_limits(errors: Sequence[Sequence[float]]) -> tuple[float, float]:
    """A range in which the ends of the curves can be told apart; first epochs may lie above it."""
    last = [each[-1] for each in errors]
    return 0.8 * min(map(min, errors)), min(1.05 * max(map(max, errors)), 2.5 * max(last))
