"""The base class of every model that trains under Lightning: the description of its data, and metrics over all rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import (
    errors_name,
    faults_in,
    read_checkpoint,
    require_arguments,
    require_values,
    require_weights_only,
)
from kl.machines.data_facts import DataFacts, TrainingData, facts_of
from kl.machines.loaders import label_rows
from kl.machines.packed import unpack
from kl.metrics import EvaluationMetrics
from kl.probabilities import probabilities
from kl.rows.encoding import FeatureEncoding
from kl.rows.rows import RowDataset
from kl.rows.table import TableEncoding


class EvaluatedModule(pl.LightningModule):
    """A module whose batches are (x, y, index), evaluated by sums over a pass.

    A subclass defines `outputs`, and `_measure_training` if it trains.

    Attributes:
        data_info: the description of the training data (`describe_data`); empty before there is data. A classifier's
            may have a temperature (`kl.probabilities.fit_temperature`), by which `probabilities_of` goes.
        train_metrics: train/* of the last epoch, over all training rows with the weights at the end of the epoch. For a
            stream they are means over the epoch's batches, each before its step, and their names end in _running. They
            are set before validation and before the callbacks' epoch end, unless `max_steps` ended the epoch early.
        eval_metrics: val/* or test/* of the last pass over validation or test data.
    """

    epochs_compared_by: tuple[str, ...] = ("error", "mse")
    """The scores of validation rows by which one epoch is better than another, the first that differs; see
    `callbacks.BestEpoch`."""

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

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are scores of classes, not regression values."""
        return self.data_info.get("task") != "regression"

    @property
    def target_scale(self) -> Tensor | None:
        """What an output of 1 is in the target's own unit, float64, shape (c,); None where it is 1 throughout."""
        return scale_of(self.data_info)

    def in_target_units(
        self,
        scores: Tensor,  # shape: (m, c)
    ) -> Tensor:
        """Outputs as predictions in the target's own unit, shape (m, c), float64 where that is another unit."""
        scale, offset = self.target_scale, self.data_info.get("target_offset") or []
        if scale is None and not any(offset):
            return scores
        scores = scores.double() if scale is None else scores.double() * scale.to(scores.device)
        return scores + torch.tensor(offset, dtype=torch.float64, device=scores.device)

    def probabilities_of(
        self,
        scores: Tensor,  # shape: (m, c)
    ) -> Tensor | None:
        """softmax(f(x) / T), shape (m, c), float64, with the temperature T of `data_info`; None if it has none."""
        temperature = self.data_info.get("temperature")
        return None if temperature is None else probabilities(scores, temperature)

    # Training

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


def describe_data(data: TrainingData) -> dict[str, Any]:
    """The description of a data module that a checkpoint holds: see `DataFacts.description`."""
    return DataFacts.of(data).description(data.train_set.x, data.train_set.y)


def scale_of(info: dict[str, Any]) -> Tensor | None:
    """The target_scale of a description of data, float64, shape (c,); None where it is 1 throughout."""
    scale = info.get("target_scale") or []
    return None if all(value == 1 for value in scale) else torch.tensor(scale, dtype=torch.float64)


def require_description(info: Any) -> None:
    """Check that a part of a checkpoint is a description that `describe_data` could have returned.

    Raises:
        CheckpointError: the part is anything else.
    """
    texts = {"name": str, "task": str, "class_names": list[str], "background": str}
    counts = {"image_shape": list[int], "num_features": int, "num_outputs": int}
    require_values("data_info", info, {**texts, **counts, "encoding": dict})
    d, c, shape, names = (info[key] for key in ("num_features", "num_outputs", "image_shape", "class_names"))
    if info["task"] not in ("classification", "regression") or min(d, c) < 1:
        raise CheckpointError(f"its data_info must be of a task with features and outputs; got {info['task']!r}")
    if shape and (min(shape) < 1 or len(shape) != 3 or math.prod(shape) != d):
        raise CheckpointError(f"its data_info must have the image_shape of {d} features; got {shape}")
    if len(FeatureEncoding.from_dict(info["encoding"]).origin) not in (0, d):
        raise CheckpointError(f"its data_info must have an origin of {d} features: train again")
    _require_table(info, d, c)
    _require_patches(info)
    if "temperature" in info:
        require_values("data_info", info, {"temperature": float})
        if info["temperature"] <= 0:
            raise CheckpointError(f"its data_info must have a temperature above 0; got {info['temperature']}")
    if names and len(names) != c:
        raise CheckpointError(f"its data_info must have a class name for each of {c} outputs; got {len(names)}")


def _require_patches(info: dict[str, Any]) -> None:
    """Check what a description says of image patches, up to what `kl.Patches.from_state` checks when they are used."""
    if "patches" not in info:  # a checkpoint from before
        return
    require_values("data_info", info, {"patches": dict})
    if info["patches"] == {}:
        return
    state, value = info["patches"], bool | str | int | float | None
    require_values("patches of data_info", state, {"options": dict, "image": list[int]})
    require_values("options of patches", state["options"], dict.fromkeys(state["options"], value))
    unpack(state)
    if info["image_shape"]:
        raise CheckpointError(
            f"its data_info must have no image_shape beside patches; got {info['image_shape']}: train again"
        )


def _require_table(info: dict[str, Any], d: int, c: int) -> None:
    """Check what a description says of a table and of the targets' scale; checkpoints from before have neither."""
    table = info.get("table", {})
    if table != {} and TableEncoding.from_dict(table).num_features != d:
        raise CheckpointError(f"its data_info must have a table of {d} features: train again")
    scales: dict[str, Any] = {name: list[float] for name in ("target_offset", "target_scale") if name in info}
    require_values("data_info", info, scales)
    if any(len(info[name]) != c for name in scales) or min(info.get("target_scale", [1.0])) <= 0:
        raise CheckpointError(f"its data_info must have a target_offset and a target_scale above 0 of {c} outputs")
