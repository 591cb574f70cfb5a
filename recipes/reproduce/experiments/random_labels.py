"""Epochs until no training row is misclassified, with the original labels and with fully random ones."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from callbacks.figures import CYCLE
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, Style, finish, panel, panels, scale
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.network import Network
from recipes.reproduce.published import (
    B18,
    EPOCHS_TO_FIT,
    EPOCHS_TO_FIT_SOURCE,
    NETWORK_RATIO,
    NETWORK_RATIO_SOURCE,
)
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import overfitted, whole
from recipes.reproduce.sweep.point import Point, Result, Results
from recipes.reproduce.table import DataFrame, by_epoch, derived, groups, rows_of, sweep_table

NOISES = (0.0, 1.0)  # original and fully random
TICKS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LINES = {"original": "-", "random": "-."}
# Markers of the first epoch without errors; the marker of random labels is hollow, so that both remain visible.
MARKERS: dict[str, Style] = {
    "original": {"marker": "o", "markersize": 4.5},
    "random": {"marker": "s", "markersize": 7.5, "markerfacecolor": "none"},
}


@dataclass(frozen=True)
class Model:
    """A model, its two runs, and how it is drawn."""

    name: str
    title: str
    colour: str
    original: Point
    random: Point


class RandomLabels(Experiment):
    """[B18] Tables 1-2 for MNIST, with EigenPro 2 in place of EigenPro 1, and with a ReLU network."""

    name = "random-labels"
    title = "Epochs to zero training error: original and fully random labels, two kernels and a ReLU network"
    source = f"{B18} Tables 1-2"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """Two runs for each model."""
        return [point for model in models(setting) for point in (model.original, model.random)]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A panel for each model."""
        found = models(setting)
        of = {point: model for model in found for point in (model.original, model.random)}
        runs = sweep_table(
            of,
            results,
            model=lambda run: of[run["point"]].name,
            title=lambda run: of[run["point"]].title,
            colour=lambda run: of[run["point"]].colour,
            labels=lambda run: "random" if run["noise"] else "original",
            style=lambda run: {"color": run["colour"], "linestyle": LINES[run["labels"]]},
            epochs_text=lambda run: epochs_text(run["fitted_epoch"], run["epochs"]),
        )
        figure, (axes,) = panels(1, len(found), width=2.5, height=2.6, sharex=True, sharey=True)
        for each, own in zip(axes, groups(runs, "model"), strict=True):
            draw(each, own)
        axes[0].set_xlim(0.85, 1.3 * runs["epochs"].max())
        finish(figure, columns=2)
        for handle in figure.legends[0].get_lines():
            handle.set_color("black")  # the line style shows the labels, the panel the model
        rate = learning_rate(setting)
        return Presentation(
            figures={"random-labels": figure},
            rows=rows_of(by_epoch(runs), "data n model labels epoch train_error"),
            comparisons=compare(found, results) if setting.scale == "full" else [],
            claims=[fits_claim(found, results), *ratio_claims(found, results)],
            tables=[
                Table.of(
                    "{set}, n={n}: epochs to zero training error",
                    runs,
                    ("", "{title}, {labels} labels"),
                    ("epochs", "{epochs_text}"),
                    ("training error", "{final[train/error]:.3%}"),
                    ("test error, true labels", "{final[val/error]:.2%}"),
                ),
                Table(
                    "epochs on random labels / on original ones",
                    ("", "ratio"),
                    [(each.title, ratio_text(ratio(results[each.original], results[each.random]))) for each in found],
                ),
            ],
            sentences=[
                "EigenPro 2 chooses its own batch size and number of eigenvectors, EigenPro 1 of the paper had 256 and "
                "160: epochs of the two are not of one method, their ratio over labels is closer to comparable.",
                "The network is trained on the cross-entropy by SGD with momentum at a constant learning rate of "
                f"{rate:g}, else not tuned; for epochs of networks optimiser and batch size matter as much as labels.",
            ],
        )


def models(setting: Setting) -> list[Model]:
    """Both kernels and the fully connected network, on the same rows."""
    sample = whole(setting, "mnist", setting.kernels("mnist")[0]).sample
    cap = setting.choose(tiny=100, quick=300, full=900)
    found = []
    for kernel in reversed(setting.kernels("mnist")):
        fits = [overfitted(sample, kernel, noise, cap) for noise in NOISES]
        found.append(Model(kernel.name, kernel.title, OF_KERNEL[kernel.name], *fits))
    cap = setting.choose(tiny=100, quick=200, full=400)
    nets = [
        Network(
            sample=sample,
            widths=setting.choose(tiny=(256, 256), quick=(512, 512), full=(512, 512)),
            noise=noise,
            epochs=cap,
            until_interpolated=True,
            test_every=0,
            batch_size=setting.choose(tiny=32, quick=256, full=256),
            learning_rate=learning_rate(setting),
        )
        for noise in NOISES
    ]
    return [*found, Model("mlp", "ReLU network", CYCLE[2], *nets)]


