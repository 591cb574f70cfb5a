"""The test or validation images that the machine gets most confidently wrong."""

from __future__ import annotations

import logging
import math

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.common import Machine, val_name
from callbacks.figures import figure_style, log_figure, new_figure
from callbacks.scores import class_names, val_labels, val_scores
from kl.checks import check_count
from kl.machines.data_facts import facts_of

log = logging.getLogger(__name__)


class WorstErrors(pl.Callback):
    """Logs the figure val/worst_errors at the end of training: the misclassified images of val/* with largest margins.

    The margin is f_predicted(x) - f_true(x), in units of the one-hot targets; true labels are the clean ones. Nothing
    is drawn if the data are not images of one or three channels, under fast_dev_run, or if no image is misclassified.

    Args:
        count: images at most.

    Attributes:
        rows: the indices of these images in the data module's val_set, the worst first; None before the end.

    Raises:
        InputError: count is not a whole number of at least 1.
    """

    def __init__(self, count: int = 16) -> None:
        self.count = check_count("count", count)
        self.rows: list[int] | None = None

    # Not at fit end: by then Lightning has taken the machine off the GPU.
    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Evaluate, draw and log."""
        shape = pl_module.data_info.get("image_shape") or []
        scores = val_scores(trainer, pl_module) if len(shape) == 3 and shape[0] in (1, 3) else None
        evaluated = facts_of(trainer).val_set
        if scores is None or evaluated is None:
            return
        labels, names = val_labels(trainer), class_names(pl_module, scores.shape[1])
        margins = error_margins(scores, labels)
        worst = margins.argsort(descending=True, stable=True)[: min(self.count, int((margins > 0).sum()))]
        self.rows = worst.tolist()
        if not self.rows:
            log.info("no %s image is misclassified: there are no worst errors to draw", val_name(trainer))
            return
        triples = zip(
            scores[worst].argmax(dim=1).tolist(), labels[worst].tolist(), margins[worst].tolist(), strict=True
        )
        captions = [f"{names[predicted]}, not {names[true]}\nby {margin:.2f}" for predicted, true, margin in triples]
        images = evaluated.x[worst].view(-1, *shape)
        log_figure(trainer, "val/worst_errors", images_figure(images, captions, val_name(trainer)))


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
    with figure_style():
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
