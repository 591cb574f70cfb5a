"""Tensors as plain values."""

import json

import pytest
import torch

from kl.errors import CheckpointError
from kl.machines.packed import pack, unpack


def test_a_state_comes_back_from_json_to_the_bit():
    state = {
        "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "b": torch.tensor([[1e300, float("nan")]], dtype=torch.float64),
        "c": torch.arange(256, dtype=torch.uint8),
        "d": torch.tensor(-(2**40)),
        "e": torch.empty(0, 2),
        "f": {"plain": [1, "two"]},
    }
    found = unpack(json.loads(json.dumps(pack(state))))
    assert list(found) == list(state)
    assert found["f"] == state["f"]
    for name in "abcde":
        torch.testing.assert_close(found[name], state[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3]},
        {"shape": [-1]},
        {"shape": ["2"]},
        {"shape": 2},
        {"dtype": "object"},
        {"dtype": []},
        {"base64": "AACAPwAAgD8"},
        {"base64": "####"},
        {"base64": 5},
        {"more": 1},
    ],
)
def test_a_damaged_tensor(change):
    packed = pack({"t": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"^its tensor t is damaged \(.*train again$"):
        unpack({"t": {**packed["t"], **change}})
