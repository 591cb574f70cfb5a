"""K(X, X) kept in part or in whole against K(X, X) computed, and reduced precision."""

import pytest
import torch

import kl
from kl.distributed.ranks import Batch, Ranks
from kl.kernels import Gaussian, Laplacian
from kl.products import blocks as engine, kept as matrix
from kl.products.kept import KernelMatrix
from kl.rows.float_product import bfloat16_products
from kl.rows.pair import Pair
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N, D, C = 37, 20, 3
KERNEL = Laplacian(4.0)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(engine, "LONG_SIDE", 8)
    monkeypatch.setattr(engine, "TILE", 64)
    monkeypatch.setattr(matrix, "TILE", 64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kept", [0, 1, 5, 20, N])
def test_products_are_the_same_whatever_is_kept(kept):
    x = draw(N, D)
    whole = KERNEL(x)
    held = KernelMatrix(KERNEL, Rows.of(x))
    held.keep(kept)
    assert held.kept.shape == (kept, N)
    torch.testing.assert_close(held.kept, whole[:kept])
    v = draw(N, C, seed=1)
    torch.testing.assert_close(held.matmul(v), whole @ v)
    for size in (1, 4, N):
        batch = torch.randperm(N, generator=torch.Generator().manual_seed(size))[:size]
        w = draw(size, C, seed=2)
        for out in (torch.ones(N, C), torch.ones(C, N).T, torch.ones(C, N, dtype=torch.float64).T):
            held.add_columns_product(out, Batch(batch, Ranks()), w)
            torch.testing.assert_close(out, 1 + (whole[:, batch] @ w).to(out.dtype), rtol=1e-5, atol=1e-5)


def test_keeping_more_or_less_later():
    held = KernelMatrix(KERNEL, Rows.of(draw(N, D)))
    for count in (10, N, 3, 0):
        held.keep(count)
        assert len(held.kept) == count
    assert len(held) == N


def test_values_are_not_evaluated_again_where_they_are_kept(monkeypatch):
    held = KernelMatrix(KERNEL, Rows.of(draw(N, D)))
    held.keep(N)
    monkeypatch.setattr(type(KERNEL), "block", lambda *given: pytest.fail("evaluated again"))
    held.matmul(draw(N, C))
    held.add_columns_product(torch.zeros(len(held), C), Batch(torch.tensor([3, 1]), Ranks()), draw(2, C))


def test_medium_precision_rounds_features_and_nothing_else():
    x, z = draw(N, D), draw(11, D, seed=1)
    rows = Rows.of(x, precision="medium")
    others = Rows.of(z, like=rows)
    assert torch.equal(rows.data, x.bfloat16().float())
    assert torch.equal(others.data, z.bfloat16().float())
    wanted = x.bfloat16().double() @ z.bfloat16().double().T
    torch.testing.assert_close(Pair(rows, others).inner().double(), wanted, atol=2e-5, rtol=1e-6)
    same = torch.arange(N)
    assert not Pair(rows, rows, same).sq_dist().diagonal().any()
    double = Rows.of(x.double(), precision="medium")
    assert torch.equal(double.data, x.double())  # float64 was asked for
    assert not double.rounded
    error = float((Gaussian(4.0)(x) - engine.symmetric_kernel_matrix(Gaussian(4.0), rows)).abs().max())
    assert 0 < error < 5e-3


def test_the_setting_of_matrix_products_is_put_back():
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    with bfloat16_products(True, torch.device("cpu")):
        assert switch.fp32_precision != before
    assert switch.fp32_precision == before
    with pytest.raises(ValueError, match="inside"), bfloat16_products(True, torch.device("cpu")):
        raise ValueError("inside")
    assert switch.fp32_precision == before
    with bfloat16_products(False, torch.device("cpu")):
        assert switch.fp32_precision == before


def test_an_unknown_precision_is_refused():
    with pytest.raises(kl.InputError, match="precision must be high or medium; got 'low'"):
        Rows.of(draw(3, 2), precision="low")
    with pytest.raises(kl.InputError, match="precision must be high or medium; got 'low'"):
        kl.KernelMachine("gaussian", precision="low")
