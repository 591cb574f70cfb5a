"""What a model says of the data that it was trained on, and its outputs in the terms of that data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.machines.checkpoints import require_values
from kl.machines.data_facts import DataFacts, TrainingData
from kl.machines.packed import unpack
from kl.probabilities import probabilities
from kl.rows.encoding import FeatureEncoding
from kl.rows.table import TableEncoding


class Described:
    """A model of described data.

    Attributes:
        data_info: the description of the training data (`describe_data`); empty before there is
            data. A classifier's may have a temperature (`kl.probabilities.fit_temperature`), by which
            `probabilities_of` goes.
    """

    data_info: dict[str, Any]

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
