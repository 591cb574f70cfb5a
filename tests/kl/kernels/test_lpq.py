"""The L_p^q kernels: values, bandwidth, gradients where coordinates are equal, errors."""

import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from kl import ExponentialPower, InputError, Laplacian, LpqLaplacian, Rows, build_kernel, median_distance
from kl.kernels import lpq
from kl.products.blocks import kernel_matmul
from kl.products.differentiable import differentiable_matmul
from kl.products.gradients import gradient_matmul, gradient_row_matmul
from kl.testing import check_kernel

pytestmark = pytest.mark.numeric

ALL = [(1.0, 1.0), (1.0, 0.5), (1.5, 1.5), (1.3, 0.9), (0.5, 0.5), (2.0, 2.0), (2.0, 0.7)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("p", "q"), ALL)
@pytest.mark.parametrize("d", [1, 4, 20])
def test_values_are_those_of_scipy(p: float, q: float, d: int) -> None:
    x, z = normal(9, d), normal(7, d, seed=1)
    wanted = torch.from_numpy(cdist(x.numpy(), z.numpy(), "minkowski", p=p))
    torch.testing.assert_close(LpqLaplacian(5.0, p, q)(x, z), torch.exp(-((wanted / 5) ** q)), rtol=1e-12, atol=1e-14)


def test_special_cases() -> None:
    x, z = normal(9, 20), normal(7, 20, seed=1)
    torch.testing.assert_close(LpqLaplacian(5.0, 2, 0.7)(x, z), ExponentialPower(5.0, 0.7)(x, z))
    assert build_kernel("product-laplacian", bandwidth=3) == LpqLaplacian(3.0) == LpqLaplacian(3.0, p=1, q=1)
    product = torch.stack([Laplacian(3.0)(a[:, None], b[:, None]) for a, b in zip(x.T, z.T, strict=True)]).prod(dim=0)
    torch.testing.assert_close(LpqLaplacian(3.0)(x, z), product)


@pytest.mark.parametrize(("p", "q"), ALL)
def test_contract(p: float, q: float, monkeypatch) -> None:
    check_kernel(LpqLaplacian("auto", p, q))
    monkeypatch.setattr(lpq, "CACHED", 20)  # a row at a time
    check_kernel(LpqLaplacian(9.0, p, q))


def test_bandwidth_is_the_median_of_its_own_distance() -> None:
    x = normal(30, 4)
    for p in (1.0, 1.5, 2.0):
        wanted = float(torch.from_numpy(pdist(x.numpy(), "minkowski", p=p)).quantile(0.5, interpolation="lower"))
        assert median_distance(x, p=p) == pytest.approx(wanted, rel=1e-12)
        assert LpqLaplacian("auto", p, 0.5).resolve(x) == LpqLaplacian(median_distance(x, p=p), p, 0.5)
    kernel = 2.0 * LpqLaplacian() + Laplacian()
    assert kernel.resolve(x) == 2.0 * LpqLaplacian(median_distance(x, p=1.0)) + Laplacian(median_distance(x))
    with pytest.raises(InputError, match="needs rows that differ"):
        LpqLaplacian().resolve(torch.ones(4, 2))
    with pytest.raises(InputError, match='bandwidth is still "auto"'):
        gradient_matmul(LpqLaplacian(), Rows.of(x), Rows.of(x), normal(30, 1))


@pytest.mark.parametrize(("p", "q"), ALL)
def test_equal_rows_and_equal_coordinates_add_nothing(p: float, q: float) -> None:
    """A table has many equal values in a column; the derivative there is that between both sides."""
    x, v, step = normal(9, 4), normal(9, 2), 1e-4
    x[:, 1] = (x[:, 1] > 0).double()
    x[3] = x[5]
    kernel, rows = LpqLaplacian(3.0, p, q), Rows.of(x)
    found = gradient_matmul(kernel, rows, rows, v)
    assert found.isfinite().all()
    columns = torch.eye(4).double()
    for k in (0, 1):
        ahead, back = kernel(x + step * columns[k], x), kernel(x - step * columns[k], x)
        torch.testing.assert_close(found[:, :, k], (ahead - back) @ v / (2 * step), rtol=1e-5, atol=1e-5)
    only = gradient_matmul(kernel, rows[3:4], rows[torch.tensor([3, 5])], v[:2])
    assert not only.any()


def test_autograd_at_a_centre() -> None:
    for p, q in ALL:
        z, v = Rows.of(normal(5, 3)), normal(5, 1)
        x = z.data[2:3].clone().requires_grad_()
        kernel = LpqLaplacian(3.0, p, q)
        (found,) = torch.autograd.grad(differentiable_matmul(kernel, x, z, v).sum(), x)
        torch.testing.assert_close(found, gradient_matmul(kernel, z[2:3], z, v)[0], rtol=1e-6, atol=1e-7)


def test_8_bit_rows_and_many_tiles() -> None:
    pixels = torch.randint(0, 256, (1100, 64), generator=torch.Generator().manual_seed(0)) / 255
    rows, v, kernel = Rows.of(pixels), normal(1100, 2), LpqLaplacian(20.0)
    assert rows.codes is not None
    exact = kernel(pixels.double()) @ v
    torch.testing.assert_close(kernel_matmul(kernel, rows, rows, v).double(), exact, rtol=1e-4, atol=1e-4)
    some = torch.arange(0, 1100, 220)
    signs = torch.ones(5, 1, 2)
    signs[:, :, 1] = -1
    both = gradient_matmul(kernel, rows[some].double(), rows.double(), v)
    found = gradient_row_matmul(kernel, rows[some], rows, v, signs)[:, 0]
    torch.testing.assert_close(found.double(), both[:, 0] - both[:, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"p": 2.5}, "p must be a finite number above 0 and at most 2; got 2.5"),
        ({"p": 0}, "p must be a finite number above 0 and at most 2; got 0"),
        ({"q": 1.5}, "q must be a finite number above 0 and at most p=1; got 1.5"),
        ({"p": 2, "q": 0}, "q must be a finite number above 0 and at most p; got 0"),
        ({"p": float("nan")}, "p must be a finite number"),
        ({"bandwidth": 0}, 'bandwidth must be a finite number above 0 or "auto"; got 0'),
        ({"bandwidth": 1e-30}, "bandwidth must lie between"),
    ],
)
def test_errors(parameters, message) -> None:
    with pytest.raises(InputError, match=message):
        LpqLaplacian(**parameters)
