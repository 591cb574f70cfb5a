"""The picture of a learnt metric: its diagonal, its leading eigenvectors, and the rounds that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec, SubplotSpec
from matplotlib.ticker import FuncFormatter, MaxNLocator

from callbacks.figures import BLUE, GREY, ORANGE, figure_style, new_figure, short_name

COLUMNS = 20  # bars of the diagonal
VECTORS, VECTOR_BARS = 3, 18  # eigenvectors over features at most, and the bars of all of them
IMAGES = 6  # eigenvectors as images at most
LEAST_SHARE = 1e-3  # of the trace; eigenvectors below it are not drawn
VISIBLE = 0.01  # of the largest entry; shorter bars of an eigenvector are left out
LABELLED = 7  # rounds that the legend names at most
LEAST = 1e-9  # eigenvalues below this share of the largest are rounding errors
CHOOSERS = {
    "kfold": "on five parts of the rows",
    "holdout": "on rows held out",
    "loo": "by leave-one-out",
    "validation": "on the validation part",
}


@dataclass(frozen=True)
class Rounds:
    """The rounds of a recursive feature machine."""

    chosen: int
    """The round whose metric is used."""
    spectra: dict[int, np.ndarray]
    """Eigenvalues of M, in descending order, shape (d,), by round; those of round 0, the plain kernel, are 1."""
    scores: Sequence[float]
    """The mean squared error of each round on the rows that choose."""
    by: str = ""
    """What chooses: "kfold", "holdout", "loo" or "validation"."""


@dataclass(frozen=True)
class LearntMetric:
    """A metric M and the names of what it weighs."""

    root: np.ndarray
    """M^(1/2), shape (d, d), or of a diagonal M its diagonal, shape (d,)."""
    names: list[str]
    """Of the d features."""
    columns: list[tuple[str, float]]
    """Name and share of M's diagonal of each column, which may have several features; empty for images."""
    image_shape: tuple[int, ...] = ()
    """(channels, height, width); empty if the rows are no images."""

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of M, shape (d,)."""
        return self.root**2 if self.root.ndim == 1 else (self.root**2).sum(axis=1)

    def eigenvectors(self, count: int) -> list[tuple[float, np.ndarray]]:
        """(share of the trace, unit vector) of the largest eigenvalues, if not tiny; none for a diagonal M.

        The largest entry of each vector is positive, because an eigenvector has no sign of its own.
        """
        if self.root.ndim == 1 or len(self.root) == 1:
            return []
        values, vectors = np.linalg.eigh(self.root)
        values = values**2
        largest = np.argsort(values)[::-1][:count]
        kept = [k for k in largest if values[k] >= LEAST_SHARE * values.sum()]
        return [(values[k] / values.sum(), vectors[:, k] * _sign(vectors[:, k])) for k in kept]


def features_figure(rounds: Rounds, metric: LearntMetric | None, name: str = "") -> Figure:
    """The diagonal, the eigenvectors (of a full metric), and over the rounds the spectra and scores.

    Without a metric, where the plain kernel is the best, only the rounds are drawn.
    """
    with figure_style():
        if metric is None:
            figure = new_figure(7.2, 3.0)
            _draw_rounds(figure, figure.add_gridspec(1, 2), rounds)
            figure.suptitle(_escaped(f"{name}: the plain kernel (round 0) is kept"), fontsize=10)
            return figure
        vectors = metric.eigenvectors(IMAGES if metric.image_shape else VECTORS)
        widths = [1.2, 1.2, 1.0] if vectors else [1.0, 0.9]
        width = 7.6 if not vectors else 11.0 if metric.image_shape else 12.0  # names need room
        figure = new_figure(width, 5.2)
        spec = figure.add_gridspec(1, len(widths), width_ratios=widths)
        if metric.image_shape:
            _draw_image(figure.add_subplot(spec[0]), metric)
            _draw_image_vectors(figure, spec[1], vectors, metric.image_shape)
        else:
            _draw_columns(figure.add_subplot(spec[0]), metric.columns)
            _draw_vectors(figure, spec[1], vectors, metric.names)
        _draw_rounds(figure, spec[len(widths) - 1].subgridspec(2, 1), rounds)
        spectrum = rounds.spectra.get(rounds.chosen)
        rank = "" if spectrum is None else f", effective rank {effective_rank(spectrum):.3g}"
        kind = "diagonal" if metric.root.ndim == 1 else "full"
        figure.suptitle(
            _escaped(f"{name}: the {kind} metric M of round {rounds.chosen}, d = {len(metric.diagonal)}{rank}"),
            fontsize=10,
        )
    return figure


def effective_rank(
    eigenvalues: np.ndarray,  # at least 0, not all of them 0, shape: (d,)
) -> float:
    """exp(-sum_i p_i log p_i), p = eigenvalues / sum: from 1, where one direction counts, to d, where all count alike.

    Source: Roy, Vetterli 2007, "The effective rank", definition 1.

    Example:
        >>> round(effective_rank(np.array([2.0, 2.0, 0.0])), 6)
        2.0
    """
    shares = eigenvalues[eigenvalues > 0] / eigenvalues.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _draw_columns(axes: Axes, columns: list[tuple[str, float]]) -> None:
    """The largest shares as horizontal bars, the largest on top."""
    largest = sorted(columns, key=lambda each: -each[1])[:COLUMNS]
    _bars(axes, [name for name, _ in largest], [share for _, share in largest], slots=8)
    axes.bar_label(axes.containers[0], [_percent(share) for _, share in largest], fontsize=7, padding=2)  # type: ignore[arg-type]
    axes.set_xlim(0, 1.13 * largest[0][1])
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel("share of the trace")
    rest = len(columns) - len(largest)
    more = f", largest {len(largest)} of {len(columns)} columns" if rest else ""
    axes.set_title(f"Diagonal of M{more}", loc="left")


def _draw_vectors(figure: Figure, spec: SubplotSpec, vectors: list[tuple[float, np.ndarray]], names: list[str]) -> None:
    """Of each eigenvector the entries that are largest in absolute value."""
    if not vectors:
        return
    grid = spec.subgridspec(len(vectors), 1)
    for k, (share, vector) in enumerate(vectors):
        axes = figure.add_subplot(grid[k])
        count = VECTOR_BARS // len(vectors)
        sizes = np.abs(vector)
        largest = [j for j in np.argsort(-sizes, kind="stable")[:count] if sizes[j] >= VISIBLE * sizes.max()]
        _bars(axes, [names[j] for j in largest], [float(vector[j]) for j in largest], slots=count)
        axes.axvline(0, color=GREY, linewidth=0.8)
        most = 1.08 * float(sizes.max())
        axes.set_xlim(-most if vector[largest].min() < 0 else 0, most)
        axes.set_title(f"Eigenvector {k + 1}: {_percent(share)} of trace", loc="left")


def _draw_image(axes: Axes, metric: LearntMetric) -> None:
    """The diagonal as an image, summed over the channels."""
    pixels = metric.diagonal.reshape(metric.image_shape).sum(axis=0)
    shown = axes.imshow(pixels / pixels.sum(), cmap="magma", vmin=0)
    axes.set_axis_off()
    summed = ", summed over channels" if metric.image_shape[0] > 1 else ""
    axes.set_title(f"Diagonal of M{summed}", loc="left")
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.7, location="bottom", label="share of the trace")
    bar.ax.xaxis.set_major_formatter(FuncFormatter(_percent))


def _draw_image_vectors(
    figure: Figure, spec: SubplotSpec, vectors: list[tuple[float, np.ndarray]], shape: tuple[int, ...]
) -> None:
    """Eigenvectors as images: 0 is white, or grey where the three channels are colours."""
    if not vectors:
        return
    grid = spec.subgridspec(IMAGES // 2, 2)
    for k, (share, vector) in enumerate(vectors):
        axes = figure.add_subplot(grid[divmod(k, 2)])
        pixels = vector.reshape(shape)
        most = float(np.abs(pixels).max())
        if shape[0] == 3:
            axes.imshow(0.5 + 0.5 * pixels.transpose(1, 2, 0) / most)
        else:
            pixels = pixels.sum(axis=0)
            most = float(np.abs(pixels).max()) or 1.0
            axes.imshow(pixels, cmap="RdBu", vmin=-most, vmax=most)
        axes.set_axis_off()
        axes.set_title(f"Eigenvector {k + 1}: {_percent(share)}", loc="left", fontsize=8)


def _draw_rounds(figure: Figure, grid: GridSpec | GridSpecFromSubplotSpec, rounds: Rounds) -> None:
    """The spectrum of each round above, or left of, the score of each round."""
    spectrum, score = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    learnt = sorted(set(rounds.spectra) - {0})
    named = {0, rounds.chosen, *learnt[:: max(1, -(-len(learnt) // (LABELLED - 2)))]}
    d = len(next(iter(rounds.spectra.values())))
    for number in sorted(rounds.spectra):
        values = rounds.spectra[number] / rounds.spectra[number].sum()
        shown = values > LEAST * values[0]
        is_chosen = number == rounds.chosen
        colour = ORANGE if is_chosen else GREY if number == 0 else _shade(learnt.index(number), len(learnt))
        label = f"round {number}" + (", chosen" if is_chosen else "") if number in named else None
        spectrum.plot(
            np.arange(1, d + 1)[shown],
            values[shown],
            color=colour,
            label=label,
            linewidth=2.0 if is_chosen else 1.1,
            linestyle="--" if number == 0 else "-",
            marker="o" if d <= 30 else None,
            zorder=3 if is_chosen else 2,
        )
    spectrum.set_yscale("log")
    if d > 30:
        spectrum.set_xscale("log")
    else:
        spectrum.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    spectrum.set_xlabel("index i")
    spectrum.set_ylabel("share of the trace")
    spectrum.set_title("Eigenvalues of M", loc="left")
    spectrum.legend(fontsize=7, loc="best")
    score.plot(range(len(rounds.scores)), rounds.scores, "o-", color=BLUE)
    if rounds.chosen < len(rounds.scores):
        score.plot([rounds.chosen], [rounds.scores[rounds.chosen]], "o", color=ORANGE, markersize=7)
    score.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    score.set_ylim(0, 1.1 * max(rounds.scores) or 1.0)
    score.set_xlabel("round (0: the plain kernel)")
    score.set_ylabel("mean squared error")
    score.set_title(f"Score {CHOOSERS.get(rounds.by, '')}".rstrip(), loc="left")


def _bars(axes: Axes, names: list[str], values: list[float], slots: int) -> None:
    """Horizontal bars, the first on top, of one height for all numbers of bars up to `slots`."""
    colours = [BLUE if value >= 0 else ORANGE for value in values]
    axes.barh(range(len(values)), values, color=colours, height=0.72)
    # Without mathematics: a name may have a $.
    axes.set_yticks(range(len(names)), [short_name(name) for name in names], fontsize=8, parse_math=False)
    axes.set_ylim(max(len(values), slots) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _percent(share: float, position: int | None = None) -> str:
    """A share in percent to two digits; matplotlib asks for it with a position, too."""
    if 0 < share < 1e-4:
        return "<0.01%"
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")


def _sign(vector: np.ndarray) -> float:
    return 1.0 if vector[np.abs(vector).argmax()] >= 0 else -1.0


def _shade(place: int, count: int) -> tuple[float, ...]:
    """Light blue for the first of `count` rounds, up to full blue for the last."""
    strength = 0.35 + 0.65 * (place + 1) / count
    return tuple(1 - strength * (1 - part) for part in to_rgb(BLUE))
