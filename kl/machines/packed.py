"""States with tensors as plain values that JSON has."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kl.errors import CheckpointError

DTYPES = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}


def pack(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with each tensor as a dict of its dtype, its shape, and its bytes in base64.

    Example:
        >>> pack({"t": torch.ones(2)})
        {'t': {'dtype': 'float32', 'shape': [2], 'base64': 'AACAPwAAgD8='}}
    """
    return {name: _packed(value) if isinstance(value, Tensor) else value for name, value in state.items()}


def unpack(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state that `pack` was given; the argument may come from a file, and is checked.

    Raises:
        CheckpointError: a tensor in it is damaged.
    """
    return {
        name: _unpacked(name, value) if isinstance(value, dict) and "base64" in value else value
        for name, value in state.items()
    }


def _packed(tensor: Tensor) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    values = np.ascontiguousarray(tensor.cpu().numpy(), dtype=DTYPES[dtype])
    return {"dtype": dtype, "shape": list(tensor.shape), "base64": base64.b64encode(values.tobytes()).decode()}


def _unpacked(name: str, value: Mapping[str, Any]) -> Tensor:
    try:
        if set(value) != {"dtype", "shape", "base64"} or any(
            type(each) is not int or each < 0 for each in value["shape"]
        ):
            raise ValueError("it must have a dtype, a shape and base64")
        values = np.frombuffer(base64.b64decode(value["base64"], validate=True), DTYPES[value["dtype"]])
        return torch.from_numpy(values.reshape(value["shape"]).astype(values.dtype.newbyteorder("=")))
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise CheckpointError(f"its tensor {name} is damaged ({error}): train again") from error
