"""Rows, RowDataset, and the blocked products at the borders of tiles."""

import numpy as np
import oracle
import pytest
import torch
from user_kernels import Cauchy, ManhattanLaplacian

from kl.errors import InputError
from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNTK
from kl.products import blocks as engine
from kl.rows.pair import Pair
from kl.rows.rows import RowDataset, Rows, row_sq_norm

pytestmark = pytest.mark.numeric

LONG_SIDE, TILE = 8, 40
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-12}
KERNELS = {
    "gaussian": (Gaussian(2.0), oracle.gaussian, {"bandwidth": 2.0}),
    "laplacian": (Laplacian(2.0), oracle.laplacian, {"bandwidth": 2.0}),
    "polynomial": (Polynomial(2, 1.0, 0.3), oracle.polynomial, {"degree": 2, "bias": 1.0, "scale": 0.3}),
    "relu-ntk": (ReluNTK(3, 0.5), oracle.relu_ntk, {"depth": 3, "bias": 0.5}),
    "sum": (
        Gaussian(2.0) + 0.5 * Laplacian(1.0),
        lambda x, z: oracle.gaussian(x, z, 2.0) + 0.5 * oracle.laplacian(x, z, 1.0),
        {},
    ),
    "user's radial": (Cauchy(1.5), lambda x, z: 1 / (1 + oracle.distance(x, z) ** 2 / 1.5**2), {}),
    "user's general": (
        ManhattanLaplacian(2.0),
        lambda x, z: float(np.exp(-np.abs(np.asarray(x, np.float64) - np.asarray(z, np.float64)).sum() / 2)),
        {},
    ),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(engine, "LONG_SIDE", LONG_SIDE)
    monkeypatch.setattr(engine, "TILE", TILE)


def draw(n, d=3, dtype=torch.float64, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed + n)).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", KERNELS)
def test_products_equal_the_oracle(name, dtype):
    kernel, function, parameters = KERNELS[name]
    x, z, v = draw(9, dtype=dtype), draw(11, dtype=dtype, seed=1), draw(11, 2, seed=2)
    kept = [t.clone() for t in (x, z, v)]
    wanted = oracle.matrix(function, x.numpy(), z.numpy(), **parameters)
    scale = max(1.0, np.abs(wanted).max())
    matrix = engine.kernel_matrix(kernel, Rows.of(x), Rows.of(z))
    product = engine.kernel_matmul(kernel, Rows.of(x), Rows.of(z), v)
    assert matrix.dtype == product.dtype == dtype
    np.testing.assert_allclose(matrix.numpy(), wanted, atol=TOLERANCE[dtype] * scale)
    np.testing.assert_allclose(product.numpy(), wanted @ v.numpy(), atol=20 * TOLERANCE[dtype] * scale)
    square = oracle.matrix(function, x.numpy(), x.numpy(), **parameters)
    whole = engine.symmetric_kernel_matrix(kernel, Rows.of(x))
    np.testing.assert_allclose(whole.numpy(), square, atol=TOLERANCE[dtype] * scale)
    lower = engine.symmetric_kernel_matrix(kernel, Rows.of(x), lower_only=True).tril()
    assert torch.equal(lower, whole.tril())
    assert all(torch.equal(a, b) for a, b in zip((x, z, v), kept, strict=True))


@pytest.mark.parametrize("p", [1, 4, 5, 6, 10, 11])
@pytest.mark.parametrize("m", [1, 7, 8, 9, 16, 17])
def test_sizes_around_the_borders_of_tiles(m, p):
    kernel, x, z, v = Laplacian(1.0), draw(m), draw(p, seed=5), draw(p, 3, seed=9)
    whole = kernel(x, z)
    torch.testing.assert_close(engine.kernel_matrix(kernel, Rows.of(x), Rows.of(z)), whole)
    torch.testing.assert_close(engine.kernel_matmul(kernel, Rows.of(x), Rows.of(z), v), whole @ v)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17])
def test_known_equal_rows_have_distance_zero_in_every_tile(n):
    kernel, x = Laplacian(0.01), 1e3 * draw(n, dtype=torch.float32)  # the distance of a row to itself rounds to > 0
    rows, same = Rows.of(x), torch.arange(n)
    assert torch.equal(engine.kernel_matrix(kernel, rows, rows, same).diagonal(), torch.ones(n))
    assert torch.equal(engine.symmetric_kernel_matrix(kernel, rows).diagonal(), torch.ones(n))
    eye = torch.eye(n)
    torch.testing.assert_close(engine.kernel_matmul(kernel, rows, rows, eye, same), eye)


