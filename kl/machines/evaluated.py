"""The base class of every model that trains under Lightning: the description of its data, and metrics over all rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from kl.errors import InputError
from kl.machines.checkpoints import (
    errors_name,
    faults_in,
    read_checkpoint,
    require_arguments,
    require_values,
    require_weights_only,
)
from kl.machines.data_facts import facts_of
from kl.machines.described import Described
from kl.machines.loaders import label_rows
from kl.metrics import EvaluationMetrics
from kl.rows.rows import RowDataset


class EvaluatedModule(Described, pl.LightningModule):
    """A module that is evaluated by sums over a pass of batches (x, y, index).

    A subclass defines `outputs`, and `_measure_training` if it trains.

    Attributes:
        data_info: see `Described`.
        train_metrics: train/* of the last epoch, over all training rows with the weights at the end of the epoch. For a
            stream they are means over the epoch's batches, each before its step, and their names end in _running. They
            are set before validation and before the callbacks' epoch end, unless `max_steps` ended the epoch early.
        eval_metrics: val/* or test/* of the last pass over validation or test data.
    """

    epochs_compared_by: tuple[str, ...] = ("error", "mse")
    """The scores of validation rows by which one epoch is better than another, the first that differs; see
    `callbacks.BestEpoch`."""

    steps_read_rows: bool = True
    """Whether `training_step` reads the features and targets of its batch (x, y, index). A machine that holds all
    training rows needs no copies of them: kl's datamodules then give batches (index,). A subclass whose steps or
    callbacks read more sets it to True."""

    steps_per_batch: int = 1
    """Steps that a training batch of row numbers is for."""

    def __init__(self) -> None:
        super().__init__()
        self.data_info: dict[str, Any] = {}
        self.train_metrics: dict[str, float] = {}
        self.eval_metrics: dict[str, float] = {}
        self._epoch_finished = True

    @abstractmethod
    def outputs(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """The outputs that are compared with the targets, shape (m, c)."""

    def _measure_training(self) -> dict[str, float]:
        """train/* over all training rows, by name."""
        raise NotImplementedError

    # Training

    def choose_steps_per_batch(self) -> int:
        """How many steps a training batch of row numbers is for, which the attribute `steps_per_batch` keeps: one."""
        return self.steps_per_batch

    def on_train_epoch_start(self) -> None:
        """Note that the metrics of this epoch have not been measured yet."""
        self._epoch_finished = False

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the last batch, measure the metrics over all rows, before validation and the callbacks' epoch end."""
        if self.trainer.is_last_batch:
            self._finish_epoch()

    def on_train_epoch_end(self) -> None:
        """Measure the metrics over all rows if `max_steps` ended the epoch before its last batch."""
        if not self._epoch_finished:
            self._finish_epoch()

    def _finish_epoch(self) -> None:
        self._epoch_finished = True
        self.train_metrics = self._measure_training()
        for name, value in self.train_metrics.items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=1, prog_bar=True)

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Start the sums over the validation batches."""
        self.metrics = EvaluationMetrics(self.is_classifier, self.target_scale).to(self.device)

    def on_test_epoch_start(self) -> None:
        """Start the sums over the test batches."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch (x, y, index) to val/mse, val/error and, with label noise, val/error_noisy and val/mse_noisy."""
        self._evaluate(batch, facts_of(self.trainer).val_set)

    def _evaluate(self, batch: tuple[Tensor, ...], rows: RowDataset | None) -> None:
        x, y, *index = batch
        scores = self.outputs(x)
        y = self._target_rows(y, scores.shape[1])
        if y.shape != scores.shape:
            raise InputError(
                f"targets of a loader must have the shape of the outputs, {tuple(scores.shape)}, classes as one-hot "
                f"rows; got {tuple(y.shape)}"
            )
        noisy = None if rows is None else rows.y_noisy
        self.metrics.update(scores, y, noisy[index[0].cpu()].to(y.device) if noisy is not None and index else None)

    def _target_rows(self, y: Tensor, c: int) -> Tensor:
        """Class labels, shape (m,), as one-hot rows, numbers as rows of one column, and other targets unchanged."""
        if y.ndim != 1:
            return y
        names = self.data_info.get("class_names") or []
        if not y.is_floating_point() and len(names) == c:
            return label_rows(y, names)
        return y[:, None] if y.is_floating_point() and c == 1 else y

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch (x, y, index) to the same metrics of test/."""
        self._evaluate(batch, facts_of(self.trainer).test_set)

    def on_validation_epoch_end(self) -> None:
        """Log val/mse, val/error, val/error_noisy, val/mse_noisy."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log test/mse, test/error, test/error_noisy, test/mse_noisy."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        self.eval_metrics = {f"{stage}/{name}": value for name, value in self.metrics.compute().items()}
        for name, value in self.eval_metrics.items():
            self.log(name, value, batch_size=1)

    # Checkpoints

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: torch.device | str | None = None,
        *,
        weights_only: bool | None = True,
        **options: Any,
    ) -> Self:
        """The model that a checkpoint file holds. It needs no datamodule, and no code from the file is run.

        Lightning's own loader can unpickle, download, and import what a file names; this one does not.

        Args:
            checkpoint_path: a file on disk.
            map_location: the device of the model; None is the CPU.
            weights_only: True, or None.
            options: arguments of the class that take precedence over the file's.

        Raises:
            CheckpointError: the file is missing, damaged, or holds something else.
        """
        require_weights_only(weights_only)
        checkpoint = read_checkpoint(checkpoint_path)
        with errors_name(checkpoint_path):
            return cls.restored(checkpoint, **options).to(map_location or "cpu")

    @classmethod
    def restored(cls, checkpoint: dict[str, Any], **options: Any) -> Self:
        """The model that the contents of a checkpoint describe.

        Args:
            checkpoint: what `kl.machines.checkpoints.read_checkpoint` returned.
            options: arguments of the class that take precedence over the checkpoint's.

        Raises:
            CheckpointError: the contents describe no such model.
        """
        stored = checkpoint.get("hyper_parameters", {})
        require_values("hyper_parameters", stored, {})
        arguments = {**stored, **options}
        require_arguments("hyper_parameters", cls, arguments)
        with faults_in("hyper_parameters"):
            model = cls(**arguments)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        return model
