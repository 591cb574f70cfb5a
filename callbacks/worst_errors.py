"""The test or validation rows that the machine gets most wrong."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.common import Machine, val_name
from callbacks.figures import figure_style, log_figure, new_figure, short_name
from callbacks.scores import class_names, val_labels, val_outputs
from kl.checks import check_count
from kl.machines.data_facts import facts_of

log = logging.getLogger(__name__)


class WorstErrors(pl.Callback):
    """Finds the rows of val/* that the machine gets most wrong at the end of training.

    Of a classifier these are the misclassified rows with the largest margins f_predicted(x) - f_true(x), in units of
    the one-hot targets; true labels are the clean ones. Images of one or three channels are drawn: the figure
    val/worst_errors. For regression they are the rows with the largest residuals |f(x) - y|, in the target's own unit.
    Nothing is done under fast_dev_run and without rows.

    Args:
        count: rows at most.

    Attributes:
        errors: for each such row, the worst first, plain values: "row", its index in the data module's val_set; "true"
            and "predicted", the names of classes, or lists of c outputs; "by", the margin or the residual. None before
            the end.

    Raises:
        InputError: count is not a whole number of at least 1.
    """

    def __init__(self, count: int = 16) -> None:
        self.count = check_count("count", count)
        self.errors: list[dict[str, Any]] | None = None

    # Not at fit end: by then Lightning has taken the machine off the GPU.
    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Evaluate, draw and log."""
        evaluated, outputs = facts_of(trainer).val_set, val_outputs(trainer, pl_module)
        if outputs is None or evaluated is None:
            return
        if not pl_module.is_classifier:
            predicted, true = (pl_module.in_target_units(each).double() for each in (outputs, evaluated.y.cpu()))
            self.errors = largest_residuals(predicted, true, self.count)
            return
        names = class_names(pl_module, outputs.shape[1])
        self.errors = largest_margins(outputs, val_labels(trainer), names, self.count)
        shape = pl_module.data_info.get("image_shape") or []
        if len(shape) != 3 or shape[0] not in (1, 3):
            return
        if not self.errors:
            log.info("no %s image is misclassified: there are no worst errors to draw", val_name(trainer))
            return
        captions = [
            f"{short_name(each['predicted'])}, not {short_name(each['true'])}\nby {each['by']:.2f}"
            for each in self.errors
        ]
        images = evaluated.x[[each["row"] for each in self.errors]].view(-1, *shape)
        log_figure(trainer, "val/worst_errors", images_figure(images, captions, val_name(trainer)))


def largest_margins(
    scores: Tensor,  # shape: (t, c)
    labels: Tensor,  # shape: (t,)
    names: list[str],  # of the c classes
    count: int,
) -> list[dict[str, Any]]:
    """The misclassified rows with the largest margins, at most `count`; see `WorstErrors.errors`."""
    margins, predicted = error_margins(scores, labels), scores.argmax(dim=1)
    worst = margins.argsort(descending=True, stable=True)[: min(count, int((margins > 0).sum()))]
    return [
        {"row": i, "true": names[labels[i]], "predicted": names[predicted[i]], "by": float(margins[i])}
        for i in worst.tolist()
    ]


def largest_residuals(
    predicted: Tensor,  # shape: (t, c)
    true: Tensor,  # shape: (t, c)
    count: int,
) -> list[dict[str, Any]]:
    """The rows with the largest |f(x) - y|, Euclidean over the c outputs, at most `count`; see `WorstErrors.errors`."""
    residuals = (predicted - true).norm(dim=1)
    worst = residuals.argsort(descending=True, stable=True)[:count]
    return [
        {"row": i, "true": true[i].tolist(), "predicted": predicted[i].tolist(), "by": float(residuals[i])}
        for i in worst.tolist()
    ]


def error_margins(
    scores: Tensor,  # shape: (t, c)
    labels: Tensor,  # shape: (t,)
) -> Tensor:
    """f_predicted(x) - f_true(x), shape (t,): above 0 where the row is misclassified, else 0."""
    return scores.amax(dim=1) - scores.gather(1, labels[:, None]).squeeze(1)


def images_figure(
    images: Tensor,  # values in [0, 1], shape: (t, channels, height, width)
    captions: list[str],
    rows: str = "test",  # the name of the rows in the title
) -> Figure:
    """A grid of images with a caption above each."""
    columns = max(4, math.ceil(math.sqrt(len(captions))))  # four make room for the title
    lines = math.ceil(len(captions) / columns)
    longest = max(len(line) for caption in captions for line in caption.split("\n"))
    with figure_style(names=True):
        # A caption in 8 points takes about 0.068 inches a letter.
        figure = new_figure(columns * max(1.2, 0.068 * longest + 0.1), 0.4 + 1.6 * lines)
        figure.suptitle(f"Most confident {rows} errors: predicted class, not the true one", fontsize=9)
        for position, (image, caption) in enumerate(zip(images, captions, strict=True), start=1):
            axes = figure.add_subplot(lines, columns, position)
            pixels = image.clamp(0, 1).permute(1, 2, 0)
            axes.imshow(torch.cat([pixels] * (3 // pixels.shape[2]), dim=2).numpy())
            axes.set_title(caption, fontsize=8)
            axes.set_axis_off()
    return figure
