"""Rows that are known to be equal have distance 0, and no others: in every tile, of few and of many features."""

import oracle
import pytest
import torch

import kl
from kl import Gaussian, Laplacian, Polynomial
from kl.products.blocks import kernel_matmul, kernel_matrix, symmetric_kernel_matrix, tile_shape
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N = 1500  # a tile of as many rows has 1024 columns
FEATURES = (3, 24)  # of up to 16 distances are summed directly, of more they come from inner products


def draw(d, seed=0):
    return torch.randn(N, d, generator=torch.Generator().manual_seed(seed))


def exact(kernel, x, z):
    """K(x, z) in float64, by the formula."""
    distance = torch.cdist(x.double(), z.double(), compute_mode="donot_use_mm_for_euclid_dist")
    if isinstance(kernel, Polynomial):
        return (x.double() @ z.double().T / x.shape[1] + kernel.bias) ** kernel.degree
    return (
        -(distance**2) / 2 / kernel.bandwidth**2 if isinstance(kernel, Gaussian) else -distance / kernel.bandwidth
    ).exp()


@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("kernel", [Laplacian(2.0), Gaussian(3.0)])
def test_equal_rows_in_any_order_over_several_tiles(d, kernel):
    z = draw(d)
    assert tile_shape(N, N, z.device)[1] < N
    same = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    x = z[same].clone()
    x[::7], same[::7] = draw(d, seed=2)[::7], -1
    wanted = exact(kernel, x, z).float()
    found = kernel_matrix(kernel, Rows.of(x), Rows.of(z), same)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    known = (same >= 0).nonzero().flatten()
    assert torch.equal(found[known, same[known]], torch.ones(len(known)))
    v = torch.randn(N, 3, generator=torch.Generator().manual_seed(3))
    product = kernel_matmul(kernel, Rows.of(x), Rows.of(z), v, same)
    torch.testing.assert_close(product, found @ v, rtol=0, atol=1e-3)


@pytest.mark.parametrize("d", FEATURES)
def test_the_diagonal_is_exact_where_rounding_is_large(d):
    """At |x| of some thousands the rounded distance of a row to itself is far from 0."""
    kernel, rows, same = Laplacian(0.01), Rows.of(1e3 * draw(d)), torch.arange(N)
    assert torch.equal(kernel_matrix(kernel, rows, rows, same), torch.eye(N))
    assert torch.equal(symmetric_kernel_matrix(kernel, rows), torch.eye(N))
    torch.testing.assert_close(kernel_matmul(kernel, rows, rows, torch.eye(N)[:, :40], same), torch.eye(N)[:, :40])
    if d > 16:
        assert float(kernel_matrix(kernel, rows, rows).diagonal().min()) < 0.5  # or there is nothing to check


@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("form", [kl.rkhs_distance, kl.inner_product])
def test_other_rows_of_the_same_number_are_not_taken_for_equal(form, d):
    kernel = Laplacian(2.0)
    x, z = draw(d)[:30], draw(d, seed=5)[:30]
    a, b = (torch.randn(30, 2, generator=torch.Generator().manual_seed(seed)) for seed in (6, 7))
    both = torch.cat([x, z])
    K = torch.from_numpy(oracle.matrix(oracle.laplacian, both.double().numpy(), both.double().numpy(), bandwidth=2.0))
    if form is kl.inner_product:
        wanted = float((a.double() * (K[:30, 30:] @ b.double())).sum())
    else:
        weights = torch.cat([a, -b]).double()
        wanted = float((weights * (K @ weights)).sum().sqrt())
    assert float(form(kernel, x, a, z, b)) == pytest.approx(wanted, rel=1e-4)
