"""The reliability diagram: how often the predicted class is right, by the probability that it is given."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures import BLUE, GREY, figure_style, new_figure
from kl.probabilities import BINS


def reliability_figure(
    probabilities: Tensor,  # shape: (n, c)
    labels: Tensor,  # shape: (n,)
) -> Figure:
    """Share of right predictions in 15 bins of the predicted class's probability, above a histogram of the rows.

    Source: Guo et al. 2017, arXiv:1706.04599, figure 1.
    """
    top, predicted = (each.numpy() for each in probabilities.max(dim=1))
    right = predicted == labels.numpy()
    places = np.clip((top * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    there = counts > 0
    shares = np.bincount(places, right, minlength=BINS)[there] / counts[there]
    means = np.bincount(places, top, minlength=BINS)[there] / counts[there]
    gap = float(np.sum(np.abs(shares - means) * counts[there]) / len(top))
    with figure_style():
        figure = new_figure(4.2, 4.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
        above.plot(means, shares, "o-", color=BLUE, label="test rows")
        above.set_ylabel("share that is right")
        above.set_title(f"expected calibration error {gap:.3f}", loc="left")
        above.legend(loc="upper left")
        below.bar((np.arange(BINS) + 0.5) / BINS, counts, width=0.9 / BINS, color=BLUE)
        below.set_xlabel("probability of the predicted class")
        below.set_ylabel("rows")
        below.set_xlim(0, 1)
    return figure
