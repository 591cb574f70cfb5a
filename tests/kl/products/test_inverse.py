"""The inverse from a factor, in its place: diagonal, products and blocks as NumPy's inverse has them."""

import numpy as np
import oracle
import pytest
import torch

from kl.kernels import Laplacian
from kl.products.inverse import InverseTriangle
from kl.products.triangle import LowerTriangle
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N = 70


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inverse_of(x, side, scale=1.0, progress=lambda done: None):
    lower = LowerTriangle(Laplacian(2.0), Rows.of(x), side=side)
    lower.keep(len(lower.columns))
    assert lower.factorise(torch.full((N,), 0.1, dtype=x.dtype))
    K = oracle.matrix(oracle.laplacian, x.double().numpy(), x.double().numpy(), bandwidth=2.0)
    return InverseTriangle(lower, progress), np.linalg.inv(K + 0.1 * np.eye(N))


@pytest.mark.parametrize("side", [1, 16, 35, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_equals_the_inverse_of_numpy(side, dtype):
    inverse, wanted = inverse_of(draw(N, 4).to(dtype), side)
    atol = 1e-4 if dtype == torch.float32 else 1e-11
    np.testing.assert_allclose(inverse.diagonal(), np.diag(wanted), atol=atol)
    v = draw(N, 3, seed=1).double() * torch.tensor([1.0, 1e-30, 0.0])
    np.testing.assert_allclose(inverse.matmul(v)[:, 0], wanted @ v.numpy()[:, 0], atol=10 * atol)
    np.testing.assert_allclose(1e30 * inverse.matmul(v)[:, 1], 1e30 * wanted @ v.numpy()[:, 1], atol=10 * atol)
    assert not inverse.matmul(v)[:, 2].any()
    assert inverse.diagonal().dtype == inverse.matmul(v).dtype == inverse.block(torch.arange(2)).dtype == torch.float64
    for m in (1, 7, N):
        which = torch.randperm(N, generator=torch.Generator().manual_seed(m))[:m]
        np.testing.assert_allclose(inverse.block(which), wanted[np.ix_(which, which)], atol=atol)


def test_long_panels_are_inverted_in_parts(monkeypatch):
    monkeypatch.setattr("kl.products.inverse.SOLVED_ROWS", 8)
    inverse, wanted = inverse_of(draw(N, 4).double(), 16)
    np.testing.assert_allclose(inverse.diagonal(), np.diag(wanted), atol=1e-11)


def test_it_takes_the_place_of_the_factor():
    lower = LowerTriangle(Laplacian(2.0), Rows.of(draw(N, 4)), side=16)
    lower.keep(5)
    assert lower.factorise(torch.ones(N))
    places = [panel.data_ptr() for panel in lower.panels]
    inverse = InverseTriangle(lower)
    assert [panel.data_ptr() for panel in inverse._panels] == places
    assert not lower.panels


def test_it_reports_the_share_that_is_done():
    seen = []
    inverse_of(draw(N, 4), 35, progress=seen.append)
    assert seen == pytest.approx([7 / 8, 1.0])
