"""Rows under the root of a metric, and roots that files hold."""

import math

import pytest
import torch

import kl
from kl.rows.root import require_root, under_root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_those_of_the_metric(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=generator, dtype=dtype)
    factor = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(factor @ factor.T)
    placed = under_root(x, vectors * values.sqrt() @ vectors.T)
    assert placed.dtype == dtype
    for i in range(7):
        step = (x[i] - x[0]).double()
        expected = float(step @ (factor @ factor.T) @ step)
        assert float((placed[i] - placed[0]).double().square().sum()) == pytest.approx(expected, rel=1e-5)


def test_a_row_comes_out_alike_alone_and_in_a_batch():
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    root = torch.randn(20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = under_root(x, root)
    alone = torch.cat([under_root(row[None], root) for row in x])
    torch.testing.assert_close(alone, whole, rtol=2e-7, atol=1e-12)


def test_no_root_and_a_diagonal():
    x = torch.ones(2, 2)
    assert under_root(x, None) is x
    assert under_root(x, torch.tensor([3.0, 0.0], dtype=torch.float64)).tolist() == [[3, 0], [3, 0]]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (torch.ones(3), r"of 2 features; got shape \(3,\)"),
        (torch.ones(2, 3), r"got shape \(2, 3\)"),
        (torch.tensor([1.0, math.nan]), "finite"),
        (torch.tensor([1.0, -1.0]), "none below 0"),
        (torch.ones(2), "must be float64; got torch.float32"),
    ],
)
def test_wrong_roots(root, message):
    with pytest.raises(kl.CheckpointError, match=message):
        require_root(root, 2)