def learning_rate(setting: Setting) -> float:
    """The network's learning rate; at 0.1, Zhang et al.'s initial rate, 14% of 60000 random labels stay unfitted."""
    return float(setting.choose(tiny=0.1, quick=0.1, full=0.01))


def draw(axes: Axes, runs: DataFrame) -> None:
    """Training error of a model's runs by epoch, with a marker at the foot at the first epoch without errors."""
    n = runs["n"].iat[0]
    curves = derived(by_epoch(runs), drawn=lambda row: max(row["train_error"], zero_at(n)))
    ticks = {zero_at(n): "0"} | {tick: f"{100 * tick:g}%" for tick in TICKS if tick > 2 * zero_at(n)}
    epoch = scale("epoch", 10, form=lambda value: f"{value:g}")
    scales: Style = {"across": epoch, "up": scale("training error", 10, ticks=ticks)}
    panel(axes, curves, "epoch", "drawn", "labels", "style", label="{labels} labels", title="{title}", **scales)
    for run in rows_of(runs[runs["fitted_epoch"].notna()]):
        marker: Style = {"color": run["colour"], "clip_on": False, "zorder": 3, **MARKERS[run["labels"]]}
        axes.plot([run["fitted_epoch"]], [zero_at(n)], **marker)
    axes.set_ylim(zero_at(n), 1.3)


def zero_at(n: int) -> float:
    """The position of error 0 on a logarithmic axis, below 1/n, the smallest error above 0."""
    return 0.4 / n


def epochs_text(fitted: int | None, epochs: int) -> str:
    """The first epoch without training error as text, or "not reached"."""
    return str(fitted) if fitted else f"not reached in {epochs} epochs"


def ratio(original: Result, random: Result) -> tuple[float, bool] | None:
    """The ratio of epochs on random labels to epochs on original ones, and whether it is only a lower bound.

    It is a lower bound if random labels were not fitted within the cap; None if the original labels were not fitted.
    """
    first, second = original["fitted_epoch"], random["fitted_epoch"]
    if first is None:
        return None
    return (second or random["epochs"]) / first, second is None


def ratio_text(value: tuple[float, bool] | None) -> str:
    """The ratio or its lower bound as text."""
    return "not reached" if value is None else f"{'more than ' * value[1]}{value[0]:.2g}"


def compare(found: list[Model], results: Results) -> list[Comparison]:
    """Epochs and their ratios compared with the published ones."""
    comparisons = []
    for model in found:
        runs = results[model.original], results[model.random]
        published = EPOCHS_TO_FIT.get(model.name)
        for i, (run, labels) in enumerate(zip(runs, ("original", "random"), strict=True)):
            if published is not None:
                note = "EigenPro 2 here, EigenPro 1 there"
                if run["fitted_epoch"] is None:
                    note = f"not reached in {run['epochs']} epochs; {note}"
                comparisons.append(
                    Comparison(
                        f"{model.title}: epochs, {labels} labels",
                        run["fitted_epoch"],
                        published[i],
                        EPOCHS_TO_FIT_SOURCE,
                        note=note,
                    )
                )
        known = ratio(*runs)
        comparisons.append(
            Comparison(
                f"{model.title}: ratio random / original",
                None if known is None or known[1] else known[0],
                NETWORK_RATIO if published is None else published[1] / published[0],
                NETWORK_RATIO_SOURCE if published is None else EPOCHS_TO_FIT_SOURCE,
                note=f"{ratio_text(known)} here" if known is None or known[1] else "",
            )
        )
    return comparisons


def fits_claim(found: list[Model], results: Results) -> Claim:
    """That random labels can be fitted without an error, by kernels as by networks."""
    missing = [model for model in found if results[model.random]["fitted_epoch"] is None]
    return Claim(
        "Kernel machines, like ReLU networks, fit fully random labels without an error",
        None if missing else True,
        "; ".join(
            f"{model.title}: {epochs_text(results[model.random]['fitted_epoch'], results[model.random]['epochs'])}"
            for model in found
        ),
        f"{B18} section 3",
    )


def ratio_claims(found: list[Model], results: Results) -> list[Claim]:
    """That random labels multiply the epochs of the Gaussian and of the network by more than the Laplacian's."""
    known = {model.name: ratio(results[model.original], results[model.random]) for model in found}
    seen = "; ".join(f"{model.title}: {ratio_text(known[model.name])}" for model in found)
    return [
        Claim(
            f"Random labels multiply the epochs of the {larger} by more than those of the Laplacian",
            is_larger(known[name], known["laplacian"]),
            seen,
            source,
        )
        for name, larger, source in (
            ("gaussian", "Gaussian", EPOCHS_TO_FIT_SOURCE),
            ("mlp", "ReLU network", f"{EPOCHS_TO_FIT_SOURCE}; {NETWORK_RATIO_SOURCE}"),
        )
    ]


def is_larger(first: tuple[float, bool] | None, second: tuple[float, bool] | None) -> bool | None:
    """Whether the first ratio is larger than the second; None if missing ratios or bounds leave it open."""
    if first is None or second is None or second[1]:
        return None
    return True if first[0] > second[0] else (None if first[1] else False)
