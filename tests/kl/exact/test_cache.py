"""Kept exact solutions are used only where they are whole, belong to these equations, and solve them."""

import random
from dataclasses import fields, replace

import pytest
import torch

import kl
from kl.exact.cache import load_solution, save_solution, unmet
from kl.exact.checkpoint import solution_key
from kl.exact.leave_one_out import LeaveOneOut
from kl.kernels import Gaussian, Laplacian, Polynomial
from kl.system.saved import load_values, save_values

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(2.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(tmp_path, x=None, y=None, kernel=KERNEL, ridge=0.0, centers=None, **options):
    """A solution in a file, its path and key."""
    x, y = draw(60, 3) if x is None else x, draw(60, 2, seed=1) if y is None else y
    if centers is None:
        solution = kl.interpolate(kernel, x, y, ridge, **options)
    else:
        solution = kl.least_squares(kernel, centers, x, y, ridge)
    key = solution_key(kernel, x, y, ridge, centers)
    save_solution(tmp_path / f"{key}.pt", key, solution)
    return tmp_path / f"{key}.pt", key, x, y, solution


def same(a, b):
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(equal(p, q) for p, q in pairs)


def equal(p, q):
    if isinstance(p, LeaveOneOut) and isinstance(q, LeaveOneOut):
        return same(p, q)
    return torch.equal(p, q) if isinstance(p, torch.Tensor) else p == q


@pytest.mark.parametrize("case", ["interpolant", "centers", "leave-one-out"])
def test_no_flipped_bit_is_believed(tmp_path, caplog, case):
    z = draw(20, 3, seed=2) if case == "centers" else None
    options = {"leave_one_out": True} if case == "leave-one-out" else {}
    path, key, x, y, solution = kept(tmp_path, centers=z, **options)
    assert same(load_solution(path, key, KERNEL, x, y, centers=z), solution)
    whole, chosen = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(250):
        bit = chosen.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = load_solution(path, key, KERNEL, x, y, centers=z)
        refused += found is None
        assert found is None or same(found, solution), f"bit {bit}"
    assert refused > 50  # the others are in what fills the archive up
    assert caplog.text.count("solving again") == refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"ridge": 0.3},
        {"x": draw(60, 3) + 1e4},
        {"solver": "pcg", "tolerance": 1e-4},
        {"x": torch.cat([draw(40, 3), draw(20, 3)])},  # 20 rows stand twice
        {"x": torch.cat([draw(40, 3), draw(20, 3)]), "ridge": 0.3},
        {"kernel": Polynomial(degree=1, bias=0.0)},
        {"kernel": Polynomial(degree=1, bias=0.0), "solver": "pcg"},
        {"kernel": Polynomial(degree=1, bias=0.0), "ridge": 0.3, "solver": "pcg"},
    ],
)
def test_leave_one_out_predictions_are_kept_and_checked(tmp_path, caplog, case, c):
    path, key, x, y, solution = kept(tmp_path, y=draw(60, c, seed=1), leave_one_out=True, **case)
    for _ in range(5):
        assert same(load_solution(path, key, case.get("kernel", KERNEL), x, y), solution), caplog.text
    found, wrong = solution.leave_one_out, []
    wrong.append(replace(found, predictions=found.predictions[:, :0]))
    wrong.append(replace(found, predictions=found.predictions * float("nan")))
    wrong.append(replace(found, predictions=2 * y.double() - found.predictions))  # errors of the other sign
    if c == 2:
        wrong.append(replace(found, predictions=found.predictions + torch.tensor([1e-2, -1e-2])))
        wrong.append(replace(found, predictions=found.predictions.flip(0)))
    for changed in wrong:
        save_solution(path, key, replace(solution, leave_one_out=changed))
        assert load_solution(path, key, case.get("kernel", KERNEL), x, y) is None
    assert caplog.text.count("its leave-one-out predictions are not") == len(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"predictions": 1.0},
        {"method": "guess"},
        {"method": "probes"},
        {"gcv": "1"},
        {"gcv": float("nan")},
        {"standard_error": -1.0},
        {"more": 1},
    ],
)
def test_leave_one_out_of_other_things_is_not_believed(tmp_path, caplog, change):
    path, key, x, y, _ = kept(tmp_path, leave_one_out=True)
    values = load_values(path)
    values["leave_one_out"] |= change
    save_values(path, values)
    assert load_solution(path, key, KERNEL, x, y) is None
    assert "leave_one_out is none" in caplog.text


