"""Every kernel: the contract, the oracle, scikit-learn, and how kernels combine."""

import re

import numpy as np
import oracle
import pytest
import torch
from sklearn.gaussian_process.kernels import Matern
from sklearn.metrics.pairwise import laplacian_kernel, polynomial_kernel, rbf_kernel
from user_kernels import Cauchy, ManhattanLaplacian

from kl.errors import InputError
from kl.kernels import (
    ExponentialPower,
    Gaussian,
    InverseMultiquadric,
    Kernel,
    Laplacian,
    LpqLaplacian,
    Matern32,
    Matern52,
    Polynomial,
    Product,
    ReluNNGP,
    ReluNTK,
    Scaled,
    Sum,
    kernel_names,
    median_distance,
)
from kl.kernels.radial import DIRECT_FEATURES
from kl.rows.pair import Pair
from kl.testing import check_kernel

pytestmark = pytest.mark.numeric

ORACLES = [
    (Gaussian(3.0), oracle.gaussian),
    (Laplacian(4.0), oracle.laplacian),
    (ExponentialPower(4.0, power=0.5), oracle.exponential_power),
    (ExponentialPower(4.0, power=1.7), oracle.exponential_power),
    (Matern32(4.0), oracle.matern32),
    (Matern52(4.0), oracle.matern52),
    (InverseMultiquadric(2.0), oracle.inverse_multiquadric),
    (LpqLaplacian(9.0), oracle.lpq_laplacian),
    (LpqLaplacian(6.0, 1.5, 0.8), oracle.lpq_laplacian),
    (LpqLaplacian(99.0, 0.5, 0.5), oracle.lpq_laplacian),
    (LpqLaplacian(4.0, 2.0, 0.8), oracle.lpq_laplacian),
    (LpqLaplacian(5.0, 1.3, 1.3), oracle.lpq_laplacian),
    (Polynomial(degree=1, bias=0.0), oracle.polynomial),
    (Polynomial(degree=3, bias=0.5, scale=0.1), oracle.polynomial),
    (ReluNTK(depth=1, bias=0.5), oracle.relu_ntk),
    (ReluNTK(depth=2), oracle.relu_ntk),
    (ReluNTK(depth=5, bias=0.7), oracle.relu_ntk),
    (ReluNNGP(depth=1), oracle.relu_nngp),
    (ReluNNGP(depth=4, bias=0.7), oracle.relu_nngp),
]
COMPOSITES = [
    Gaussian(3.0) + Laplacian(4.0) + ReluNTK(2),
    2.5 * Gaussian(3.0) * Polynomial(2),
    Gaussian("auto") * 0.5 + Laplacian("auto"),
    ManhattanLaplacian(10.0) + Gaussian(3.0),
    Gaussian(3.0) * ManhattanLaplacian(10.0),
    ManhattanLaplacian(10.0) + 3 * ManhattanLaplacian(20.0),
]
USERS = [Cauchy(), ManhattanLaplacian(10.0)]
AUTO = [Gaussian(), Laplacian(), ExponentialPower(), Matern32(), Matern52(), InverseMultiquadric(), LpqLaplacian()]


