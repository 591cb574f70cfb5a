"""Products with rows of a kept matrix, read where they lie, against float64 and in the kept matrix of a run."""

import pytest
import torch

import kl
from kl.compiled import LIBRARIES, best, load, processor_flags
from kl.compiled.kept_rows import MOST_OUTPUTS, rows_matmul
from kl.distributed.ranks import Batch, Ranks
from kl.products.kept import KernelMatrix

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("m", "n", "c"), [(1, 5, 1), (8, 1024, 3), (29, 2500, 10), (16, 40, 17)])
def test_rows_times_weights(name, m, n, c):
    if not processor_flags() >= {*LIBRARIES[name][0]} or (code := load(name)) is None:
        pytest.skip(f"this processor cannot run {name}, or kl was installed without it")
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, n + 3, generator=generator)[:, :n]  # rows that do not follow each other
    positions = torch.randperm(40, generator=generator)[:m]
    w = torch.randn(m, c, generator=generator)
    exact = matrix[positions].double().T @ w.double()
    bound = m * 2.0**-24 * (matrix[positions].double().abs().T @ w.double().abs())
    found = rows_matmul(code, matrix, positions, w)
    assert ((found.double() - exact).abs() <= bound).all()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(rows_matmul(code, matrix, positions, w), found)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("c", [1, 10, MOST_OUTPUTS, MOST_OUTPUTS + 1])
def test_a_kept_matrix_with_and_without_compiled_code(monkeypatch, c):
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(90, 4, generator=generator), torch.randn(30, c, generator=generator)
    matrix, batch = KernelMatrix(kl.Laplacian(2.0), kl.Rows.of(x)), Batch(torch.arange(10, 70, 2), Ranks())
    matrix.keep(90)
    found = matrix.columns_matmul(batch, w)
    monkeypatch.setattr("kl.compiled.best", lambda: None)
    torch.testing.assert_close(found, matrix.columns_matmul(batch, w), rtol=1e-5, atol=1e-5)


def test_positions_of_other_types_and_outside():
    if (code := best()) is None:
        pytest.skip("kl was installed without compiled code for this processor, or ATEN_CPU_CAPABILITY forbids it")
    matrix, w = torch.eye(3), torch.ones(2, 1)
    assert rows_matmul(code, matrix, torch.tensor([2, 0], dtype=torch.int32), w).flatten().tolist() == [1, 0, 1]
    for outside in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match=r"positions must lie in 0\.\.2"):
            rows_matmul(code, matrix, torch.tensor(outside), w)
    with pytest.raises(IndexError, match="a row for each of the 2 positions; got 1"):
        rows_matmul(code, matrix, torch.tensor([0, 1]), w[:1])