def test_same_names_rows_in_any_order_and_minus_one_means_none():
    kernel, z = Laplacian(0.01), 1e3 * draw(13, dtype=torch.float32)
    chosen = torch.tensor([12, 0, 4, 5, 7, 3, 9, 10, 1])
    x, same = z[chosen].clone(), chosen.clone()
    x[3], same[3] = 7.0, -1
    wanted = torch.eye(13)[chosen]
    wanted[3] = 0
    rows, centers = Rows.of(x), Rows.of(z)
    torch.testing.assert_close(engine.kernel_matrix(kernel, rows, centers, same), wanted)
    torch.testing.assert_close(engine.kernel_matmul(kernel, rows, centers, torch.eye(13), same), wanted)


def test_strided_rows_and_weights_of_another_dtype():
    x = draw(17, 6)[::2, 1:4].float()
    v = draw(2, 9).T.contiguous().T.T  # strided, float64
    kernel = Gaussian(1.0)
    product = engine.kernel_matmul(kernel, Rows.of(x), Rows.of(x), v)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product, kernel(x) @ v.float())


def test_spans_cover_everything_once():
    for n in (0, 1, 7, 8, 9, 24):
        assert [i for span in engine.spans(n, 8) for i in range(n)[span]] == list(range(n))


def test_rows_share_the_features_and_keep_exact_norms():
    x = 100 * draw(20, 50, torch.float32)
    rows = Rows.of(x)
    assert rows.data is x
    assert len(rows) == 20
    np.testing.assert_array_equal(
        rows.sq_norm.numpy(), np.array([oracle.inner(row, row) for row in x.numpy()], np.float32)
    )
    part = rows[torch.tensor([3, 1])]
    assert torch.equal(part.data, x[[3, 1]])
    assert torch.equal(part.sq_norm, rows.sq_norm[[3, 1]])
    assert torch.equal(row_sq_norm(x, chunk=3), rows.sq_norm)
    assert row_sq_norm(x[:0]).shape == (0,)
    Pair(rows, part).inner().zero_()
    assert x.any()
    assert Rows.of(x[:0]).sq_norm.shape == (0,)


def test_a_row_dataset_answers_with_whole_batches():
    x, y = draw(5), draw(5, 2)
    data = RowDataset(x, y, y_noisy=-y)
    features, targets, index = data[torch.tensor([4, 0])]
    assert torch.equal(features, x[[4, 0]])
    assert torch.equal(targets, y[[4, 0]])
    assert torch.equal(index, torch.tensor([4, 0]))
    assert len(data) == 5
    assert torch.equal(data[3][0], x[3])


@pytest.mark.parametrize(
    ("x", "y", "noisy", "message"),
    [
        ([[1.0]], torch.ones(1, 1), None, "x must be a float tensor of shape .rows, columns.; got list"),
        (torch.ones(3), torch.ones(3, 1), None, r"x must be a float tensor .* got \(3,\) torch.float32"),
        (torch.ones(3, 1).long(), torch.ones(3, 1), None, "x must be a float tensor .* torch.int64"),
        (torch.ones(3, 2), torch.ones(3), None, r"y must be a float tensor .* got \(3,\)"),
        (torch.ones(3, 2).half(), torch.ones(3, 1), None, "x must be float32 or float64.* got torch.float16"),
        (torch.ones(3, 2), torch.ones(4, 1), None, "one row per sample; got 3 rows of features and 4 of targets"),
        (torch.ones(3, 2), torch.ones(3, 1), torch.ones(3, 2), r"y_noisy must have y's shape \(3, 1\); got \(3, 2\)"),
        (torch.ones(0, 2), torch.ones(0, 1), None, r"x must have at least one row and one column; got shape \(0, 2\)"),
        (torch.ones(2, 0), torch.ones(2, 1), None, r"x must have at least one row and one column; got shape \(2, 0\)"),
        (torch.tensor([[1.0], [torch.nan]]), torch.ones(2, 1), None, "x must be finite; row 1 holds NaN or infinity"),
        (torch.ones(2, 1), torch.tensor([[torch.inf], [1.0]]), None, "y must be finite; row 0"),
    ],
)
def test_a_row_dataset_says_what_is_wrong(x, y, noisy, message):
    with pytest.raises(InputError, match=message):
        RowDataset(x, y, noisy)


def test_finite_values_whose_sum_overflows_are_accepted():
    RowDataset(torch.full((4, 2), 3e38), torch.ones(4, 1))
