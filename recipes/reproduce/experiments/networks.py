"""Kernel machines and ReLU networks on the same rows: test error against time, and under label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, finish, kernel_look, log, panel, panels, percent, scale, style_of
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.network import Network
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import exact, whole, whole_fit
from recipes.reproduce.sweep.point import Point, Results
from recipes.reproduce.table import DataFrame, Row, by_epoch, by_level, derived, groups, rows_of, sweep_table, table

DATA = ("mnist", "fashion-mnist")
NOISES = (0.0, 0.1, 0.4)
FITTED = 0.01  # training error up to which a network counts as fitting its labels, noisy ones included


@dataclass(frozen=True)
class Architecture:
    """A network, and how it is drawn."""

    name: str
    title: str
    widths: tuple[int, ...]
    style: Style
    short: int
    long: int
    """`short` and `long` are epochs at full scale: on whole sets, and on fewer rows with label noise."""


NETWORKS = (
    Architecture("mlp", "ReLU MLP", (512, 512), style_of(2), 20, 60),
    Architecture("cnn", "ReLU CNN", (16, 32), style_of(3), 10, 20),
)


class Networks(Experiment):
    """Both kernels, by EigenPro 2 and exactly, a fully connected and a small convolutional network."""

    name = "networks"
    title = "Kernel machines and ReLU networks: test error against time and under label noise"
    source = f"{B18} sections 1 and 4 (its comparison with networks is of behaviour, not of numbers)"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """All models on whole sets without noise, and on fewer rows at all levels of noise."""
        found: list[Point] = []
        for data in setting.distinct(*DATA):
            for kernel in setting.kernels(data):
                found += [whole_fit(setting, data, kernel), whole(setting, data, kernel), noisy(setting, data, kernel)]
            for network in NETWORKS:
                found.append(whole_network(setting, data, network))
                found += [noisy_network(setting, data, network, noise) for noise in NOISES]
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Two figures with a panel for each set."""
        names = setting.distinct(*DATA)
        timed, noised = time_table(setting, results, names), noise_table(setting, results, names)
        columns = "part data n model epoch seconds train_error test_error"
        timed_rows = rows_of(timed.assign(part="time"), columns)
        noised_rows = rows_of(noised.assign(part="noise"), "part data n model noise test_error")
        errors = noised.groupby(["set", "n", "model"], sort=False)["test_error"].agg(list).reset_index()
        return Presentation(
            figures={"networks-time": time_figure(timed), "networks-noise": noise_figure(noised)},
            # An exact limit has no epoch.
            rows=[{name: row[name] for name in row if row[name] is not None} for row in timed_rows] + noised_rows,
            claims=[claim(setting, results, data, level) for data in names for level in (1, 2)],
            tables=[
                Table.of(
                    "no label noise",
                    timed.groupby(["set", "name"], sort=False).tail(1),
                    ("", "{set} n={n}, {name}"),
                    ("test error", "{test_error:.2%}"),
                    ("training error", "{final[train/error]:.3%}"),
                    ("best epoch's test error", "{lowest:.2%}"),
                    ("epochs", "{epoch}"),
                    ("seconds", "{seconds:.1f}"),
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
                "any model needs for evaluation is left out. Those of the exact limit are of the whole solve.",
                "The best epoch of a network is chosen by the test set itself: no rule for early stopping does better.",
                "The networks are plain: SGD with momentum at one learning rate, cross-entropy, no augmentation, no "
                "decay, nothing tuned. They stand for what one gets at once, not for the best there is.",
            ],
        )


def whole_network(setting: Setting, data: str, network: Architecture) -> Network:
    """A network on the same whole set as the kernels, without label noise."""
    sample = whole(setting, data, setting.kernels(data)[0]).sample
    epochs = setting.choose(tiny=5, quick=network.short // 2, full=network.short)
    return network_on(setting, sample, network, 0.0, epochs)


def noisy(setting: Setting, data: str, kernel: KernelSpec) -> Exact:
    """The exact interpolant of fewer rows at each level of noise."""
    n = setting.choose(tiny=150, quick=600, full=10_000)
    return exact(setting, data, n, kernel, 0, NOISES)


def noisy_network(setting: Setting, data: str, network: Architecture, noise: float) -> Network:
    """A network on the same rows and labels as `noisy`, at one level of noise."""
    sample = noisy(setting, data, setting.kernels(data)[0]).sample
    epochs = setting.choose(tiny=5, quick=network.long // 3, full=network.long)
    return network_on(setting, sample, network, noise, epochs)


def network_on(setting: Setting, sample: Sample, network: Architecture, noise: float, epochs: int) -> Network:
    """A network with batches small enough for many steps an epoch."""
    return Network(
        sample=sample,
        architecture=network.name,
        widths=network.widths,
        noise=noise,
        epochs=epochs,
        batch_size=setting.choose(tiny=16, quick=64, full=256),
    )


def time_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each epoch of each model, and one for each exact limit, with the seconds of the solve and no epoch.

    `lowest` is the least test error of all epochs; `style` is how the model is drawn.
    """
    found: list[Row] = []

    def add(rows: DataFrame, **same: Any) -> None:
        found.extend({**row, **same} for row in rows_of(rows))

    def epochs(point: Point) -> DataFrame:
        return by_epoch(sweep_table([point], results, lowest=lambda run: min(run["curves"]["val/error"])))

    for data in names:
        for kernel in setting.kernels(data):
            name, style = kernel.title, kernel_look({"kernel": kernel.name})
            hollow = {**style, "linestyle": "", "markersize": 9, "markerfacecolor": "white"}
            add(epochs(whole_fit(setting, data, kernel)), model=kernel.name, name=f"{name}, EigenPro", style=style)
            limit = by_level(sweep_table([whole(setting, data, kernel)], results)).head(1)
            limit = derived(limit, final=lambda level: {"train/error": level["train_error"]}, lowest=lambda level: None)
            add(limit, model=f"{kernel.name}-exact", name=f"{name}, exact", epoch=None, style=hollow)
        for each in NETWORKS:
            add(epochs(whole_network(setting, data, each)), model=each.name, name=each.title, style=each.style)
    return table(found)


def noise_table(setting: Setting, results: Results, names: Sequence[str]) -> DataFrame:
    """A row for each model and level of noise; a network's last and best epoch count as two models."""
    found: list[Row] = []
    for data in names:
        solves = sweep_table([noisy(setting, data, kernel) for kernel in setting.kernels(data)], results)
        found += rows_of(
            derived(by_level(solves), model=lambda level: f"{level['spec'].title}, exact", style=kernel_look)
        )
        for each in NETWORKS:
            runs = {noise: results[noisy_network(setting, data, each, noise)] for noise in NOISES}
            best = {**each.style, "linestyle": ":", "markerfacecolor": "white"}
            for which, choose, style in (("last", itemgetter(-1), each.style), ("best", min, best)):
                same = {**found[-1], "model": f"{each.title}, {which} epoch", "style": style}
                errors = {noise: choose(run["curves"]["val/error"]) for noise, run in runs.items()}
                found += [{**same, "noise": noise, "test_error": error} for noise, error in errors.items()]
    return table(found)


def time_figure(timed: DataFrame) -> Figure:
    """Test error against seconds of training, without label noise."""
    figure, (axes,) = panels(1, timed["set"].nunique(), width=3.4, height=2.8)
    for each, own in zip(axes, groups(timed, "set"), strict=True):
        named: Style = {"label": "{name}", "title": "{set}, n={n}", "across": log("seconds of training")}
        panel(each, own, "seconds", "test_error", "name", "style", **named)
        each.set_ylim(error_limits([list(model["test_error"]) for model in groups(own, "name")]))
    finish(figure, columns=3)
    return figure


def noise_figure(noised: DataFrame) -> Figure:
    """Test error against clean labels by the fraction of noised training labels."""
    figure, (axes,) = panels(1, noised["set"].nunique(), width=3.4, height=2.8)
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
    return 0.8 * min(last), min(1.05 * max(map(max, errors)), 2.5 * max(last))


def claim(setting: Setting, results: Results, data: str, level: int) -> Claim:
    """That models which fit noisy labels lose less by noise than 1-NN, which repeats each wrong label."""
    added: dict[str, float] = {}
    left = []
    for kernel in setting.kernels(data):
        solved = results[noisy(setting, data, kernel)]
        added[kernel.title] = solved["levels"][level]["test_error"] - solved["levels"][0]["test_error"]
    for network in NETWORKS:
        clean, noised = (results[noisy_network(setting, data, network, NOISES[i])] for i in (0, level))
        if noised["final"]["train/error"] <= FITTED:
            added[network.title] = noised["curves"]["val/error"][-1] - clean["curves"]["val/error"][-1]
        else:
            left.append(network.title)
    wrong = NOISES[level] * (1 - 1 / solved["c"])
    return Claim(
        f"{title(setting.data(data))}, {wrong:.0%} of the training labels wrong: models that fit all but "
        f"{FITTED:.0%} of them gain less than that in test error against clean labels",
        all(value < wrong for value in added.values()),
        "; ".join(f"{name} {100 * value:+.1f} points" for name, value in added.items())
        + "".join(f"; {name} does not fit them" for name in left),
        f"{B18} section 4",
    )