def rows(n: int, d: int = 20, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def hard_rows() -> torch.Tensor:
    """Ordinary, zero, opposite and parallel rows, without equal ones."""
    x = rows(9)
    x[3], x[5], x[7] = 0, -x[4], 2 * x[6]
    return x


@pytest.mark.parametrize("kernel", [k for k, _ in ORACLES] + COMPOSITES + USERS + AUTO, ids=str)
def test_contract(kernel: Kernel) -> None:
    check_kernel(kernel)


def test_every_name_is_tested() -> None:
    tested = {kernel.name for kernel, _ in ORACLES}
    assert tested | {"dispersal", "product-laplacian"} == set(kernel_names())


@pytest.mark.parametrize(("kernel", "function"), ORACLES, ids=[str(k) for k, _ in ORACLES])
def test_matches_oracle(kernel: Kernel, function) -> None:
    x, z = hard_rows(), rows(5, seed=1)
    parameters = {key: value for key, value in kernel.config().items() if key != "kernel"}
    wanted = oracle.matrix(function, x.numpy(), x.numpy(), **parameters)
    scale = wanted.diagonal().max()
    # Parallel rows: rounding 1e-16 of the cosine is 1e-8 of the angle, in the oracle as in the kernel.
    parallel = 1e-7 if isinstance(kernel, ReluNTK) else 1e-13
    assert np.abs(kernel(x).numpy() - wanted).max() <= parallel * scale
    wanted = oracle.matrix(function, x.numpy(), z.numpy(), **parameters)
    assert np.abs(kernel(x, z).numpy() - wanted).max() <= 1e-13 * scale


@pytest.mark.parametrize(
    ("kernel", "function"),
    [
        (Gaussian(3.0), lambda x, z: rbf_kernel(x, z, gamma=1 / 18)),
        (ExponentialPower(3.0, power=2), lambda x, z: rbf_kernel(x, z, gamma=1 / 9)),
        (Laplacian(3.0), Matern(length_scale=3.0, nu=0.5)),
        (Matern32(3.0), Matern(length_scale=3.0, nu=1.5)),
        (Matern52(3.0), Matern(length_scale=3.0, nu=2.5)),
        (Polynomial(3, 0.5, 0.1), lambda x, z: polynomial_kernel(x, z, degree=3, gamma=0.1, coef0=0.5)),
    ],
    ids=lambda value: str(value) if isinstance(value, Kernel) else "",
)
def test_matches_scikit_learn(kernel: Kernel, function) -> None:
    x, z = rows(9), rows(5, seed=1)
    np.testing.assert_allclose(kernel(x, z).numpy(), function(x.numpy(), z.numpy()), rtol=1e-12, atol=1e-14)


def test_laplacian_is_euclidean_not_manhattan() -> None:
    x = rows(5).numpy()
    manhattan = laplacian_kernel(x, gamma=1 / 3)  # scikit-learn's is L1
    assert np.abs(Laplacian(3.0)(torch.from_numpy(x)).numpy() - manhattan).max() > 0.1
    np.testing.assert_allclose(ManhattanLaplacian(3.0)(torch.from_numpy(x)).numpy(), manhattan, rtol=1e-12)


def test_kernels_that_coincide() -> None:
    x, z = rows(7, d=20), rows(4, d=20, seed=1)  # more than are summed directly
    torch.testing.assert_close(ExponentialPower(3.0, power=1)(x, z), Laplacian(3.0)(x, z))
    torch.testing.assert_close(ExponentialPower(3.0, power=2)(x, z), Gaussian(3.0 / 2**0.5)(x, z))
    torch.testing.assert_close(ReluNTK(1, bias=0.5)(x, z), Polynomial(1, bias=0.25)(x, z))
    assert torch.equal(ReluNNGP(3, bias=2.0)(x, z), ReluNNGP(3)(x, z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radial_kernels_are_one_at_equal_rows(dtype: torch.dtype) -> None:
    x = 100 * rows(20, d=300, dtype=dtype) + 1000  # where |x|^2 + |z|^2 - 2<x, z> cancels worst
    for kernel in (*AUTO, Cauchy()):
        resolved = kernel.resolve(x)
        assert (resolved(x).diagonal() == 1).all()
        assert (resolved.diag(x) == 1).all()


def test_relative_accuracy_far_from_the_diagonal() -> None:
    x, z = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[30.0]], dtype=torch.float64)
    assert Matern52(1.0)(x, z).item() == pytest.approx(oracle.matern52([0.0], [30.0], 1.0), rel=1e-12)
    assert Matern32(1.0)(x, z).item() == pytest.approx(oracle.matern32([0.0], [30.0], 1.0), rel=1e-12)


class TestComposites:
    x, z = rows(7, d=20), rows(4, d=20, seed=1)  # more than are summed directly
    first, second, third = Gaussian(3.0), Laplacian(2.0), ManhattanLaplacian(5.0)

    def test_values(self) -> None:
        one, two, three = (kernel(self.x, self.z) for kernel in (self.first, self.second, self.third))
        torch.testing.assert_close((self.first + self.second + self.third)(self.x, self.z), one + two + three)
        torch.testing.assert_close((self.third * self.first * self.second)(self.x, self.z), one * two * three)
        torch.testing.assert_close((2 * self.first)(self.x, self.z), 2 * one)
        mixed = self.first * (self.second + 0.5 * self.first) + self.first
        torch.testing.assert_close(mixed(self.x, self.z), one * (two + 0.5 * one) + one)
        torch.testing.assert_close(mixed.diag(self.x), torch.full((7,), 2.5, dtype=torch.float64))

    def test_the_same_kernel_twice(self) -> None:
        # Both parts are one object, of which only the second may overwrite the inner products.
        torch.testing.assert_close((self.first + self.first)(self.x), 2 * self.first(self.x))
        torch.testing.assert_close((self.first * self.first)(self.x), self.first(self.x) ** 2)

    def test_inner_products_are_computed_once_and_only_if_used(self, monkeypatch) -> None:
        calls = []
        multiply = Pair._multiply
        monkeypatch.setattr(Pair, "_multiply", lambda pair: calls.append(1) or multiply(pair))
        (self.first + self.third + 2 * self.second * self.first)(self.x)
        assert len(calls) == 1
        (self.third + 2 * self.third)(self.x)
        assert len(calls) == 1

    def test_structure(self) -> None:
        one, two, three = self.first, self.second, self.third
        assert (one + two) + three == one + (two + three) == Sum((one, two, three))
        assert (one * two) * three == one * (two * three) == Product((one, two, three))
        assert one * (two + three) == Product((one, Sum((two, three))))
        assert 2 * one == one * 2.0 == Scaled(one, 2.0)
        assert one + two != two + one  # equal functions, but values are compared part by part
        assert str(one + 2 * two) == (
            "Sum(parts=(Gaussian(bandwidth=3.0), Scaled(part=Laplacian(bandwidth=2.0), scale=2.0)))"
        )

    def test_resolve_recurses(self) -> None:
        kernel = 2 * (Gaussian() + Laplacian(2.0) * Laplacian())
        width = median_distance(self.x)
        assert kernel.resolve(self.x) == 2 * (Gaussian(width) + Laplacian(2.0) * Laplacian(width))
        with pytest.raises(InputError, match=r'bandwidth is still "auto": call kernel.resolve\(x\)'):
            kernel(self.x)
        with pytest.raises(InputError, match="still"):
            kernel.diag(self.x)

    def test_errors(self) -> None:
        for scale in (0, -2.0, float("inf"), float("nan"), True):
            with pytest.raises(InputError, match="scale must be a finite number above 0; got"):
                scale * self.first
        with pytest.raises(InputError, match=r"parts must hold kernels, such as Gaussian.* got 'gaussian'"):
            Sum((self.first, "gaussian"))
        with pytest.raises(InputError, match=r"parts must be a list or tuple of kernels; got \(\)"):
            Product(())
        with pytest.raises(InputError, match=r"part must hold kernels.* got 3"):
            Scaled(3, 2.0)
        with pytest.raises(TypeError):
            self.first + 1
        with pytest.raises(TypeError):
            self.first * "2"


class TestBandwidth:
    def test_auto_is_the_median_distance(self) -> None:
        x = rows(10)  # 45 pairs: an odd number, for which all definitions of the median agree
        assert median_distance(x) == pytest.approx(oracle.naive_median_distance(x.numpy()), rel=1e-12)
        assert Gaussian().resolve(x) == Gaussian(median_distance(x))

    @pytest.mark.parametrize("far", [1e3, 1e7, 1e12])
    def test_the_median_distance_is_right_beside_a_row_that_is_far_away(self, far: float) -> None:
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 4)))
        x[3] = far
        assert median_distance(x) == pytest.approx(oracle.naive_median_distance(x.numpy()), rel=1e-9)
        assert Gaussian(2.0).resolve(x) == Gaussian(2.0)

    def test_auto_of_every_part_is_of_the_rows_that_the_seed_draws(self) -> None:
        x = rows(1101, d=2)
        for seed in (0, 3):
            drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:1000]
            distances = torch.cdist(x[drawn], x[drawn], compute_mode="donot_use_mm_for_euclid_dist")
            width = float(distances[tuple(torch.triu_indices(1000, 1000, 1))].median())
            for kernel in (Gaussian() + Laplacian(), Gaussian() * Laplacian(), 2.0 * (Gaussian() + 3.0 * Laplacian())):
                resolved = kernel.resolve(x, seed=seed)
                widths = re.findall(r"bandwidth=([0-9.]+)", str(resolved))
                assert [float(each) for each in widths] == pytest.approx([width] * 2, rel=1e-12)
        assert Gaussian().resolve(x, seed=0) != Gaussian().resolve(x, seed=3)

    def test_auto_is_a_function_of_the_seed(self) -> None:
        x = rows(300)
        assert median_distance(x, sample=50, seed=1) == median_distance(x, sample=50, seed=1)
        assert median_distance(x, sample=50, seed=1) != median_distance(x, sample=50, seed=2)

    def test_one_row_has_a_bandwidth(self) -> None:
        assert Gaussian().resolve(rows(1)) == Gaussian(1.0)

    def test_errors(self) -> None:
        with pytest.raises(InputError, match="needs rows that differ; the median pairwise distance is 0"):
            Gaussian().resolve(torch.ones(5, 3))
        with pytest.raises(InputError, match="x must be finite; row 2"):
            Gaussian().resolve(torch.tensor([[1.0], [2.0], [float("nan")]]))
        with pytest.raises(InputError, match='bandwidth is still "auto"'):
            Laplacian()(rows(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0), 'bandwidth must be a finite number above 0 or "auto"; got 0'),
        (lambda: Laplacian(-1.0), 'bandwidth must be .* or "auto"; got -1.0'),
        (lambda: Gaussian(float("nan")), "bandwidth must be .* got nan"),
        (lambda: Gaussian("wide"), "bandwidth must be .* got 'wide'"),
        (lambda: Gaussian(True), "bandwidth must be .* got True"),
        (lambda: Gaussian(1e-30), "between 1e-15 and 1e15, .* got 1e-30: rescale the features"),
        (lambda: ExponentialPower(1.0, power=2.5), "power must be .* above 0 and at most 2; got 2.5"),
        (lambda: ExponentialPower(1.0, power=0), "power must be .* above 0 and at most 2; got 0"),
        (lambda: Polynomial(degree=0), "degree must be a whole number, 1 or above; got 0"),
        (lambda: Polynomial(degree=1.5), "degree must be a whole number, 1 or above; got 1.5"),
        (lambda: Polynomial(bias=-1), "bias must be a finite number, 0 or above; got -1"),
        (lambda: Polynomial(scale=0), "scale must be a finite number above 0; got 0"),
        (lambda: ReluNTK(depth=0), "depth must be a whole number, 1 or above; got 0"),
        (lambda: ReluNTK(depth=True), "depth must be a whole number"),
        (lambda: ReluNNGP(depth=2, bias=-0.1), "bias must be a finite number, 0 or above; got -0.1"),
        (lambda: Gaussian(1.0)(torch.ones(3)), r"x must be a float tensor of shape .* got \(3,\)"),
        (
            lambda: Gaussian(1.0)(torch.ones(3, 2), torch.ones(3, 4)),
            "z must have x's columns .* got 4",
        ),
        (lambda: Gaussian(1.0)(rows(3), rows(3).float()), "z must have x's columns and dtype"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_parameters_become_plain_numbers() -> None:
    # Checkpoints load with weights_only=True, which refuses numpy's numbers.
    kernel = Polynomial(np.int64(2), np.float32(0.5), np.float64(2.0))
    assert [type(value) for value in kernel.config().values()] == [str, int, float, float]
    assert type(Gaussian(np.float64(2)).config()["bandwidth"]) is float


@pytest.mark.parametrize(
    "kernel", [Gaussian(3.0), Laplacian(2.0), Gaussian(3.0) * Laplacian(2.0) + 0.5 * Matern52(4.0)]
)
def test_distances_summed_directly_and_from_inner_products_agree(kernel) -> None:
    """A column of zeros changes no distance, only the way it is computed."""
    few, others = rows(7, d=DIRECT_FEATURES), rows(4, d=DIRECT_FEATURES, seed=1)
    assert not kernel.uses_products(DIRECT_FEATURES)
    assert kernel.uses_products(DIRECT_FEATURES + 1)
    wide, wide_others = (torch.nn.functional.pad(x, (0, 1)) for x in (few, others))
    torch.testing.assert_close(kernel(few, others), kernel(wide, wide_others), rtol=1e-12, atol=1e-12)
    check_kernel(kernel, few, others)
