"""Kernel machines and ReLU networks on the same rows: test error against time, and under label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import (
    CYCLE,
    MARKERS,
    OF_KERNEL,
    curve,
    legend_below,
    panels,
    percent_axis,
    seconds_axis,
)
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.network import Network
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import exact, whole, whole_fit
from recipes.reproduce.sweep.point import Point, Result, Results

DATA = ("mnist", "fashion-mnist")
NOISES = (0.0, 0.1, 0.4)
FITTED = 0.01  # training error under which a network counts as one that fits its labels, noise and all


@dataclass(frozen=True)
class Architecture:
    """A network, and how it is drawn."""

    name: str
    title: str
    widths: tuple[int, ...]
    style: dict[str, Any]
    short: int
    long: int
    """Epochs at full scale: on whole sets, and on fewer rows with label noise."""


NETWORKS = (
    Architecture("mlp", "ReLU MLP", (512, 512), {"color": CYCLE[2], "marker": MARKERS[2]}, 20, 60),
    Architecture("cnn", "ReLU CNN", (16, 32), {"color": CYCLE[3], "marker": MARKERS[3]}, 10, 20),
)


class Networks(Experiment):
    """Both kernels, by EigenPro 2 and exactly, a fully connected and a small convolutional network."""

    name = "networks"
    title = "Kernel machines and ReLU networks: test error against time and under label noise"
    source = f"{B18} sections 1 and 4 (its comparison with networks is of behaviour, not of numbers)"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """On whole sets without noise, then on fewer rows at all levels of it."""
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
        timed, time_rows, time_table = time_figure(setting, results, names)
        noised, noise_rows, noise_table = noise_figure(setting, results, names)
        return Presentation(
            figures={"networks-time": timed, "networks-noise": noised},
            rows=time_rows + noise_rows,
            claims=[claim(setting, results, data, level) for data in names for level in (1, 2)],
            tables=[
                Table(
                    "no label noise",
                    ("", "test error", "training error", "best epoch's test error", "epochs", "seconds"),
                    time_table,
                ),
                Table(
                    "test error against clean labels, under label noise",
                    ("", *(f"{noise:.0%}" for noise in NOISES)),
                    noise_table,
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
    """A network on the rows that the kernels have, without label noise."""
    sample = whole(setting, data, setting.kernels(data)[0]).sample
    epochs = setting.choose(tiny=5, quick=network.short // 2, full=network.short)
    return network_on(setting, sample, network, 0.0, epochs)


def noisy(setting: Setting, data: str, kernel: KernelSpec) -> Exact:
    """The exact interpolant of fewer rows at each level of noise."""
    n = setting.choose(tiny=150, quick=600, full=10_000)
    return exact(setting, data, n, kernel, 0, NOISES)


def noisy_network(setting: Setting, data: str, network: Architecture, noise: float) -> Network:
    """A network on the same rows and labels."""
    sample = noisy(setting, data, setting.kernels(data)[0]).sample
    epochs = setting.choose(tiny=5, quick=network.long // 3, full=network.long)
    return network_on(setting, sample, network, noise, epochs)


def network_on(setting: Setting, sample: Sample, network: Architecture, noise: float, epochs: int) -> Network:
    """A network with batches that make enough steps of an epoch."""
    return Network(
        sample=sample,
        architecture=network.name,
        widths=network.widths,
        noise=noise,
        epochs=epochs,
        batch_size=setting.choose(tiny=16, quick=64, full=256),
    )


Shown = tuple[Figure, list[dict[str, Any]], list[tuple[str, ...]]]
"""A figure, its numbers, and rows of a table."""


def time_figure(setting: Setting, results: Results, names: Sequence[str]) -> Shown:
    """Test error against seconds of training, without label noise."""
    figure, axes = panels(1, len(names), width=3.4, height=2.8)
    rows: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = []
    for panel, data in zip(axes[0], names, strict=True):
        shown = []
        for kernel in setting.kernels(data):
            fit, limit = results[whole_fit(setting, data, kernel)], results[whole(setting, data, kernel)]
            style = kernel_style(kernel)
            curve(panel, seconds_until(fit), fit["curves"]["val/error"], f"{kernel.title}, EigenPro", **style)
            level = limit["levels"][0]
            hollow = {**style, "linestyle": "", "markersize": 9, "markerfacecolor": "white"}
            panel.plot(limit["seconds"], level["test_error"], label=f"{kernel.title}, exact", **hollow)
            shown += [fit["curves"]["val/error"], [level["test_error"]]]
            rows += time_rows(fit, kernel.name)
            rows.append(
                {
                    "part": "time",
                    "data": limit["data_source"],
                    "n": limit["n"],
                    "model": f"{kernel.name}-exact",
                    "seconds": limit["seconds"],
                    "train_error": level["train_error"],
                    "test_error": level["test_error"],
                }
            )
            table += [time_cells(fit, f"{kernel.title}, EigenPro"), exact_cells(limit, kernel)]
        for network in NETWORKS:
            run = results[whole_network(setting, data, network)]
            curve(panel, seconds_until(run), run["curves"]["val/error"], network.title, **network.style)
            shown.append(run["curves"]["val/error"])
            rows += time_rows(run, network.name)
            table.append(time_cells(run, network.title))
        panel.set_title(f"{title(setting.data(data))}, n={run['n']}", loc="left")
        seconds_axis(panel, "seconds of training")
        percent_axis(panel, "test error" if panel is axes[0, 0] else "")
        panel.set_ylim(error_limits(shown))
    legend_below(figure, columns=3)
    return figure, rows, table


def kernel_style(kernel: KernelSpec) -> dict[str, Any]:
    """Colour and marker of a kernel."""
    return {"color": OF_KERNEL[kernel.name], "marker": MARKERS[list(OF_KERNEL).index(kernel.name)]}


def seconds_until(run: Result) -> list[float]:
    """Seconds of training steps at the end of each epoch."""
    return list(accumulate(run["seconds_per_epoch"]))


def error_limits(errors: Sequence[Sequence[float]]) -> tuple[float, float]:
    """A range in which the ends of the curves can be told apart: first epochs may lie above it."""
    last = [each[-1] for each in errors]
    return 0.8 * min(last), min(1.05 * max(map(max, errors)), 2.5 * max(last))


def time_rows(run: Result, model: str) -> list[dict[str, Any]]:
    """A record for each epoch."""
    curves = run["curves"]
    return [
        {
            "part": "time",
            "data": run["data_source"],
            "n": run["n"],
            "model": model,
            "epoch": i + 1,
            "seconds": seconds,
            "train_error": curves["train/error"][i],
            "test_error": curves["val/error"][i],
        }
        for i, seconds in enumerate(seconds_until(run))
    ]


def time_cells(run: Result, name: str) -> tuple[str, ...]:
    """A run as a row of the table."""
    errors = run["curves"]["val/error"]
    return (
        f"{title(run['data_source'])} n={run['n']}, {name}",
        f"{errors[-1]:.2%}",
        f"{run['final']['train/error']:.3%}",
        f"{min(errors):.2%}",
        str(run["epochs"]),
        f"{sum(run['seconds_per_epoch']):.1f}",
    )


def exact_cells(result: Result, kernel: KernelSpec) -> tuple[str, ...]:
    """An exact limit as a row of the table."""
    level = result["levels"][0]
    name = f"{title(result['data_source'])} n={result['n']}, {kernel.title}, exact"
    return (name, f"{level['test_error']:.2%}", f"{level['train_error']:.3%}", "", "", f"{result['seconds']:.1f}")


def noise_figure(setting: Setting, results: Results, names: Sequence[str]) -> Shown:
    """Test error against clean labels by the fraction of noised training labels."""
    figure, axes = panels(1, len(names), width=3.4, height=2.8)
    rows: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = []
    for panel, data in zip(axes[0], names, strict=True):
        found = noise_curves(setting, results, data)
        solved = results[noisy(setting, data, setting.kernels(data)[0])]
        where = {"part": "noise", "data": solved["data_source"], "n": solved["n"]}
        for name, (values, style) in found.items():
            panel.plot(NOISES, values, label=name, **style)
            rows += [
                {**where, "model": name, "noise": noise, "test_error": value}
                for noise, value in zip(NOISES, values, strict=True)
            ]
            table.append((f"{title(where['data'])} n={where['n']}, {name}", *(f"{value:.2%}" for value in values)))
        panel.set_title(f"{title(setting.data(data))}, n={where['n']}", loc="left")
        panel.set_xticks(NOISES, [f"{noise:.0%}" for noise in NOISES])
        panel.set_xlabel("training labels replaced at random")
        percent_axis(panel, "test error, clean labels" if panel is axes[0, 0] else "")
        panel.set_ylim(bottom=0)
    legend_below(figure, columns=3)
    return figure, rows, table


def noise_curves(setting: Setting, results: Results, data: str) -> dict[str, tuple[list[float], dict[str, Any]]]:
    """Test errors at NOISES by model, with the style of the line."""
    found: dict[str, tuple[list[float], dict[str, Any]]] = {}
    for kernel in setting.kernels(data):
        levels = results[noisy(setting, data, kernel)]["levels"]
        found[f"{kernel.title}, exact"] = ([level["test_error"] for level in levels], kernel_style(kernel))
    for network in NETWORKS:
        runs = [results[noisy_network(setting, data, network, noise)]["curves"]["val/error"] for noise in NOISES]
        found[f"{network.title}, last epoch"] = ([errors[-1] for errors in runs], network.style)
        best = {**network.style, "linestyle": ":", "markerfacecolor": "white"}
        found[f"{network.title}, best epoch"] = ([min(errors) for errors in runs], best)
    return found


def claim(setting: Setting, results: Results, data: str, level: int) -> Claim:
    """That models which fit noised labels lose less by it than a nearest neighbour, which repeats each wrong label."""
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
