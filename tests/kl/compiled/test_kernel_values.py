"""Compiled kernel values: every library against float64, in units of the last place, and against torch."""

import math

import pytest
import torch
from compiled_code import library
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import kl
from kl.compiled import FORMULAS, LIBRARIES, best, code_for
from kl.compiled.kernel_values import add_digits, distances_of_few, of_distances, of_floats, of_integers, relu

pytestmark = pytest.mark.numeric

EPS = 2.0**-24  # half a unit in the last place, relative


@pytest.fixture(params=LIBRARIES)
def code(request):
    return library(request.param)


def generator():
    return torch.Generator().manual_seed(0)


def test_distances_of_integers_are_exact(code):
    product = torch.randint(-(2**22), 2**22, (37, 71), generator=generator()).int()
    rows, columns = (torch.randint(2**24, 2**25, (k,), generator=generator()).int() for k in (37, 142))
    columns = columns[::2]  # not contiguous
    expected = (rows[:, None] + columns[None] - 2 * product).float() * torch.tensor(0.37)
    assert torch.equal(of_integers(code, "distances", product, rows, columns, 0.37), expected)


def test_distances_of_floats(code):
    inner = 100 * torch.randn(37, 71, generator=generator())
    rows, columns = 150 * torch.rand(37, generator=generator()), 150 * torch.rand(71, generator=generator())
    exact = (rows[:, None].double() - 2 * inner.double() + columns[None].double()).clamp(min=0)
    size = rows[:, None] + columns[None] + 2 * inner.abs()
    found = of_floats(code, "distances", inner.clone(), rows, columns)
    assert ((found.double() - exact).abs() <= 2 * EPS * size).all()
    assert (found >= 0).all()
    assert (found == 0).any()


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_in_one_pass_equal_those_in_two(code, formula):
    """Of integers and of floats, to the bit, with zero distances on the diagonal."""
    x = torch.randint(-128, 128, (71, 16), generator=generator())
    product, squares = (x @ x.T).int(), x.square().sum(dim=1).int()
    scale, rate = 0.37 / 16, 0.001
    apart = of_integers(code, "distances", product.clone(), squares, squares, scale)
    apart = of_distances(code, formula, apart, rate)
    assert torch.equal(of_integers(code, formula, product.clone(), squares, squares, scale, rate), apart)
    floats, norms = product.float() / 9, squares.float() / 9
    apart = of_distances(code, formula, of_floats(code, "distances", floats.clone(), norms, norms), rate)
    assert torch.equal(of_floats(code, formula, floats.clone(), norms, norms, rate), apart)
    assert (apart.diag() == (0 if formula == "distances" else 1)).all()


def test_digits_are_added_as_torch_adds_them(code):
    orders = torch.randint(-(2**24), 2**24, (3, 37, 71), generator=generator()).int()
    scales = torch.rand(37, generator=generator()), torch.rand(71, generator=generator())
    out = torch.full((37, 71), math.nan)
    add_digits(code, orders[2], out, True)
    add_digits(code, orders[1], out, False)
    lower = orders[1].float() + orders[2].float() / 2**8
    assert torch.equal(out, lower)
    add_digits(code, orders[0], out, False, scales)
    assert torch.equal(out, (orders[0].float() + lower / 2**8) * (scales[0][:, None] * scales[1][None]))


@pytest.mark.parametrize("d", [1, 3, 16])
def test_distances_of_few_features(code, d):
    x, z = torch.randn(37, d, generator=generator()), torch.randn(1500, d, generator=generator())
    z[5] = x[3]
    exact = (x[:, None].double() - z[None].double()).square().sum(dim=2)
    found = distances_of_few(code, x, z)
    assert ((found.double() - exact).abs() <= (d + 2) * EPS * exact).all()
    assert found[3, 5] == 0
    assert torch.equal(distances_of_few(code, z, x), found.T)


