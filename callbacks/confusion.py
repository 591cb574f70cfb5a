"""The confusion matrix: which classes are mistaken for which."""

from __future__ import annotations

import pytorch_lightning as pl
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from callbacks.common import Machine, val_name
from callbacks.figures import figure_style, log_figure, new_figure, short_name
from callbacks.scores import class_names, val_labels, val_scores

COUNTED_CLASSES = 20  # with more, the counts would not be readable
UNTURNED = 3  # letters of a name that fit below a column
LETTER = 0.07  # inches


class ConfusionMatrix(pl.Callback):
    """Logs the figure val/confusion at the end of training: counts by true (clean) class and predicted class.

    It counts the rows that val/* is computed on. Nothing is drawn for regression, under fast_dev_run, or without rows.

    Attributes:
        matrix: counts, shape (c, c), [true, predicted]; None before the end.
        names: of the classes; empty before the end.

    Source: torchmetrics.
    """

    def __init__(self) -> None:
        self.matrix: Tensor | None = None
        self.names: list[str] = []

    # Not at fit end: by then Lightning has taken the machine off the GPU.
    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Evaluate, draw and log."""
        scores = val_scores(trainer, pl_module)
        if scores is None:
            return
        self.names = names = class_names(pl_module, scores.shape[1])
        self.matrix = multiclass_confusion_matrix(scores, val_labels(trainer), num_classes=len(names))
        log_figure(trainer, "val/confusion", confusion_figure(self.matrix, names, val_name(trainer)))


def confusion_figure(
    matrix: Tensor,  # counts [true, predicted], shape: (c, c)
    names: list[str],
    rows: str = "test",  # the name of the rows in the title
) -> Figure:
    """Counts on a background that shows the fraction of the true class."""
    c, shown = len(names), [short_name(name) for name in names]
    counts = matrix.double().numpy()
    fractions = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    longest = max(map(len, shown))
    size = min(max(1.8 + 0.32 * c, 4.0), 11.0) + LETTER * max(longest - UNTURNED, 0)
    with figure_style(names=True):
        figure = new_figure(size + 0.6, size)
        axes = figure.add_subplot()
        # The root makes the few errors visible beside the full diagonal.
        image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        axes.grid(False)
        if c <= COUNTED_CLASSES:
            for (row, column), count in ((at, int(counts[at])) for at in zip(*counts.nonzero(), strict=True)):
                colour = "white" if fractions[row, column] > 0.35 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        every = range(0, c, max(1, c // 50))
        axes.set_xticks(every, [shown[k] for k in every], rotation=90 if longest > UNTURNED else 0)
        axes.set_yticks(every, [shown[k] for k in every])
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        wrong = counts.sum() - counts.trace()
        axes.set_title(f"{wrong:.0f} of {counts.sum():.0f} {rows} rows wrong ({wrong / counts.sum():.2%})", loc="left")
        figure.colorbar(image, ax=axes, label="fraction of the true class", shrink=0.8)
    return figure
