"""Products of long rows and a few columns against float64, and in the kept matrix of a run."""

import pytest
import torch
from compiled_code import best_library, library

import kl
from kl.compiled import LIBRARIES, best
from kl.compiled.thin_products import LEAST_LENGTH, MOST_OUTPUTS, IndexedRows, thin_product
from kl.distributed.ranks import Batch, Ranks
from kl.kernels import Gaussian
from kl.products.blocks import SUMMED, kernel_matmul, thin_matmul
from kl.products.kept import KernelMatrix
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("m", "n", "c"), [(1, 5, 1), (8, 1024, 3), (29, 2500, 10), (16, 40, 17), (25, 2111, 32)])
def test_rows_times_weights(name, m, n, c):
    code = library(name)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, n + 3, generator=generator)[:, :n]  # rows that do not follow each other
    positions = torch.randperm(40, generator=generator)[:m]
    w = torch.randn(m, c, generator=generator)
    v = torch.randn(c, n, generator=generator).T
    rows, dense = IndexedRows(code, matrix, positions), matrix[positions].double()
    found, sums = (rows.t_matmul(w), rows.matmul(v)), torch.full((c, n), 0.1, dtype=torch.float64)
    rows.add_t_product(sums.T, w)
    torch.testing.assert_close(sums, 0.1 + found[0].T.double(), rtol=1e-6, atol=1e-5)
    whole = IndexedRows(code, matrix[positions])  # all rows, in this order
    assert torch.equal(whole.t_matmul(w), found[0])
    assert torch.equal(whole.matmul(v), found[1])
    for each, a, b in ((found[0], dense.T, w.double()), (found[1], dense, v.double())):
        assert ((each.double() - a @ b).abs() <= a.shape[1] * 2.0**-24 * (a.abs() @ b.abs())).all()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, (rows.t_matmul(w), rows.matmul(v)), found))
    finally:
        torch.set_num_threads(before)


def test_what_is_left_to_torch():
    index = torch.tensor([2, 0])
    for matrix, outputs in (
        (torch.zeros(3, 4, dtype=torch.float64), 1),
        (torch.zeros(4, 3).T, 1),
        (torch.zeros(3, 4), MOST_OUTPUTS + 1),
    ):
        assert IndexedRows.of(matrix, index, outputs) is None


@pytest.mark.parametrize("c", [1, 10, MOST_OUTPUTS, MOST_OUTPUTS + 1])
def test_a_kept_matrix_with_and_without_compiled_code(monkeypatch, c):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(90, 4, generator=generator), torch.randn(30, c, generator=generator)
    matrix, batch = KernelMatrix(kl.Laplacian(2.0), kl.Rows.of(x)), Batch(torch.arange(10, 70, 2), Ranks())
    matrix.keep(90)
    found, wanted = (torch.ones(c, 90, dtype=torch.float64).T for _ in range(2))
    matrix.add_columns_product(found, batch, w)
    monkeypatch.setattr("kl.compiled.best", lambda: None)
    matrix.add_columns_product(wanted, batch, w)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_rows_of_other_types_and_outside():
    best_library()
    matrix, w = torch.eye(3), torch.ones(2, 1)
    rows = IndexedRows.of(matrix, torch.tensor([2, 0], dtype=torch.int32), 1)
    assert rows.t_matmul(w).flatten().tolist() == [1, 0, 1]
    for outside in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match=r"index must lie in 0\.\.2"):
            IndexedRows.of(matrix, torch.tensor(outside), 1)
    with pytest.raises(IndexError, match="the weights must have 2 rows; got 1"):
        rows.t_matmul(w[:1])
    with pytest.raises(IndexError, match="the weights must have 3 rows; got 2"):
        rows.matmul(w)
    with pytest.raises(IndexError, match="the weights must have at most 32 columns; got 33"):
        rows.t_matmul(torch.ones(2, 33))
    for out in (torch.zeros(2, 1), torch.zeros(3, 2), torch.zeros(6, 1)[::2], torch.zeros(3, 1).half()):
        with pytest.raises(IndexError, match=r"out must be floats or doubles of shape \(3, 1\), stored column by"):
            rows.add_t_product(out, w)


def test_sums_of_many_rows_lose_little():
    """Of positive values the error of one running sum would grow with the number of rows."""
    generator = torch.Generator().manual_seed(0)
    a, v = torch.rand(100_000, 64, generator=generator), torch.rand(100_000, 3, generator=generator)
    exact = a.T.double() @ v.double()
    for found in (thin_matmul(a.T, v), thin_matmul(a.T.contiguous(), v)):
        assert ((found - exact).abs() <= 2e-6 * exact).all()


def test_sums_of_torch_are_taken_in_parts(monkeypatch):
    monkeypatch.setattr("kl.compiled.best", lambda: None)
    generator = torch.Generator().manual_seed(0)
    a, v = torch.rand(9, 2 * SUMMED + 5, generator=generator), torch.rand(2 * SUMMED + 5, 3, generator=generator)
    parts = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda one, other: parts.append(one.shape) or product(one, other))
    found = thin_matmul(a, v)
    assert parts == [(9, SUMMED), (9, SUMMED), (9, 5)]
    torch.testing.assert_close(found.double(), a.double() @ v.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("compiled", [True, False])
def test_predictions_of_few_rows_from_many_centres(monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr("kl.compiled.best", lambda: None)
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(60_000, 40, generator=generator), torch.rand(60_000, 2, generator=generator)
    found = kernel_matmul(Gaussian(9.0), Rows.of(z[:2]), Rows.of(z), v)
    wanted = Gaussian(9.0)(z[:2].double(), z.double()) @ v.double()
    torch.testing.assert_close(found.double(), wanted, rtol=3e-6, atol=0)


@pytest.mark.parametrize("c", [1, 7, 13, MOST_OUTPUTS, MOST_OUTPUTS + 1])
@pytest.mark.parametrize("k", [LEAST_LENGTH - 1, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thin_products_of_rows_columns_and_parts(dtype, k, c):
    generator = torch.Generator().manual_seed(0)
    long = torch.randn(90, k + 5, generator=generator, dtype=dtype)
    v, w = torch.randn(k, c, generator=generator), torch.randn(90, c, generator=generator)
    for a, b in (
        (long[:, 3 : k + 3], v),
        (long[:, :k].T, w),
        (long[::2, :k].T, w[::2]),
        (long[:, ::2], v[: -(-(k + 5) // 2)]),
    ):
        b = torch.cat([b, b])[: a.shape[1]].double()
        found = thin_matmul(a, b)
        assert found.dtype == dtype
        rounding = torch.finfo(dtype).eps * a.shape[1] * (a.double().abs() @ b.abs())
        assert ((found.double() - a.double() @ b.to(dtype).double()).abs() <= rounding).all()


def test_what_torch_multiplies():
    """Short rows, no rows, rows and columns with gaps, many outputs, and what autograd follows."""
    a, v = torch.ones(80, 80), torch.ones(80, 2)
    assert (thin_product(a, v) is None) == (best() is None)
    many = torch.ones(80, MOST_OUTPUTS + 1)
    for left, right in ((a[:, :8], v[:8]), (a[:0], v), (torch.ones(160, 160)[::2, ::2], v), (a, many)):
        assert thin_product(left, right) is None
        assert torch.equal(thin_matmul(left, right), left @ right)
    for left, right in ((a.clone().requires_grad_(), v), (a, v.clone().requires_grad_())):
        assert thin_product(left, right) is None
        thin_matmul(left, right).sum().backward()
        grads = [each.grad for each in (left, right) if each.requires_grad]
        assert all(bool((grad > 0).all()) for grad in grads)
