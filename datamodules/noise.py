"""Label noise: a fraction eps of the labels is replaced, drawn with a seed of its own. Pure functions."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from torch import Tensor

from datamodules.sampling import count_of
from kl.errors import InputError

NOISE_KINDS = ("random", "flip")


def add_label_noise(
    labels: Tensor,  # shape: (n,), long
    eps: float,
    num_classes: int,
    kind: str = "random",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Replace round(eps n) of the labels, halves up, at positions drawn without replacement.

    kind "random" draws the new label uniformly over all c classes, so a replaced label keeps its value with
    probability 1/c; kind "flip" draws uniformly over the other c - 1 classes, so every replaced label changes.

    Args:
        labels: class indices 0..c-1, shape (n,); not modified.
        eps: fraction of labels to replace, in [0, 1].
        num_classes: c.
        kind: "random" or "flip".
        seed: seed of the noise alone; the global random state is neither read nor changed.

    Returns:
        The noisy labels, shape (n,), and the mask of replaced ones, shape (n,), bool.

    Raises:
        InputError: eps outside [0, 1] or NaN, unknown kind, or labels outside 0..c-1.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 4 and Proposition 1 ("random").

    Example:
        >>> noisy, replaced = add_label_noise(torch.zeros(10, dtype=torch.long), 0.3, 2, kind="flip")
        >>> noisy.sum().item(), replaced.sum().item()
        (3, 3)
    """
    check_noise(eps, kind)
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise InputError(
            f"labels must be in 0..{num_classes - 1} for {num_classes} classes; "
            f"got {int(labels.min())}..{int(labels.max())}"
        )
    if kind == "flip" and eps > 0 and num_classes < 2:
        raise InputError("noise_kind='flip' needs at least two classes to flip between; got 1")
    count = count_of(eps, len(labels))
    rng = np.random.default_rng(seed)
    replaced = torch.from_numpy(rng.permutation(len(labels))[:count])
    noisy = labels.clone()
    if kind == "random":
        noisy[replaced] = torch.from_numpy(rng.integers(num_classes, size=count))
    else:
        # A shift by 1..c-1 modulo c is uniform over the other classes.
        shift = torch.from_numpy(rng.integers(1, max(num_classes, 2), size=count))
        noisy[replaced] = (labels[replaced] + shift) % num_classes
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[replaced] = True
    return noisy, mask


def check_noise(eps: float, kind: str) -> None:
    """Raise InputError unless eps is a fraction and kind is known."""
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= eps <= 1:
        raise InputError(
            f"label_noise must be a fraction in [0, 1]; got {eps!r}: for ten percent of the labels give 0.1"
        )
    if kind not in NOISE_KINDS:
        raise InputError(f"noise_kind must be 'random' or 'flip'; got {kind!r}")


def noisy_bayes_error(clean_error: float, eps: float, num_classes: int, kind: str = "random") -> float:
    """Bayes error against noisy labels: eps (c-1)/c + (1-eps) * clean_error for kind "random".

    "flip" with fraction eps is "random" with fraction eps c/(c-1). Beyond eps = (c-1)/c the true class is the
    least likely label; with two classes the best rule is then the opposite one.

    Raises:
        InputError: as `add_label_noise`; also "flip" beyond (c-1)/c with c > 2, where the clean error does
            not determine the noisy one.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, Proposition 1.

    Example:
        >>> round(noisy_bayes_error(0.0, 0.1, 10), 3), round(noisy_bayes_error(0.1, 0.8, 2, kind="flip"), 3)
        (0.09, 0.26)
    """
    check_noise(eps, kind)
    if kind == "flip":
        if num_classes == 2:
            eps = min(eps, 1 - eps)
        eps = eps * num_classes / (num_classes - 1)
        if eps > 1 + 1e-9:
            limit = (num_classes - 1) / num_classes
            raise InputError(f"the Bayes error under 'flip' noise is known up to label_noise={limit:.4g}; got more")
    return eps * (num_classes - 1) / num_classes + (1 - eps) * clean_error
