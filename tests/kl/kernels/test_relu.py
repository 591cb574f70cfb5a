"""The ReLU kernels against the networks they are the limits of, and their accuracy near cosine 1."""

import itertools
import math

import numpy as np
import oracle
import pytest
import torch

from kl.kernels import ReluNNGP, ReluNTK
from kl.kernels.relu import _iterate

pytestmark = pytest.mark.numeric

# Rows with cosines from -1 to 1 and norms that differ.
POINTS = torch.tensor(
    [[1.0, 0.0, 0.0], [0.5, 0.1, 0.0], [0.0, 1.5, 0.3], [-1.0, 0.0, 0.0], [0.7, -0.7, 1.0]],
    dtype=torch.float64,
)


def random_network(depth: int, width: int, outputs: int, seed: int) -> list[tuple]:
    """Weights N(0, 1) and biases 0 of a network with `depth` weight layers in NTK parametrisation."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [POINTS.shape[1], *[width] * (depth - 1), outputs]
    return [
        (torch.randn(b, a, generator=generator).requires_grad_(), torch.zeros(b).requires_grad_())
        for a, b in itertools.pairwise(sizes)
    ]


def forward(layers: list[tuple], x: torch.Tensor, bias: float) -> torch.Tensor:
    for index, (weight, shift) in enumerate(layers):
        scale = 1.0 if index == 0 else math.sqrt(2 / weight.shape[1])
        x = scale * (x.relu() if index else x) @ weight.T + bias * shift
    return x


@pytest.mark.parametrize(("depth", "width", "bias"), [(1, 1, 0.5), (2, 4096, 0.7), (3, 1024, 0.0), (4, 1024, 0.7)])
def test_ntk_is_the_kernel_of_a_wide_network(depth: int, width: int, bias: float) -> None:
    seeds = 8
    empirical = torch.zeros(5, 5, dtype=torch.float64)
    for seed in range(seeds):
        layers = random_network(depth, width, 1, seed)
        parameters = [parameter for layer in layers for parameter in layer]
        outputs = forward(layers, POINTS.float(), bias)
        gradients = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(y, parameters, retain_graph=True)])
                for y in outputs.squeeze(1)
            ]
        )
        empirical += (gradients @ gradients.T).double() / seeds
    kernel = ReluNTK(depth, bias)
    scale = kernel.diag(POINTS).sqrt()
    error = ((empirical - kernel(POINTS)) / (scale[:, None] * scale)).abs().max()
    # An entry is a mean over width * seeds hidden units per layer, so its error falls as their root. Over
    # four draws of the seeds the largest of the 25 errors was at most 2.5, 4.1 and 5.0 / sqrt(width * seeds)
    # at depth 2, 3 and 4. Leaving out one bias or one layer costs more than 15% (see the next test).
    assert error < (2 * depth / math.sqrt(width * seeds) if depth > 1 else 1e-6)


@pytest.mark.parametrize(("depth", "bias"), [(2, 0.7), (3, 0.0), (4, 0.7)])
def test_the_network_tests_would_see_a_wrong_recursion(depth: int, bias: float) -> None:
    right = ReluNTK(depth, bias)
    scale = right.diag(POINTS).sqrt()
    wrong = [ReluNTK(depth - 1, bias)(POINTS), ReluNTK(depth + 1, bias)(POINTS), ReluNNGP(depth)(POINTS)]
    if bias:
        wrong.append(right(POINTS) - bias**2)
    for values in wrong:
        assert ((values - right(POINTS)) / (scale[:, None] * scale)).abs().max() > 0.15


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_nngp_is_the_covariance_of_random_networks(depth: int) -> None:
    width = outputs = 2048
    seeds = 8
    empirical = torch.zeros(5, 5, dtype=torch.float64)
    with torch.no_grad():
        for seed in range(seeds):
            values = forward(random_network(depth, width, outputs, seed), POINTS.float(), 0.7).double()
            # Given the layers before, outputs are independent: a mean over them is one over networks.
            empirical += values @ values.T / (outputs * seeds)
    kernel = ReluNNGP(depth, bias=0.7)
    scale = kernel.diag(POINTS).sqrt()
    error = ((empirical - kernel(POINTS)) / (scale[:, None] * scale)).abs().max()
    # As above: over four draws at most 2.6, 4.1 and 9.6 / sqrt(width * seeds) at depth 1, 2 and 4.
    assert error < 4 * depth / math.sqrt(width * seeds)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_diagonal_is_exact_in_float32(depth: int) -> None:
    x = 255 * torch.rand(100, 40, generator=torch.Generator().manual_seed(0))
    squares = ReluNNGP(depth).diag(x)
    assert torch.equal(squares, ReluNNGP(depth)(x).diagonal())
    torch.testing.assert_close(squares, (x.double() ** 2).sum(dim=1).float(), rtol=1e-7, atol=0)
    assert torch.equal(ReluNTK(depth).diag(x), ReluNTK(depth)(x).diagonal())
    torch.testing.assert_close(ReluNTK(depth).diag(x), depth * squares, rtol=2e-7 * depth, atol=0)


@pytest.mark.parametrize("depth", [2, 5])
def test_small_angles_are_resolved(depth: int) -> None:
    # Two rows at a small angle t, given by a float32 inner product taken as exact. A recursion in u = cos(t)
    # rounds u by 6e-8 in every layer, which moves the angle by 6e-8 / t (7e-6 of the value for 5, 0.01).
    for t in (1.0, 0.1, 0.01):
        one = torch.ones(1, 1)
        gram = torch.tensor([[math.cos(t)]], dtype=torch.float32)
        exact = math.acos(gram.item())
        wanted = oracle.relu_ntk([1.0, 0.0], [math.cos(exact), math.sin(exact)], depth, 0.0)
        got = ReluNTK(depth)._evaluate(gram, one, one).item()
        assert got == pytest.approx(wanted, rel=3e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_rows(dtype: torch.dtype) -> None:
    x = torch.cat([torch.zeros(2, 3, dtype=dtype), POINTS[:2].to(dtype)])
    for depth in (1, 2, 4):
        wanted = oracle.matrix(oracle.relu_ntk, x.numpy(), x.numpy(), depth=depth, bias=0.7)
        np.testing.assert_allclose(ReluNTK(depth, 0.7)(x).numpy(), wanted, rtol=2e-6)
        assert (ReluNTK(depth)(x)[:2] == 0).all()
        assert (ReluNNGP(depth, 0.7)(x)[:, :2] == 0).all()


def test_values_do_not_depend_on_how_rows_are_split() -> None:
    # More elements than are worked on at a time, and a last part that is smaller.
    x = torch.randn(700, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = ReluNTK(3, 0.5)(x, x[:650])
    for i in (0, 99, 100, 101, 699):
        torch.testing.assert_close(whole[i : i + 1], ReluNTK(3, 0.5)(x[i : i + 1], x[:650]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_equal_rows_survive_a_unit_of_rounding(dtype, off, monkeypatch):
    """Another processor's root may end on another last bit: the cosine of equal rows stays 1 in every layer."""
    root = torch.Tensor.sqrt_

    def other_root(x):
        found = root(x)
        return found.copy_(
            found if off == 0 else torch.nextafter(found, torch.full_like(found, 9.0 * off)).clamp(min=0)
        )

    monkeypatch.setattr(torch.Tensor, "sqrt_", other_root)
    v = torch.tensor([0.0, 2.0, -1e-9, 1e-300, 1.0], dtype=dtype)
    layers = [(k0.clone(), cosine.clone()) for k0, cosine in _iterate(v, 6)]
    for k0, cosine in layers:
        assert torch.equal(k0[[0, 2, 3]], torch.ones(3, dtype=dtype))
        assert torch.equal(cosine[[0, 2, 3]], torch.ones(3, dtype=dtype))
        assert bool(k0.isfinite().all() and cosine.isfinite().all())
    assert abs(float(layers[0][0][1])) < 1e-3  # opposite rows