RADIAL = {
    "gaussian": lambda s, rate: (-rate * s).exp(),
    "laplacian": lambda s, rate: (-rate * s.sqrt()).exp(),
    "matern32": lambda s, rate: (1 + rate * s.sqrt()) * (-rate * s.sqrt()).exp(),
    "matern52": lambda s, rate: (1 + rate * s.sqrt() + (rate * s.sqrt()) ** 2 / 3) * (-rate * s.sqrt()).exp(),
}


@pytest.mark.parametrize("formula", RADIAL)
def test_radial_kernels_are_within_two_units_in_the_last_place(code, formula):
    """With rate 1 the root alone is rounded before the exponential, which moves a value by half an eps t."""
    t = torch.linspace(0, 87, 2**20 + 3)
    sq_dist = t if formula == "gaussian" else t.square()
    exact = RADIAL[formula](sq_dist.double(), 1.0)
    found = of_distances(code, formula, sq_dist.clone(), 1.0)
    moved = 0 if formula == "gaussian" else EPS * t.double()
    assert ((found.double() - exact).abs() <= (4 * EPS + moved) * exact).all()
    assert found[0] == 1
    assert (found[1:] <= found[:-1] * (1 + 8 * EPS)).all()


@pytest.mark.parametrize("formula", RADIAL)
def test_ends_of_the_range(code, formula):
    far = torch.tensor([0.0, 1e-45, 1e-30, 1e9, 1e20, 3e38, math.inf, math.nan])
    found = of_distances(code, formula, far.clone(), 1.0)
    assert found[:3].tolist() == [1, 1, 1]
    if formula == "gaussian" or formula == "laplacian":
        assert found[3:7].tolist() == [0, 0, 0, 0]
    else:  # infinity times 0
        assert found[3:6].tolist() == [0, 0, 0]
    assert found[7].isnan()


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize("bias", [0.0, 0.7])
@pytest.mark.parametrize("kind", [kl.ReluNTK, kl.ReluNNGP])
def test_relu_networks(code, kind, depth, bias):
    x, z = (each.clone() for each in torch.randn(740, 5, generator=generator()).split([40, 700]))
    z[0], z[1], x[1], z[2] = x[0], -x[0], 0, 0  # equal, opposite and zero rows
    x_sq, z_sq = x.square().sum(dim=1), z.square().sum(dim=1)
    gram = x @ z.T
    gram[0, 0], gram[0, 1] = x_sq[0], -x_sq[0]
    kernel = kind(depth=depth, bias=bias)
    found = relu(code, gram.clone(), x_sq, z_sq, depth, kind is kl.ReluNTK, bias)
    # Of nearly parallel rows float32 hides the angle, from torch as well.
    exact = kernel._evaluate(gram.double(), x_sq.double()[:, None], z_sq.double()[None])
    by_torch = kernel._evaluate(gram.clone(), x_sq[:, None], z_sq[None])
    size = (x_sq[:, None] * z_sq[None]).sqrt().double() + bias**2 + 1e-30
    errors = [((each.double() - exact).abs() / size).max() for each in (found, by_torch)]
    assert errors[0] <= 1.5 * errors[1] + 4 * depth * EPS
    sq_norm = torch.rand(500, generator=generator())
    sq_norm[::9] = 0
    with_itself = relu(code, sq_norm[:, None].repeat(1, 500), sq_norm, sq_norm, depth, kind is kl.ReluNTK, bias)
    assert torch.equal(with_itself.diag(), kernel._evaluate(sq_norm[:, None].clone(), *[sq_norm[:, None]] * 2)[:, 0])
    assert found.isfinite().all()
    assert relu(code, torch.full((1, 3), math.nan), x_sq[:1], z_sq[3:6], depth, True, bias).isnan().all()


