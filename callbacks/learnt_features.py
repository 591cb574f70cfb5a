"""What a machine that learns its metric has learnt: scalars of every round, and a picture at the end."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from callbacks.common import Machine
from callbacks.features_figure import LearntMetric, Rounds, effective_rank, features_figure
from callbacks.figures import log_figure
from kl.errors import CheckpointError
from kl.machines.checkpoints import require_values
from kl.rows.table import TableEncoding

log = logging.getLogger(__name__)


class LearntFeatures(pl.Callback):
    """Logs and draws the metric M of a machine that learns one; of other machines nothing.

    An epoch of a `kl.RecursiveFeatureMachine` is a round. A `kl.GeneralKernelMachine` has the metric of its best round
    from the first epoch on, so its figure shows the eigenvalues of that round alone, and the scores of all.

    Every epoch logs features/effective_rank, the exponential of the entropy of M's eigenvalues divided by their sum,
    which is d for the plain kernel, and features/bandwidth where the kernel has one. The figure `features`, at the end
    of training, also as log_dir/figures/features.png and features.svg, shows the diagonal of M by column or as an
    image; of a full M the leading eigenvectors; the eigenvalues and the score of each round. It is drawn again after
    `trainer.test` if weights of another round are tested. If the plain kernel is the best, only the rounds are drawn.

    Attributes:
        spectra: the eigenvalues of M, in descending order, by round; part of the checkpoint, so that a resumed run has
            those of all rounds.
        scores: the score of each round; see the machine.
        path: the PNG file; None before it is written.

    Source: Roy, Vetterli 2007, "The effective rank".
    """

    def __init__(self) -> None:
        self.spectra: dict[int, list[float]] = {}
        self.scores: list[float] = []
        self.path: Path | None = None
        self._by, self._drawn = "", -1

    def setup(self, trainer: pl.Trainer, pl_module: Machine, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's spectra are loaded after this."""
        if stage == "fit":
            self.spectra, self.scores, self.path, self._drawn = {}, [], None, -1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Keep the round's eigenvalues and score, and log."""
        if not learns_kernel(pl_module):
            return
        found = spectrum_of(pl_module)
        self.spectra[pl_module.round], self.scores = found.tolist(), list(pl_module.scores)
        self._by = pl_module.chosen_by
        values = {"features/effective_rank": effective_rank(found)}
        bandwidth = getattr(pl_module.kernel, "bandwidth", None)
        if isinstance(bandwidth, int | float):
            values["features/bandwidth"] = float(bandwidth)
        pl_module.log_dict(values, batch_size=1)

    # Not at fit end: by then Lightning has taken the machine off the GPU.
    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Draw and log."""
        self._draw(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Draw again if the weights that are tested are of another round, as those of a best epoch may be."""
        if self._drawn >= 0 and pl_module.round != self._drawn:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, machine: Machine) -> None:
        if not learns_kernel(machine) or trainer.fast_dev_run or not self.spectra:  # type: ignore[attr-defined]
            return
        self._drawn = machine.round
        if not any(self.spectra):
            log.info("no metric was learnt, so there are no features to draw")
            return
        rounds = Rounds(machine.round, {k: np.array(each) for k, each in self.spectra.items()}, self.scores, self._by)
        figure = features_figure(rounds, learnt_metric(machine), str(machine.data_info.get("name", "")))
        self.path = log_figure(trainer, "features", figure, svg=True)

    def state_dict(self) -> dict[str, Any]:
        """The spectra, as plain lists; nothing of machines that learn no metric."""
        return {"spectra": {number: list(each) for number, each in self.spectra.items()}} if self.spectra else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the spectra of a checkpoint.

        Raises:
            CheckpointError: `state_dict` does not hold spectra.
        """
        require_values("spectra", state_dict, {"spectra": dict[int, list[float]]})
        for number, values in state_dict["spectra"].items():
            if not values or not all(math.isfinite(value) and value >= 0 for value in values):
                raise CheckpointError(f"its spectrum of round {number} must be numbers of at least 0: train again")
        self.spectra = {number: list(each) for number, each in state_dict["spectra"].items()}


def learns_kernel(module: pl.LightningModule) -> bool:
    """Whether a module is a machine that learns a metric; a network, or a user's module, is none."""
    return bool(getattr(module, "learns_kernel", False))


def spectrum_of(machine: Machine) -> np.ndarray:
    """The eigenvalues of M, in descending order, shape (d,), float64; ones for the plain kernel."""
    root = machine.root
    if root is not None and root.ndim == 2:
        return torch.linalg.eigvalsh(root.cpu()).square().sort(descending=True).values.numpy()
    return machine.importances.cpu().sort(descending=True).values.numpy()


def learnt_metric(machine: Machine) -> LearntMetric | None:
    """The machine's metric for a figure; None for the plain kernel."""
    if machine.root is None:
        return None
    d, encoding = len(machine.root), _table_of(machine)
    names = [str(j) for j in range(d)] if encoding is None else encoding.feature_names
    columns = [] if image_shape_of(machine) else list(column_shares(machine).items())
    return LearntMetric(machine.root.cpu().numpy(), names, columns, image_shape_of(machine))


def feature_importances(machine: Machine) -> dict[str, float] | list[float]:
    """Shares of M's diagonal, which sum to 1: by column as `column_shares`, and of images a list in pixel order."""
    return _shares(machine).tolist() if image_shape_of(machine) else column_shares(machine)


def column_shares(machine: Machine) -> dict[str, float]:
    """Each column's share of M's diagonal: the sum of its features', as of a category's one-hot features.

    Columns have the names of the table; of data that are no table, their numbers.
    """
    shares, encoding = _shares(machine), _table_of(machine)
    if encoding is None:
        return {str(j): share for j, share in enumerate(shares.tolist())}
    widths = [column.width for column in encoding.columns]
    parts = np.split(shares, np.cumsum(widths)[:-1])
    return {column.name: float(part.sum()) for column, part in zip(encoding.columns, parts, strict=True)}


def image_shape_of(machine: Machine) -> tuple[int, ...]:
    """(channels, height, width) if the rows are images, else ()."""
    shape = tuple(machine.data_info.get("image_shape") or ())
    return shape if len(shape) == 3 and math.prod(shape) == machine.centers.shape[1] else ()


def _shares(machine: Machine) -> np.ndarray:
    diagonal = machine.importances.cpu().numpy()
    return diagonal / diagonal.sum()


def _table_of(machine: Machine) -> TableEncoding | None:
    plain = machine.data_info.get("table")
    return TableEncoding.from_dict(plain) if plain else None
