"""Rows of floats as integer digits: what they lose, when they are used, and that all above them agrees with floats."""

import logging
import math

import numpy as np
import oracle
import pytest
import torch
from processes import on_ranks
from training import fit

import kl
from datamodules import ArrayDataModule
from kl.distributed.ranks import Ranks, encode_shared
from kl.eigenpro.memory import training_memory
from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNTK
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows import digits as module, rows as rows_module
from kl.rows.digits import Digits, digits_pay, split
from kl.rows.int8 import int8_is_exact
from kl.rows.pair import Pair
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
UNIT = 2.0**-23  # of the digits, times max |x_i|
BOUND = 2.0**-20  # of the products, times d max |x_i| max |z_j|


def draw(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


ROWS = {
    "normal": draw,
    "uniform": lambda n, d, seed=0: torch.rand(n, d, generator=torch.Generator().manual_seed(seed)),
    "far from 0": lambda n, d, seed=0: draw(n, d, seed) + 100,
    "of many sizes": lambda n, d, seed=0: draw(n, d, seed) * 10 ** torch.linspace(-9, 9, n)[:, None],
}


@pytest.fixture(autouse=True)
def _exact():
    """Whether digits pay is another question than whether they are right."""
    if not int8_is_exact(CPU):
        pytest.skip("int8 products are of no use on this CPU")


@pytest.fixture
def used(monkeypatch):
    """Digits are used for sets of any size, as where they pay; the list counts the products."""
    calls = []
    inner = Digits.inner
    monkeypatch.setattr(Digits, "inner", lambda *given: calls.append(1) or inner(*given))
    monkeypatch.setattr(rows_module, "digits_pay", lambda device, d: d >= 32)
    monkeypatch.setattr(rows_module, "LEAST_ROWS", 1)
    return calls


def restored(digits, d):
    """The rows that the digits stand for, in float64."""
    weights = 2.0 ** (-8 * torch.arange(3, dtype=torch.float64))
    return digits.scale.double()[:, None] * (digits.values[:, :, :d].double() * weights[:, None]).sum(dim=1)


def relative_error(found, x, z):
    """The root mean square of errors of <x_i, z_j>, in units of |x_i| |z_j|."""
    size = x.double().norm(dim=1)[:, None] * z.double().norm(dim=1)[None, :]
    return float(((found.double() - x.double() @ z.double().T) / size).square().mean().sqrt())


@pytest.mark.parametrize("name", ROWS)
def test_digits_restore_the_rows(name):
    x = ROWS[name](60, 100)
    x[7] = 0.0
    digits = split(x)
    assert digits.values.shape == (60, 3, 112)  # 100 features are filled up
    assert not digits.values[:, :, 100:].any()
    assert not digits.values[7].any()
    largest = x.abs().amax(dim=1, keepdim=True)
    assert ((restored(digits, 100) - x).abs() <= UNIT * largest).all()
    peaks = digits.values[:, 0].abs().amax(dim=1)
    assert (peaks[largest[:, 0] > 0] == 127).all()


def test_whole_numbers_of_a_unit_are_restored_exactly():
    whole = torch.randint(-127 * 2**16, 127 * 2**16 + 1, (20, 64), generator=torch.Generator().manual_seed(0))
    whole[:, 0] = 127 * 2**16
    x = whole.float() * 2.0**-30
    assert torch.equal(restored(split(x), 64), x.double())


@pytest.mark.parametrize("d", [100, 784, 3072])
@pytest.mark.parametrize("name", ROWS)
def test_three_digits_have_the_error_of_float32(name, d):
    x, z = ROWS[name](150, d), ROWS[name](100, d, seed=1)
    found = split(x).inner(split(z), Workspace())
    assert found.dtype == torch.float32
    assert relative_error(found, x, z) <= max(2 * relative_error(x @ z.T, x, z), 2.0**-25)
    largest = x.abs().amax(dim=1).double()[:, None] * z.abs().amax(dim=1).double()[None, :]
    assert ((found.double() - x.double() @ z.double().T).abs() <= BOUND * d * largest).all()


@pytest.mark.parametrize("d", [100, 784, 3072])
@pytest.mark.parametrize("name", ROWS)
def test_equal_rows_have_no_common_error(name, d):
    """The orders that are left out have one sign in <x, x>, so that no mean would take their error away."""
    x = ROWS[name](500, d)
    digits = split(x)
    found, wanted = digits.inner(digits, Workspace()).diagonal().double(), x.double().square().sum(dim=1)
    assert (found / wanted - 1).mean().abs() <= 2.0**-26


@pytest.mark.parametrize("d", [100, 784])
def test_heavy_tails_stay_floats(d, used):
    """Of Student's t with 3 degrees of freedom, one scale would leave most values few digits."""
    x = draw(150, d) / torch.stack([draw(150, d, seed) for seed in (1, 2, 3)]).square().mean(dim=0).sqrt()
    rows = Rows.of(x)
    assert torch.equal(Pair(rows, rows).inner(), x @ x.T)
    assert not used
    for other in (torch.eye(64) * 30 + draw(64, 64), one(1e10)):
        assert Rows.of(other).digits is None


def test_the_largest_sums_do_not_overflow():
    """At the most features there are, with digits of the largest products."""
    d = 2**15
    whole = torch.full((3, d), -(126 * 2**16 + 128 * 2**8 + 128), dtype=torch.int64)
    whole[1] *= -1
    whole[2, ::2] *= -1
    whole[:, 0] = 127 * 2**16
    x = whole.float() * 2.0**-20
    digits = split(x)
    assert torch.equal(restored(digits, d), x.double())
    wanted = x.double() @ x.double().T
    assert ((digits.inner(digits, Workspace()).double() - wanted).abs() <= 2e-7 * wanted.max()).all()


@pytest.mark.parametrize("exponent", [-59, 59])
def test_rows_at_both_ends_of_the_scales(exponent):
    x, z = draw(20, 64).clamp(-2, 2) / 2, draw(30, 64, seed=1).clamp(-2, 2) / 2
    x[3, 5], x[4, 6] = 2.0**-140, 0.0  # a subnormal number among others is 0
    x[:, 0], z[:, 0] = 1.0, 1.0
    wanted = split(x).inner(split(z), Workspace())
    low, high = split(x * 2.0**exponent), split(z * 2.0**-exponent)
    assert torch.equal(low.inner(high, Workspace()), wanted)
    if exponent == 59:
        assert torch.equal(low.inner(low, Workspace()), split(x).inner(split(x), Workspace()) * 2.0**118)


def one(value):
    x = draw(50, 64)
    x[17, 3] = value
    return x


@pytest.mark.parametrize(
    "x",
    [
        one(math.nan),
        one(math.inf),
        one(-math.inf),
        one(1e30),
        draw(50, 64) * 1e-30,
        draw(4, 64) * 1e-42,
        draw(50, 31),
        draw(2, 2**15 + 1),
        draw(50, 64).double(),
        draw(0, 64),
    ],
    ids=["nan", "inf", "-inf", "large", "small", "subnormal", "narrow", "wide", "float64", "empty"],
)
def test_rows_out_of_range_stay_floats(x, used):
    assert split(x) is None
    rows = Rows.of(x, like=Rows.of(draw(50, 64)))
    assert rows.digits is None
    assert rows.integers == 0
    torch.testing.assert_close(Pair(rows, rows).inner(), x @ x.T, equal_nan=True)
    assert not used


def test_an_entry_depends_on_its_two_rows_alone_and_is_symmetric():
    x, z = draw(133, 100), draw(77, 100, seed=1)
    ours, others = split(x), split(z)
    whole = ours.inner(others, Workspace()).clone()
    workspace = Workspace()
    for rows, columns in ((slice(0, 1), slice(0, 77)), (slice(5, 38), slice(3, 4)), (slice(100, 133), slice(9, 60))):
        alone = split(x[rows]).inner(split(z[columns]), workspace)
        assert torch.equal(alone, whole[rows, columns])
    assert torch.equal(others.inner(ours, Workspace()), whole.T)
    square = ours.inner(ours, Workspace())
    assert torch.equal(square, square.T)


def test_rows_carry_their_digits(used):
    x = draw(40, 64)
    rows, z = Rows.of(x), Rows.of(draw(9, 64, seed=1))
    assert rows.integers == 3
    wanted = Pair(rows, z).inner()
    index = torch.tensor([5, 2, 30])
    assert torch.equal(Pair(rows[index], z).inner(), wanted[index])
    assert torch.equal(Pair(rows[3:9], z).inner(), wanted[3:9])
    assert torch.equal(Pair(Rows.cat([rows[:7], rows[7:]]), z).inner(), wanted)
    turned, twin = rows.flipped((8, 8), (1,)), Rows.of(x.view(-1, 8, 8).flip(2).flatten(1))
    assert torch.equal(turned.digits.values, twin.digits.values)
    assert torch.equal(Pair(turned, z).inner(), Pair(twin, z).inner())
    assert torch.equal(Pair(rows.double(), z.double()).inner(), x.double() @ z.data.double().T)
    assert torch.equal(Pair(rows.floats(), z).inner(), x @ z.data.T)
    assert len(used) == 6
    assert Rows.cat([rows, rows.floats()]).digits is None


def test_rounded_rows_never_have_digits(used):
    x, z = draw(40, 64), draw(9, 64, seed=1)
    rows, rounded = Rows.of(x), Rows.of(x, precision="medium")
    alike = [rounded, Rows.of(z, like=rounded), Rows.of(z, like=rows, precision="medium")]
    assert [(each.digits, each.integers, each.rounded) for each in alike] == [(None, 0, True)] * 3
    for each in alike:
        wanted = x.double() @ each.data.double().T
        torch.testing.assert_close(Pair(rows, each).inner().double(), wanted, rtol=0, atol=1e-5 * 64)
    assert Rows.cat([rows, rounded]).digits is None
    assert not used


def test_rows_follow_those_that_they_meet(used, monkeypatch):
    rows = Rows.of(draw(40, 64))
    monkeypatch.setattr(rows_module, "digits_pay", lambda *given: pytest.fail("measured again"))
    assert Rows.of(draw(1, 64, seed=1), like=rows).digits is not None
    assert Rows.of(draw(40, 64, seed=1), like=rows.floats()).digits is None
    monkeypatch.setattr(rows_module, "LEAST_ROWS", 41)
    assert Rows.of(draw(40, 64)).digits is None
    assert Rows.of(draw(41, 64).double()).digits is None


@pytest.mark.parametrize(
    ("kernel", "function", "parameters"),
    [
        (Gaussian(8.0), oracle.gaussian, {"bandwidth": 8.0}),
        (Laplacian(8.0), oracle.laplacian, {"bandwidth": 8.0}),
        (Polynomial(2, 1.0, 0.1), oracle.polynomial, {"degree": 2, "bias": 1.0, "scale": 0.1}),
        (ReluNTK(3, 0.1), oracle.relu_ntk, {"depth": 3, "bias": 0.1}),
    ],
)
def test_kernel_values_equal_the_oracle(kernel, function, parameters, used):
    rows = Rows.of(draw(7, 100))
    others = Rows.of(draw(5, 100, seed=1), like=rows)
    wanted = oracle.matrix(function, rows.data.double().numpy(), others.data.double().numpy(), **parameters)
    found = kernel_matrix(kernel, rows, others)
    np.testing.assert_allclose(found.numpy(), wanted, atol=3e-6 * np.abs(wanted).max())
    square = symmetric_kernel_matrix(kernel, rows)
    torch.testing.assert_close(square.diagonal(), kernel.block_diag(rows), rtol=1e-6, atol=0)
    assert len(used) == 2


# Whatever is computed from rows agrees with floats


def solved(solver):
    """What a solver finds for 200 rows, at 50 others."""
    x, y, z = draw(200, 64), torch.sin(draw(200, 64)[:, :2]), draw(50, 64, seed=3)
    kernel = Gaussian(8.0)
    if solver == "pcg":
        found = kl.interpolate(kernel, x, y, ridge=1e-3, solver="pcg")
        return kernel_matrix(kernel, Rows.of(z), Rows.of(x)) @ found.alpha.float()
    options = {"subsample": 80, "seed": 1}
    general = solver == "general"
    machine = kl.GeneralKernelMachine(kernel, 60, **options) if general else kl.KernelMachine(kernel, **options)
    fit(machine, ArrayDataModule.from_arrays(x, y, z, y[:50]))
    with torch.no_grad():
        return machine(z)


@pytest.mark.parametrize("solver", ["pcg", "eigenpro", "general"])
def test_a_fit_agrees_with_that_of_floats(solver, request):
    wanted = solved(solver)
    calls = request.getfixturevalue("used")
    found = solved(solver)
    assert len(calls) > 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert not torch.equal(found, wanted)


def test_the_norm_of_a_difference_is_that_of_floats(request):
    x, z, alpha, gamma = draw(60, 40), draw(50, 40, seed=1), draw(60, 2, seed=2), draw(50, 2, seed=3)
    wanted = kl.rkhs.inner_product_per_class(Laplacian(5.0), x, alpha, z, gamma)
    request.getfixturevalue("used")
    torch.testing.assert_close(kl.rkhs.inner_product_per_class(Laplacian(5.0), x, alpha, z, gamma), wanted)


def test_digits_are_counted_as_memory():
    sizes = {"n": 3000, "d": 100, "c": 2, "s": 100, "budget": 10**12}
    none, three = (training_memory(**sizes, integers=count).items["centres"] for count in (0, 3))
    assert three - none == 3000 * (3 * 112 + 28)  # 100 features are filled up to 112


# Several ranks


def gathered():
    """Rows of 3 ranks gathered and encoded, as if digits paid on all of them, and on the first alone."""
    ranks = Ranks(torch.distributed.get_rank(), 3)
    rows_module.LEAST_ROWS = 1
    whole, counts, found = draw(31, 128), [ranks.count(31, rank) for rank in range(3)], []
    own = whole[ranks.local_rows(31)]
    for where in (range(3), range(1)):
        rows_module.digits_pay = lambda device, d, where=where: ranks.rank in where
        head, rows = encode_shared(whole[:10], own, "high", ranks)
        found.append((head.digits, rows.digits, ranks.begin_all_gather_rows(rows, counts)()))
    return found


def test_ranks_agree_on_digits_and_find_those_of_gathered_rows():
    order = torch.cat([torch.arange(31)[rank::3] for rank in range(3)])
    wanted = split(draw(31, 128)[order])
    for everywhere, somewhere in on_ranks(3, gathered):
        head, own, rows = everywhere
        assert head is not None
        assert own is not None
        assert torch.equal(rows.digits.values, wanted.values)
        assert torch.equal(rows.digits.scale, wanted.scale)
        assert [one if one is None else one.digits for one in somewhere] == [None, None, None]


# When digits are used


@pytest.fixture
def fresh():
    """Nothing is measured yet, and nothing that this test makes up is kept."""
    module._probe.cache_clear()
    yield
    module._probe.cache_clear()


@pytest.mark.parametrize(
    ("times", "pays", "words"),
    [
        ([1, 2, 1, 2, 1, 2], True, "are computed by 3 integer digits on cpu: it takes 0.5 times as long"),
        ([1.9, 2], False, "are computed as floats on cpu: 3 integer digits would take 0.95 times as long"),
        ([1, 2, 3, 2], False, "are computed as floats on cpu: 3 integer digits would take 1.5 times as long"),
    ],
    ids=["faster", "too near", "once slower"],
)
@pytest.mark.usefixtures("fresh")
def test_the_choice_is_measured_once_and_logged(monkeypatch, caplog, times, pays, words):
    ticks = iter(times)
    monkeypatch.setattr(module, "seconds", lambda work, repeats: work() is not None and next(ticks))
    with caplog.at_level(logging.INFO):
        assert digits_pay(CPU, 70) == digits_pay(CPU, 64) == pays
        assert (Rows.of(draw(1024, 70)).digits is not None) == pays
    assert caplog.messages == [f"products of float rows of 64 or more features {words}"]
    assert next(ticks, None) is None


@pytest.mark.usefixtures("fresh")
def test_nothing_is_measured_where_digits_cannot_be_used(monkeypatch):
    monkeypatch.setattr(module, "seconds", lambda *given: pytest.fail("measured"))
    assert not digits_pay(CPU, 31)
    assert not digits_pay(CPU, 2**15 + 1)
    Rows.of(draw(1023, 64))
    Rows.of(draw(1024, 64).double())
    Rows.of((draw(1024, 64) * 40).round().clamp(0, 255) / 255)
    monkeypatch.setattr(module, "int8_is_exact", lambda device: False)
    assert not digits_pay(CPU, 100)
