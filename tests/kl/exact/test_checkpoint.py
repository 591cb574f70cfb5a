"""Conjugate gradients that were interrupted go on as if they had not been."""

from dataclasses import fields, replace

import pytest
import torch

import kl
from kl.exact.equations import System
from kl.exact.iteration import Best, ConjugateGradients, Search
from kl.kernels import Gaussian, Laplacian
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.rows.rows import Rows
from kl.system.saved import load_values, save_values

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = draw(2000, 20)
Y = torch.sin(X @ draw(20, 3, seed=1))


def solve(**options):
    """Some hundred iterations, of which the true residual is looked at in a few, with half of K kept."""
    return kl.interpolate(Gaussian(4.0), X, Y, solver="pcg", tolerance=1e-9, memory="60MB", **options)


def interrupted(path, after):
    def stop(progress):
        if progress.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(checkpoint=path, progress=stop)


@pytest.fixture(scope="module")
def whole():
    return solve()


@pytest.mark.parametrize("after", [1, 42, 44, 110])
def test_a_resumed_solve_equals_an_uninterrupted_one(tmp_path, whole, after):
    interrupted(tmp_path / "a", after)
    result = solve(checkpoint=tmp_path / "a")
    assert whole.converged
    for field in fields(result):
        ours, theirs = getattr(result, field.name), getattr(whole, field.name)
        if field.name != "seconds":
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name


def test_a_solve_interrupted_twice_equals_an_uninterrupted_one(tmp_path, whole):
    interrupted(tmp_path / "a", 42)
    interrupted(tmp_path / "a", 44)
    result = solve(checkpoint=tmp_path / "a")
    assert result.iterations == whole.iterations
    assert torch.equal(result.alpha, whole.alpha)


def gradients(rank, x, y):
    system = System(Laplacian(2.0), Rows.of(x).double(), y, torch.zeros(len(x), dtype=torch.float64))
    matrix = LowerTriangle(system.kernel, system.single())
    return ConjugateGradients(system, matrix, LowRankPreconditioner(system.kernel, matrix.rows, rank))


def searched(rank=20, iterations=5):
    x, y = draw(200, 4), draw(200, 2, seed=1).double()
    method = gradients(rank, x, y)
    search = method.search()
    for _ in range(iterations):
        search = method.advance(search)
    return method, search, x, y


def test_a_search_is_kept_whole_in_plain_values():
    _, search, _, y = searched()
    again = Search.of(search.values(), y)
    for ours, theirs in ((again.state, search.state), (again.best, search.best)):
        assert all(getattr(ours, f.name) is getattr(theirs, f.name) for f in fields(ours))
    assert again.checked == search.checked


def test_another_preconditioner_starts_a_direction_of_its_own():
    _, search, x, y = searched()
    other = gradients(10, x, y)
    resumed = other.resume(search)
    residual = y - kl.rkhs.evaluate(Laplacian(2.0), x, search.state.alpha, x)
    torch.testing.assert_close(resumed.state.residual, residual, atol=1e-12, rtol=0)
    torch.testing.assert_close(resumed.state.direction, other.preconditioner.solve(residual))
    assert resumed.state.iterations == 5
    for _ in range(60):
        resumed = other.advance(resumed, tolerance=1e-8)
    assert resumed.best.relative < 1e-8


def test_the_best_residual_of_a_file_is_computed_again():
    method, search, x, y = searched()
    forged = Best(search.state.alpha, torch.zeros_like(y), 0.0, 0)
    found = method.resume(replace(search, best=forged)).best
    residual = y - kl.rkhs.evaluate(Laplacian(2.0), x, search.state.alpha, x)
    torch.testing.assert_close(found.residual, residual, atol=1e-12, rtol=0)
    assert found.relative == pytest.approx(float(residual.norm() / y.norm()), rel=1e-9)


@pytest.mark.parametrize("change", ["no best", "other shape", "no state", "flipped", "no dict"])
def test_a_damaged_file_is_refused(tmp_path, change):
    path = tmp_path / "a"
    interrupted(path, 3)
    values = load_values(path)
    if change == "no best":
        del values["state"]["best"]
    elif change == "other shape":
        values["state"]["best"]["alpha"] = torch.zeros(3, 3, dtype=torch.float64)
    elif change == "no state":
        values["state"]["state"] = {}
    elif change == "no dict":
        values["state"] = 1.0
    save_values(path, values)
    if change == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(
        kl.CheckpointError, match=r"unfinished exact solve; .*a is damaged or something else: delete it"
    ):
        solve(checkpoint=path)
