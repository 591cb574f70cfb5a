"""Features as 8-bit integers: when they are recognised, and that their products are exact."""

import logging
import math

import numpy as np
import oracle
import pytest
import torch

from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNNGP, ReluNTK
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows import int8 as codes
from kl.rows.int8 import encode, int8_is_exact
from kl.rows.pair import Pair
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N, D = 90, 50
SCALINGS = {
    "pixels": lambda k: k,
    "unit": lambda k: k / 255,
    "digits": lambda k: (k // 16) / 16,
    "standardised": lambda k: (k / 255 - 0.1307) / 0.3081,
    "signed": lambda k: k / 127.5 - 1,
    "row norm": lambda k: k / k.norm(dim=1, keepdim=True),
    "standardised, then row norm": lambda k: (k / 255 - 0.13) / (k / 255 - 0.13).norm(dim=1, keepdim=True),
    "row mean and deviation": lambda k: (k - k.mean(dim=1, keepdim=True)) / k.std(dim=1, keepdim=True),
}
COMMON_GRID = ("pixels", "unit", "digits", "standardised", "signed")


def images(n=N, d=D, seed=0):
    """Whole numbers 0..255, half of them 0, as images have them."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.randint(0, 256, (n, d), generator=generator) * torch.randint(0, 2, (n, d), generator=generator)
    k[:, 0], k[:, 1], k[:, 2] = 0, 255, 254
    return k.float()


@pytest.fixture(autouse=True)
def _whatever_they_cost(monkeypatch):
    """Right or wrong must not hang on a timing: int8 products count as fast here, wherever they are exact."""
    monkeypatch.setattr(codes, "MAX_SLOWDOWN", math.inf)
    codes._probe.cache_clear()
    if not int8_is_exact(torch.device("cpu")):
        pytest.skip("int8 products are not exact on this CPU")
    yield
    codes._probe.cache_clear()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_inner_products_are_those_of_the_features(scaling):
    x, z = SCALINGS[scaling](images()), SCALINGS[scaling](images(40, seed=1))
    rows = Rows.of(x)
    others = Rows.of(z, like=rows)
    assert rows.codes is not None
    assert others.codes is not None
    assert (rows.codes.grid is not None) == (scaling in COMMON_GRID)
    wanted = x.double() @ z.double().T
    scale = float(x.double().norm(dim=1).max() * z.double().norm(dim=1).max())
    for left, right in ((rows, others), (rows.double(), others.double())):
        torch.testing.assert_close(Pair(left, right).inner().double(), wanted, atol=3e-7 * scale, rtol=0)
    distance = torch.cdist(x.double(), z.double()).square()
    # float64 differs from the features' own products only by the rounding of the features themselves.
    torch.testing.assert_close(Pair(rows.double(), others.double()).sq_dist(), distance, atol=3e-7 * scale, rtol=0)


@pytest.mark.parametrize("scaling", COMMON_GRID)
def test_distances_on_a_grid_are_exact_to_one_rounding(scaling):
    k = images()
    rows = Rows.of(SCALINGS[scaling](k))
    k = k // 16 if scaling == "digits" else k
    step = rows.codes.grid[0]
    exact = torch.cdist(k.double(), k.double(), compute_mode="donot_use_mm_for_euclid_dist").square().round()
    got = Pair(rows, rows).sq_dist()
    torch.testing.assert_close(got, (exact * step**2).float(), rtol=2e-7, atol=0)
    assert not got.diagonal().any()
    assert got.min() == 0


@pytest.mark.parametrize("scaling", SCALINGS)
def test_squared_norms_are_those_of_the_features_and_of_inner(scaling):
    x = SCALINGS[scaling](images())
    rows = Rows.of(x)
    torch.testing.assert_close(rows.sq_norm.double(), x.double().square().sum(dim=1), rtol=1e-6, atol=1e-6)
    if scaling in COMMON_GRID:
        assert torch.equal(Pair(rows, rows).inner().diagonal(), rows.sq_norm)
    same = torch.arange(len(x))
    assert torch.equal(Pair(rows, rows, same).inner().diagonal(), rows.sq_norm)
    assert not Pair(rows, rows, same).sq_dist().diagonal().any()


@pytest.mark.parametrize("scaling", ["unit", "standardised", "row norm"])
@pytest.mark.parametrize(
    ("kernel", "function", "parameters"),
    [
        (Gaussian(3.0), oracle.gaussian, {"bandwidth": 3.0}),
        (Laplacian(3.0), oracle.laplacian, {"bandwidth": 3.0}),
        (Polynomial(2, 1.0, 0.1), oracle.polynomial, {"degree": 2, "bias": 1.0, "scale": 0.1}),
        (ReluNTK(3, 0.1), oracle.relu_ntk, {"depth": 3, "bias": 0.1}),
    ],
)
def test_kernel_values_equal_the_oracle(scaling, kernel, function, parameters):
    x, z = SCALINGS[scaling](images(6)), SCALINGS[scaling](images(5, seed=1))
    wanted = oracle.matrix(function, x.double().numpy(), z.double().numpy(), **parameters)
    rows = Rows.of(x)
    got = kernel_matrix(kernel, rows, Rows.of(z, like=rows))
    np.testing.assert_allclose(got.numpy(), wanted, atol=3e-6 * np.abs(wanted).max())
    square = symmetric_kernel_matrix(kernel, rows)
    assert torch.equal(square.diagonal(), kernel._diag(rows))


def test_sums_of_kernels_share_one_product(monkeypatch):
    x = SCALINGS["standardised"](images())
    calls = []
    product = codes.Codes.product
    monkeypatch.setattr(codes.Codes, "product", lambda *given: calls.append(1) or product(*given))
    kernel = Gaussian(3.0) + ReluNTK(2) * ReluNNGP(2) + 2 * Laplacian(2.0)
    got = kernel(x)
    assert len(calls) == 1
    parts = Gaussian(3.0)(x) + ReluNTK(2)(x) * ReluNNGP(2)(x) + 2 * Laplacian(2.0)(x)
    torch.testing.assert_close(got, parts)


def test_a_batch_without_every_level_is_read_on_the_grid_of_the_others():
    k = images()
    rows = Rows.of(k / 255)
    dark = Rows.of(2 * (k[:3] // 4) / 255, like=rows)
    assert dark.codes.grid == rows.codes.grid
    assert Rows.of(torch.zeros(2, D), like=rows).codes.grid == rows.codes.grid


def test_rows_on_different_grids_meet():
    x, z = images() / 255, images(30, seed=1) / 100
    rows, others = Rows.of(x), Rows.of(z)
    assert rows.codes.grid != others.codes.grid
    torch.testing.assert_close(Pair(rows, others).inner(), x @ z.T)
    torch.testing.assert_close(Pair(rows, others).sq_dist(), torch.cdist(x, z).square())
    plain = Rows.of(torch.randn(4, D))
    assert plain.codes is None
    torch.testing.assert_close(Pair(rows, plain).inner(), x @ plain.data.T)


def noisy():
    return images() / 255 + 1e-4 * torch.randn(N, D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(N, D, generator=torch.Generator().manual_seed(0)),
        noisy(),
        images(d=31),  # too few features to gain anything
        torch.arange(300.0).repeat(40, 1),  # more than 256 levels
        1e6 + images() / 255,  # float32 does not resolve the levels
        images()[:0],
    ],
    ids=["normal", "nearly 8-bit", "few features", "many levels", "far", "empty"],
)
def test_other_features_stay_as_they_are(x):
    assert encode(x) is None


def test_one_odd_value_anywhere_makes_them_other_features():
    for row in (0, N - 1):
        x = images() / 255
        x[row, 5] += 1e-3
        assert encode(x) is None
        assert encode(SCALINGS["row norm"](images()) + x * 0).grid is None
        broken = SCALINGS["row norm"](images())
        broken[row, 5] += 1e-4
        assert encode(broken) is None


@pytest.mark.parametrize("own", [False, True], ids=["common grid", "each row its own"])
def test_a_grid_far_from_its_values_is_not_used(own):
    """r^2 |k|^2 is then so much larger than |x|^2 that float32 would lose the difference."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(200, 3000, generator=generator) < 0.02).float()
    if own:
        x[:, 1:3] = torch.tensor([1.0, -200.0])
        x *= 1 + torch.rand(200, 1, generator=generator)
    else:
        x[0, 0] = -254.0
    rows = Rows.of(x)
    wanted = x.double() @ x.double().T
    torch.testing.assert_close(Pair(rows, rows).inner().double(), wanted, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(rows.sq_norm.double(), wanted.diagonal(), rtol=1e-6, atol=0)


def test_constant_rows_and_float64():
    x = images() / 255
    x[4], x[7] = 0.0, 1.0
    assert encode(x).grid is not None
    ones = encode(torch.ones(5, D))
    assert torch.equal(Pair(Rows.of(torch.ones(5, D)), Rows.of(torch.ones(5, D))).inner(), torch.full((5, 5), float(D)))
    assert ones is not None
    double = images().double() / 255
    assert encode(double) is not None
    assert encode(images().div(255).double()) is None  # rounded to float32: not k / 255 in float64
    normalised = SCALINGS["row norm"](images())
    normalised[3] = 0.0
    rows = Rows.of(normalised)
    torch.testing.assert_close(Pair(rows, rows).inner(), normalised @ normalised.T)


def test_indexing_keeps_the_codes():
    rows = Rows.of(images() / 255)
    part = rows[torch.tensor([5, 2])]
    torch.testing.assert_close(Pair(part, rows[10:20]).inner(), part.data @ rows.data[10:20].T)
    assert rows.double()[3:5].dtype == torch.float64


@pytest.mark.parametrize("fault", ["wrong", "missing", "slow"])
def test_a_device_without_exact_int8_falls_back_with_a_log_line(monkeypatch, caplog, fault):
    product = codes._int8_product

    def broken(a, b, out=None):
        if fault == "missing":
            raise RuntimeError("not implemented\nfor this device")
        return product(a, b) + 1

    if fault == "slow":
        monkeypatch.setattr(codes, "MAX_SLOWDOWN", 4)
        ticks = iter([1.0, 0.2])
        monkeypatch.setattr(codes, "seconds", lambda work: next(ticks))
    else:
        monkeypatch.setattr(codes, "_int8_product", broken)
    codes._probe.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            assert encode(images() / 255) is None
            assert encode(images()) is None
        reasons = {"wrong": "are not exact", "missing": r"not implemented", "slow": "slower"}
        assert caplog.text.count("8-bit features are multiplied in float32 on cpu") == 1
        assert reasons[fault] in caplog.text
        assert "for this device" not in caplog.text
    finally:
        codes._probe.cache_clear()