def test_threads_change_no_bit(code):
    x = torch.randn(50, 12, generator=generator())
    sq_dist = distances_of_few(code, x, x)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values = [of_distances(code, formula, sq_dist.clone(), 0.3) for formula in RADIAL]
            sq_norm = x.square().sum(dim=1)
            values += [relu(code, x @ x.T, sq_norm, sq_norm, 3, True, 0.1), distances_of_few(code, x, x)]
            found.append(torch.stack(values))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize(
    "kernel",
    [kl.Gaussian(2.0), kl.Laplacian(2.0), kl.Matern32(2.0), kl.Matern52(2.0), kl.ReluNTK(), kl.ReluNNGP(depth=2)],
    ids=lambda kernel: kernel.name,
)
def test_kernels_agree_with_torch(monkeypatch, kernel, d):
    """The formula of the class, which torch computes, where kl was installed without a compiler."""
    x, z = torch.randn(500, d, generator=generator()).split([300, 200])
    found = kernel(x, z)
    monkeypatch.setattr("kl.compiled.best", lambda: None)
    size = float(kernel.diag(x).max())
    torch.testing.assert_close(found / size, kernel(x, z) / size, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(found.double() / size, kernel(x.double(), z.double()) / size, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, of torch.jit.script, which dual_level calls
def test_what_compiled_code_does_not_take():
    assert code_for(torch.zeros(3, dtype=torch.float64)) is None
    assert code_for(torch.zeros(3, 4).T) is None
    assert code_for(torch.zeros(3, device="meta")) is None
    assert code_for(FakeTensorMode().from_tensor(torch.zeros(3))) is None
    followed = torch.zeros(3, requires_grad=True)
    assert code_for(torch.zeros(3), followed) is None
    with torch.no_grad():
        assert code_for(followed) is best()
    with forward_ad.dual_level():
        assert code_for(forward_ad.make_dual(torch.zeros(3), torch.ones(3))) is None
    assert code_for(torch.zeros(3)) is best()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kernel", [kl.Gaussian(2.0), kl.ReluNTK()], ids=lambda kernel: kernel.name)
def test_traced_and_compiled_by_torch(kernel):
    """A trace does not see what compiled code writes."""
    x = torch.randn(4, 3, generator=generator())

    def values(x):  # torch.jit.trace asks for a name
        return kernel(x)

    for f in (torch.jit.trace(values, (x,), check_trace=False), torch.compile(values, backend="eager")):
        torch.testing.assert_close(f(x + 1), kernel(x + 1))


@pytest.mark.parametrize("kernel", [kl.Gaussian(2.0), kl.Matern52(2.0)], ids=lambda kernel: kernel.name)
def test_few_features_that_are_columns_of_more(kernel):
    """Values of a row must not depend on the rows with it, of which one alone is contiguous."""
    x = torch.randn(40, 9, generator=generator())[:, 2:5]
    z = torch.randn(30, 3, generator=generator())
    found = kernel(x, z)
    assert torch.equal(found, kernel(x.contiguous(), z))
    assert torch.equal(found, kernel(z, x).T)
    assert torch.equal(found, torch.cat([kernel(row[None], z) for row in x]))


def test_norms_of_another_type(code):
    """Their memory is not read as float32."""
    gram, x_sq, z_sq = torch.ones(2, 3), torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0, 1.0])
    for of in (lambda code, *given: of_floats(code, "distances", *given), lambda *given: relu(*given, 3, True, 0.3)):
        assert torch.equal(of(code, gram.clone(), x_sq.double(), z_sq.double()), of(code, gram.clone(), x_sq, z_sq))


def test_a_class_with_a_recursion_of_its_own_is_not_computed_as_its_parent():
    class Half(kl.ReluNTK):
        def _recur(self, gram, norms):
            super()._recur(gram, norms)
            gram.mul_(0.5)

    class Third(kl.ReluNNGP):
        def _evaluate(self, gram, x_sq, z_sq):
            return super()._evaluate(gram, x_sq, z_sq).div_(3)

    x = torch.eye(2)
    assert Half(depth=2)(x).diag().tolist() == [1.0, 1.0]
    torch.testing.assert_close(Third(depth=2)(x).diag(), torch.full((2,), 1 / 3))


def test_a_class_with_a_profile_of_its_own_is_not_computed_as_its_parent():
    class Half(kl.Gaussian):
        def _profile(self, sq_dist):
            return super()._profile(sq_dist).mul_(0.5)

    assert float(Half(1.0)(torch.zeros(1, 2), torch.zeros(1, 2))) == 0.5
