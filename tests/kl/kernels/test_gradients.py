"""The closed forms of grad_x K against torch.func, at equal, zero and parallel rows, and who has none."""

import math
from dataclasses import dataclass

import pytest
import torch
from every_kernel import KERNELS
from torch import Tensor
from user_kernels import Cauchy, ManhattanLaplacian

from kl import Gaussian, InputError, Kernel, Laplacian, Polynomial, RadialKernel, ReluNNGP, ReluNTK, Rows
from kl.kernels import (
    ExponentialPower,
    GramKernel,
    InverseMultiquadric,
    LpqLaplacian,
    Matern32,
    Matern52,
    Product,
    Scaled,
    Sum,
)
from kl.products.gradients import gradient_matmul, gradient_row_matmul, gradient_sum
from kl.testing import check_kernel

pytestmark = pytest.mark.numeric

SMOOTH = (ExponentialPower(3.0, 2.0), Matern32(2.0))
MORE = [
    *(Polynomial(3, 1.0, 0.2), Polynomial(1, 0.0), ReluNTK(1, 0.5), ReluNTK(2, 0.7), ReluNTK(5), ReluNNGP(1)),
    *(ExponentialPower(3.0, 0.4), *SMOOTH),
    Gaussian(3.0) * Laplacian(2.0) * (ReluNTK(2) + 2.0 * Polynomial(2, 1.0, 0.2)),
    Laplacian(2.0) * Laplacian(2.0) + Laplacian(2.0),
    0.5 * (3.0 * Matern32(2.0)),
    *(LpqLaplacian(9.0, p, q) for p, q in ((2.0, 1.3), (1.7, 1.7), (1.0, 0.6), (0.5, 0.5), (0.6, 0.2))),
    Gaussian(3.0) + LpqLaplacian(9.0) + 2.0 * LpqLaplacian(4.0, 1.5) * ReluNTK(2),
    LpqLaplacian(9.0) * LpqLaplacian(4.0, 1.5) * Laplacian(3.0),
]
WITH_GRADIENTS = [kernel for kernel in KERNELS if kernel.has_gradients] + MORE


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def formula(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    """K(x, z_j) of one row, shape (p,), by operations that torch.func can follow, written without the library's."""
    r, inner, w = (x - z).norm(dim=1), z @ x, x.norm() * z.norm(dim=1)
    match kernel:
        case Sum():
            return torch.stack([formula(part, x, z) for part in kernel.parts]).sum(dim=0)
        case Product():
            return torch.stack([formula(part, x, z) for part in kernel.parts]).prod(dim=0)
        case Scaled():
            return kernel.scale * formula(kernel.part, x, z)
        case Gaussian():
            return torch.exp(-(r**2) / (2 * kernel.bandwidth**2))
        case Laplacian():
            return torch.exp(-r / kernel.bandwidth)
        case ExponentialPower():
            return torch.exp(-((r / kernel.bandwidth) ** kernel.power))
        case Matern32():
            t = 3**0.5 * r / kernel.bandwidth
            return (1 + t) * torch.exp(-t)
        case Matern52():
            t = 5**0.5 * r / kernel.bandwidth
            return (1 + t + t**2 / 3) * torch.exp(-t)
        case LpqLaplacian():
            distance = ((x - z).abs() ** kernel.p).sum(dim=1) ** (1 / kernel.p)
            return torch.exp(-((distance / kernel.bandwidth) ** kernel.q))
        case InverseMultiquadric():
            return (1 + (r / kernel.bandwidth) ** 2) ** -0.5
        case Polynomial():
            return (kernel.scale * inner + kernel.bias) ** kernel.degree
    s, n = inner, inner + kernel.bias**2
    for _ in range(kernel.depth - 1):
        u = s / w
        k0 = 1 - u.acos() / math.pi
        s = w * (u * k0 + (1 - u**2).sqrt() / math.pi)
        n = n * k0 + s + kernel.bias**2
    return n if isinstance(kernel, ReluNTK) else s


def by_autograd(kernel: Kernel, x: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """d f_k / d x_i, shape (m, c, d)."""
    return torch.stack([torch.func.jacrev(lambda row: formula(kernel, row, z) @ v)(row) for row in x])


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("d", [3, 20])  # few features are summed directly
@pytest.mark.parametrize("kernel", WITH_GRADIENTS, ids=str)
def test_gradients_are_those_of_autograd(kernel: Kernel, d: int) -> None:
    x, z, v = normal(6, d), normal(7, d, seed=1), normal(7, 3, seed=2)
    wanted = by_autograd(kernel, x, z, v)
    rows, centres = Rows.of(x), Rows.of(z)
    assert relative(gradient_matmul(kernel, rows, centres, v), wanted) < 1e-10
    assert relative(gradient_matmul(kernel, rows, centres, v, columns=2), wanted) < 1e-10
    signs = torch.tensor([1.0, -1.0, 0.5])[torch.arange(6 * 2 * 3).view(6, 2, 3) % 3]
    found = gradient_row_matmul(kernel, rows, centres, v, signs)
    assert relative(found, torch.einsum("iko,iod->ikd", signs.double(), wanted)) < 1e-10
    u = normal(6, seed=3)
    assert relative(gradient_sum(kernel, rows, centres, v, u), torch.einsum("i,iod->od", u, wanted)) < 1e-9
    # float32, whose rounding is the only difference
    low = gradient_matmul(kernel, Rows.of(x.float()), Rows.of(z.float()), v)
    assert low.dtype == torch.float32
    assert relative(low.double(), wanted) < 1e-4


@pytest.mark.parametrize("kernel", WITH_GRADIENTS, ids=str)
def test_one_feature(kernel: Kernel) -> None:
    """Where all rows are parallel."""
    x, z, v, step = normal(6, 1), normal(7, 1, seed=1), normal(7, 3, seed=2), 1e-5
    wanted = (kernel(x + step, z) - kernel(x - step, z)) @ v / (2 * step)
    assert (
        relative(gradient_matmul(kernel, Rows.of(x), Rows.of(z), v)[..., 0], wanted) < 1e-3
    )  # angles of 0 are rounded to 1e-8, by 1e-5


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("kernel", [each for each in WITH_GRADIENTS if each.shift_invariant], ids=str)
def test_a_centre_adds_nothing_to_the_gradient_at_itself(kernel: Kernel, d: int) -> None:
    z, v = normal(7, d), normal(7, 2, seed=2)
    same, others = torch.tensor([2, -1]), [0, 1, 3, 4, 5, 6]
    x = torch.stack([z[2], normal(d, seed=5)])
    found = gradient_matmul(kernel, Rows.of(x), Rows.of(z), v, same)
    wanted = torch.cat([by_autograd(kernel, x[:1], z[others], v[others]), by_autograd(kernel, x[1:], z, v)])
    assert relative(found, wanted) < 1e-10
    assert relative(gradient_matmul(kernel, Rows.of(x), Rows.of(z), v), wanted) < 1e-6  # equal rows that nobody named


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [Laplacian(3.0), ExponentialPower(3.0, 0.4)], ids=str)
def test_equal_rows_that_nobody_named_add_no_rounding_error(kernel: Kernel, dtype: torch.dtype) -> None:
    x = 10 * normal(50, 40).to(dtype)
    found = gradient_matmul(kernel, Rows.of(x[:25].clone()), Rows.of(x), torch.eye(50, dtype=dtype))
    assert not found[torch.arange(25), torch.arange(25)].any()
    assert found[0, 1].any()


def test_tiny_distances_do_not_blow_up() -> None:
    x = torch.tensor([[1.0, 1e-20], [1.0, 2e-20]])  # the Laplacian's slope here is 1e20
    found = gradient_matmul(Laplacian(1.0), Rows.of(x[:1]), Rows.of(x), torch.ones(2, 1))
    assert found.abs().max() <= 1


def test_8_bit_rows() -> None:
    pixels = torch.randint(0, 256, (30, 64), generator=torch.Generator().manual_seed(0)) / 255
    rows, v = Rows.of(pixels), normal(30, 2)
    assert rows.codes is not None
    same = torch.arange(30)
    for kernel in (Laplacian(2.0), ReluNTK(3), Gaussian(2.0) + Laplacian(1.0) * ReluNTK(2)):
        wanted = gradient_matmul(kernel, rows.floats().double(), rows.floats().double(), v, same)
        assert relative(gradient_matmul(kernel, rows, rows, v, same).double(), wanted) < 1e-5


def test_a_constant_column_has_gradient_0() -> None:
    x = normal(40, 20).float()
    x[:, 7] = 5.1
    for kernel in (Gaussian(3.0), Laplacian(3.0)):
        found = gradient_matmul(kernel, Rows.of(x), Rows.of(x), normal(40, 2))
        assert not found[..., 7].any()
        assert found[..., 6].all()


def test_far_from_the_origin_few_digits_are_lost() -> None:
    x, v = normal(30, 5).float().double(), normal(30, 2)
    near = gradient_matmul(Gaussian(2.0), Rows.of(x), Rows.of(x), v)
    far = (x + 1000).float()
    exact = gradient_matmul(Gaussian(2.0), Rows.of(far.double()), Rows.of(far.double()), v)
    assert relative(gradient_matmul(Gaussian(2.0), Rows.of(far), Rows.of(far), v).double(), exact) < 1e-5
    assert relative(near, exact) < 1e-3  # x + 1000 was rounded


@pytest.mark.parametrize(
    ("kernel", "slope"), [(ReluNTK(3, 0.5), 3 / 4), (ReluNTK(1), 1), (ReluNNGP(3), 1 / 4)], ids=str
)
def test_zero_rows_take_half_the_slope_of_relu(kernel: Kernel, slope: float) -> None:
    x, z = torch.zeros(1, 4).double(), normal(1, 4)
    one = torch.ones(1, 1).double()
    found = gradient_matmul(kernel, Rows.of(x), Rows.of(z), one)
    torch.testing.assert_close(found[0, 0], slope * z[0])
    assert gradient_matmul(kernel, Rows.of(z), Rows.of(x), one).abs().max() < (1e-15 if slope != 1 else 1e-14)


def test_parallel_rows_of_the_ntk_take_the_mean_of_both_sides() -> None:
    x, across = normal(1, 4), normal(1, 4, seed=1)
    across -= (across @ x.T) / (x @ x.T) * x
    one, step = torch.ones(1, 1).double(), 1e-3
    for kernel in (ReluNTK(3), ReluNTK(2, 0.5)):
        for z in (2 * x, x, -x):
            found = gradient_matmul(kernel, Rows.of(x), Rows.of(z), one, torch.tensor([0 if z is x else -1]))[0, 0]
            for direction in (x, across):
                ahead, back = kernel(x + step * direction, z), kernel(x - step * direction, z)
                assert float(found @ direction[0]) == pytest.approx(
                    float(ahead - back) / (2 * step), rel=1e-4, abs=1e-3
                )  # rounding of the angle: 1e-8 / step


class TestOneWithout:
    """Kernels that do not define their gradient."""

    def test_it_is_an_error_that_names_the_method(self) -> None:
        rows, v = Rows.of(normal(3, 2)), normal(3, 1)
        for kernel, method in (
            (Cauchy(2.0), r"Cauchy must define _slope\(self, sq_dist\), the derivative of _profile"),
            (ManhattanLaplacian(2.0), r"ManhattanLaplacian must define _gradients\(self, pair\)"),
            (Cosine(), r"Cosine must define _slopes\(self, gram, x_sq, z_sq\), the derivative of _evaluate"),
            (Gaussian(1.0) + 2 * Cauchy(2.0), "Cauchy must define"),
            (Gaussian(1.0) * Cauchy(2.0), "Cauchy must define"),
        ):
            assert not kernel.has_gradients
            with pytest.raises(InputError, match=method):
                gradient_matmul(kernel, rows, rows, v)

    def test_a_parent_of_another_formula_does_not_count(self) -> None:
        assert not Wider(1.0).has_gradients
        assert WiderWithSlope(1.0).has_gradients
        check_kernel(WiderWithSlope(1.0))
        check_kernel(Wider(1.0))

    def test_check_kernel_finds_a_wrong_slope(self) -> None:
        with pytest.raises(AssertionError, match="gradients are not the limit of differences: off by"):
            check_kernel(WrongSlope(2.0))

    def test_auto_is_resolved_first(self) -> None:
        with pytest.raises(InputError, match='bandwidth is still "auto"'):
            gradient_matmul(Gaussian(), Rows.of(normal(3, 2)), Rows.of(normal(3, 2)), normal(3, 1))


@dataclass(frozen=True)
class Cosine(GramKernel):
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.div_((x_sq * z_sq).sqrt_())


@dataclass(frozen=True)
class Wider(Gaussian):
    def _profile(self, sq_dist: Tensor) -> Tensor:
        return super()._profile(sq_dist.div_(4))


@dataclass(frozen=True)
class WiderWithSlope(Wider):
    def _slope(self, sq_dist: Tensor) -> Tensor:
        return self._profile(sq_dist).div_(-8 * self.bandwidth**2)


@dataclass(frozen=True)
class WrongSlope(RadialKernel):
    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(-1 / self.bandwidth**2).exp_()

    def _slope(self, sq_dist: Tensor) -> Tensor:
        return self._profile(sq_dist).mul_(-1.01 / self.bandwidth**2)