def test_a_file_cut_short_is_not_believed(tmp_path, caplog):
    path, key, x, y, _ = kept(tmp_path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert load_solution(path, key, KERNEL, x, y) is None
    assert caplog.text.count("cannot be used (the file is damaged or something else: ") == 6


def test_a_solution_for_other_labels_is_not_believed(tmp_path, caplog):
    x, y = draw(60, 3), draw(60, 2, seed=1)
    other = y.clone()
    other[7] += 0.5
    path, *_ = kept(tmp_path, x, other)
    ours = solution_key(KERNEL, x, y, 0.0)
    assert load_solution(path, ours, KERNEL, x, y) is None  # copied under our name
    assert "belongs to other data, targets, kernel, ridge or centres" in caplog.text
    save_values(path, {**load_values(path), "key": ours})
    assert load_solution(path, ours, KERNEL, x, y) is None  # and called ours inside, too
    residual = float((other - y).double().norm() / y.double().norm())
    assert f"its relative residual on these targets is {residual:.1e}, not" in caplog.text


def test_a_least_squares_solution_for_other_labels_is_not_believed(tmp_path, caplog):
    x, y, z = draw(60, 3), draw(60, 2, seed=1), draw(20, 3, seed=2)
    other = y.clone()
    other[7] += 0.5
    path, key, *_ = kept(tmp_path, x, other, centers=z)
    assert load_solution(path, key, KERNEL, x, other, centers=z) is not None
    assert load_solution(path, key, KERNEL, x, y, centers=z) is None
    assert "not the least-squares function of these targets" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0001}, "fitted values are not those of the kernel as it is now"),
        ({"fitted": 1.0001}, "fitted values are not those of the kernel as it is now"),
        ({"alpha": 1.0001, "fitted": 1.0001}, "relative residual on these targets is 1.0e-04"),
        ({"rkhs_norm": 1.0001}, "norm is not that of its outputs together"),
        ({"rkhs_norm": 1.0001, "rkhs_norm_per_class": 1.0001}, "norm is not that of its weights"),
        ({"alpha": float("nan")}, "not finite"),
        ({"relative_residual": float("nan")}, "relative_residual is none"),
        ({"tolerance": float("nan")}, "tolerance is none"),
    ],
)
def test_what_a_solution_says_of_itself_is_computed_again(tmp_path, caplog, change, message):
    path, key, x, y, solution = kept(tmp_path)
    changed = replace(solution, **{name: factor * getattr(solution, name) for name, factor in change.items()})
    save_solution(path, key, changed)
    assert load_solution(path, key, KERNEL, x, y) is None
    assert message in caplog.text


@pytest.mark.parametrize("name", ["alpha", "solver", "jitter"])
@pytest.mark.parametrize("value", [None, "missing", [1.0]])
def test_a_file_of_other_things_is_not_believed(tmp_path, caplog, name, value):
    path, key, x, y, _ = kept(tmp_path)
    values = load_values(path)
    values[name] = value
    if value == "missing":
        del values[name]
    save_values(path, values)
    assert load_solution(path, key, KERNEL, x, y) is None
    assert f"{name} is {'missing' if value == 'missing' else 'none'}); solving again" in caplog.text


def repeated(other):
    x, y = draw(60, 3), draw(60, 2, seed=1)
    x[40:] = x[:20]
    if not other:
        y[40:] = y[:20]
    return x, y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "case",
    [
        {"ridge": 0.3},
        {"solver": "pcg", "tolerance": 1e-4},
        {"x": draw(60, 3).double()},
        {"x": draw(60, 3) + 1e4},
        {"x": repeated(True)[0]},
        {"x": repeated(True)[0], "ridge": 0.3},
        {"x": repeated(False)[0], "y": repeated(False)[1]},
        {"x": draw(60, 2), "kernel": Gaussian(50.0)},  # near to singular: huge weights that cancel
        {"kernel": Polynomial(degree=1, bias=0.0)},  # of low rank: least squares of minimum norm
        {"centers": draw(20, 3, seed=2)},
        {"centers": draw(20, 3, seed=2), "ridge": 0.3},
        {"centers": draw(80, 3, seed=2)},
        {"centers": draw(20, 3, seed=2) + 1e4, "x": draw(60, 3) + 1e4},
        {"centers": repeated(True)[0], "kernel": Gaussian(3.0), "ridge": 1e-3},
        {"y": torch.zeros(60, 2)},
    ],
)
def test_sound_solutions_are_used_whatever_rows_are_drawn(tmp_path, caplog, case):
    path, key, x, y, solution = kept(tmp_path, **case)
    for _ in range(20):
        found = load_solution(path, key, case.get("kernel", KERNEL), x, y, centers=case.get("centers"))
        assert found is not None, caplog.text
        assert same(found, solution)


@pytest.mark.parametrize(
    ("residual", "own", "asked", "used"),
    [
        (1e-7, 1e-6, 1e-6, True),
        (1e-7, 1e-9, 1e-6, True),  # tighter than asked
        (1e-5, 1e-4, 1e-6, False),  # looser than asked
        (1e-5, 1e-9, 1e-6, True),  # it went as far as it got
        (1e-5, 1e-6, 1e-9, False),
        (1e-8, 1e-2, 1e-6, True),  # better than was asked for
    ],
)
def test_a_solution_serves_the_tolerance_that_it_was_asked_for_or_reached(tmp_path, residual, own, asked, used):
    path, key, x, y, solution = kept(tmp_path)
    y = y + residual * y.double().norm() / solution.fitted.norm() * solution.fitted  # what is left over
    solution = replace(solution, relative_residual=1.001 * residual, tolerance=own)
    save_solution(path, key, solution)
    assert (not unmet(load_solution(path, key, KERNEL, x, y), asked, "auto")) is used


def test_a_solver_that_is_named_and_may_lead_further_is_given_the_chance(tmp_path):
    *_, solution = kept(tmp_path)
    for found, asked, used in (
        ("pcg", "direct", False),
        ("pcg", "pcg", True),
        ("pcg", "auto", True),
        ("low-rank", "pcg", True),
        ("eigen", "direct", True),
        ("direct", "pcg", False),
    ):
        stalled = replace(solution, relative_residual=1e-3, tolerance=1e-6, solver=found)
        assert (not unmet(stalled, 1e-6, asked)) is used
        assert (not unmet(stalled, 1e-2, asked)) is used
    assert unmet(solution, 1e-6, "direct", leave_one_out=True).startswith(
        "it was kept without leave-one-out predictions"
    )
    assert unmet(stalled, 1e-6, "pcg") == "it is by direct, and pcg is asked for"
    assert (
        unmet(stalled, 1e-7, "auto")
        == "its relative residual of 1.0e-03 is above 1.0e-07, by direct at a tolerance of 1.0e-06"
    )
