"""Conjugate gradients against the oracle: their residual, resuming, memory, and what near singular matrices do."""

import logging
import math
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.exact import conjugate_gradients as pcg, cost as plan
from kl.exact.cost import choose_solver, pcg_memory, pcg_plan
from kl.exact.equations import System
from kl.exact.low_rank import range_factor
from kl.kernels import Gaussian, Laplacian, Polynomial
from kl.products.low_rank import LowRankPreconditioner
from kl.rows.int8 import int8_is_exact
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(x, bandwidth=2.0):
    return oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=bandwidth)


def solve(x, y, kernel=None, **options):
    return kl.interpolate(kernel or Laplacian(2.0), x, y, solver="pcg", **options)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_it_starts_from_the_weights_of_a_similar_kernel(leave_one_out):
    """Weighted rows, some of them equal, one of weight 0: the same solution in fewer iterations."""
    x, y, w = draw(300, 4).double(), draw(300, 2, seed=1).double(), torch.linspace(0, 2, 300).double()
    x[7] = x[11]
    options = {"ridge": 0.1, "weights": w, "tolerance": 1e-8, "leave_one_out": leave_one_out}
    known = solve(x, y, Laplacian(1.9), **options).alpha
    cold, warm = (solve(x, y, initial=each, **options) for each in (None, -3 * known))
    torch.testing.assert_close(warm.alpha, cold.alpha, rtol=1e-5, atol=1e-7)
    assert warm.relative_residual <= 1e-8
    if not leave_one_out:
        assert warm.iterations < cold.iterations
    torch.testing.assert_close(solve(x, y, initial=torch.zeros_like(y), **options).alpha, cold.alpha)
    with pytest.raises(kl.InputError, match=r"initial must have a weight for each target, shape \(300, 2\); got"):
        solve(x, y, initial=known[1:])


@pytest.fixture
def small_blocks(monkeypatch):
    """Several panels, and true residuals now and then, with few rows."""
    monkeypatch.setattr("kl.products.triangle.SIDE", 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("c", [1, 4])
@pytest.mark.usefixtures("small_blocks")
def test_it_equals_the_oracle(c, ridge, dtype):
    x, y = draw(70, 4).to(dtype), draw(70, c, seed=1)
    result = solve(x, y, ridge=ridge, tolerance=1e-10)
    K = matrix(x.double())
    wanted = oracle.naive_interpolate(K, y, ridge)
    np.testing.assert_allclose(result.alpha, wanted, atol=1e-7)
    np.testing.assert_allclose(result.fitted, K @ wanted, atol=1e-8)
    left = np.linalg.norm(K @ result.alpha.numpy() + ridge * result.alpha.numpy() - y.double().numpy())
    assert left / float(y.norm()) == pytest.approx(result.relative_residual, abs=1e-12)
    assert result.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, wanted), rel=1e-8)
    assert (result.solver, result.jitter, result.converged) == ("pcg", 0.0, True)
    assert 0 < result.iterations < 200


def test_8_bit_features():
    x, y = torch.randint(0, 256, (90, 40), generator=torch.Generator().manual_seed(0)) / 255, draw(90, 2)
    assert (Rows.of(x).codes is not None) == int8_is_exact(CPU)
    np.testing.assert_allclose(
        solve(x, y, tolerance=1e-10).alpha, oracle.naive_interpolate(matrix(x.double()), y), atol=1e-7
    )


def test_the_tolerance_is_kept_and_not_far_exceeded():
    x, y = draw(200, 4), draw(200, 3, seed=1)
    rough, fine = solve(x, y, tolerance=1e-2), solve(x, y, tolerance=1e-9)
    assert 1e-5 < rough.relative_residual <= 1e-2
    assert fine.relative_residual <= 1e-9
    assert rough.iterations < fine.iterations


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_equal_rows(ridge, caplog):
    x, y = draw(60, 3)[torch.tensor([*range(60), 0, 0, 5])], draw(63, 2, seed=1)
    result, direct = solve(x, y, ridge=ridge, tolerance=1e-10), kl.interpolate(Laplacian(2.0), x, y, ridge=ridge)
    assert "3 training rows are equal to others" in caplog.text
    torch.testing.assert_close(result.alpha, direct.alpha, atol=1e-6, rtol=0)
    assert result.rkhs_norm == pytest.approx(direct.rkhs_norm, rel=1e-8)


def test_degenerate_systems():
    one = solve(torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0]]))
    torch.testing.assert_close(one.fitted, torch.tensor([[3.0]], dtype=torch.float64))
    y = draw(30, 2)
    y[:, 1] = 0
    half = solve(draw(30, 2), y)
    assert half.converged
    assert not half.alpha[:, 1].any()
    assert not solve(draw(30, 2), torch.zeros(30, 2)).alpha.any()
    with pytest.raises(kl.SingularKernelError, match="zero on every training row"):
        solve(torch.zeros(4, 2), torch.ones(4, 1), Polynomial(degree=2, bias=0.0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("n", [20, 60, 120, 500])
def test_targets_in_the_range_of_a_singular_kernel_are_fitted(n, d, seed):
    """Conjugate gradients in float32 fit about half of these, which half depends on the last bits of products."""
    x = draw(n, d, seed=100 * seed)
    y = x.double() @ draw(d, 2, seed=100 * seed + 1).double()
    result = solve(x, y, Polynomial(degree=1, bias=0.0), tolerance=1e-6)
    assert result.converged
    np.testing.assert_allclose(result.fitted, y, atol=1e-6 * float(y.norm()))
    K = oracle.matrix(oracle.polynomial, x[:9].numpy(), x.numpy(), degree=1, bias=0.0, scale=1.0)
    np.testing.assert_allclose(K @ result.alpha.numpy(), y[:9], atol=1.1e-6 * float(y.norm()))


LOW_RANK = {
    "quadratic": (Polynomial(degree=2, bias=1.0), lambda x: x[:, :2] * x[:, 1:3] + 3),
    "cubic": (Polynomial(degree=3, bias=0.5), lambda x: x[:, :2] ** 3 - x[:, 2:]),
    "few distinct rows": (Laplacian(2.0), lambda x: x[:, :2].sign()),
    "rows that nearly repeat": (Gaussian(2.0), lambda x: x[:, :2].round()),
    "huge bandwidth": (Gaussian(1e3), lambda x: x[:, :2] + 1),
}


@pytest.mark.parametrize("name", LOW_RANK)
def test_other_kernels_of_low_rank(name):
    kernel, function = LOW_RANK[name]
    x = draw(150, 4).double()
    if "rows" in name:
        x = x[:7].repeat(22, 1)[:150] + (1e-9 * torch.arange(150.0)[:, None] if "nearly" in name else 0)
    y = function(x)
    result = solve(x, y, kernel, tolerance=1e-5)
    assert result.relative_residual < 1e-5
    np.testing.assert_allclose(result.fitted, y, atol=1e-5 * float(y.norm()))
    np.testing.assert_allclose(kernel(x) @ result.alpha, y, atol=1.1e-5 * float(y.norm()))


def test_the_factor_of_a_range_takes_as_many_blocks_of_pivots_as_it_needs():
    x, y = draw(300, 90).double(), draw(300, 1).double()
    system = System(Polynomial(degree=1, bias=0.0), Rows.of(x), y, torch.zeros(300, dtype=torch.float64))
    factor = range_factor(system, 300)
    assert factor.shape == (90, 300)
    np.testing.assert_allclose(factor.T @ factor, x @ x.T, atol=1e-11 * float(x.square().sum()))
    assert range_factor(system, 89) is None


def test_a_ridge_on_a_kernel_of_low_rank():
    again = torch.tensor([*range(80), *range(10)])
    x, y, kernel = draw(80, 3)[again], draw(80, 2, seed=1)[again], Polynomial(degree=1, bias=0.0)
    wanted = oracle.naive_interpolate(x.double().numpy() @ x.double().numpy().T, y, 1e-3)
    np.testing.assert_allclose(solve(x, y, kernel, ridge=1e-3, tolerance=1e-9).alpha, wanted, atol=1e-5)


def test_targets_outside_the_range_get_the_least_squares_solution_of_minimum_norm(caplog):
    x, y = draw(120, 4), draw(120, 2, seed=1)
    result = solve(x, y, Polynomial(degree=1, bias=0.0))
    assert not result.converged
    assert result.solver == "low-rank"
    assert "the kernel matrix has rank 4, so the targets cannot all be fitted" in caplog.text
    X = x.double().numpy()
    weights = np.linalg.lstsq(X, y.double().numpy())[0]
    left = np.linalg.norm(y.double().numpy() - X @ weights)
    assert result.relative_residual == pytest.approx(left / float(y.double().norm()), rel=1e-9)
    np.testing.assert_allclose(X.T @ result.alpha.numpy(), weights, atol=1e-9)
    np.testing.assert_allclose(result.alpha, X @ np.linalg.lstsq(X, result.alpha.numpy())[0], atol=1e-9)


@pytest.mark.parametrize(("n", "d", "rank"), [(200, 4, 35), (500, 8, 165)])
def test_a_rank_beyond_the_preconditioners_is_found_too(n, d, rank, caplog):
    """The preconditioner has rank n / 10 and leaves much of K, and float32 finds nothing better than f = 0."""
    x, y, kernel = draw(n, d), draw(n, 1, seed=1), Polynomial(degree=3)
    caplog.set_level(logging.INFO)
    result = solve(x, y, kernel)
    assert result.solver == "low-rank"
    assert f"the kernel matrix has rank {rank}, so the targets cannot all be fitted" in caplog.text
    wanted = kl.interpolate(kernel, x, y, solver="direct")
    assert result.relative_residual == pytest.approx(wanted.relative_residual, rel=1e-9)
    np.testing.assert_allclose(result.fitted, wanted.fitted, atol=1e-8)
    assert result.rkhs_norm == pytest.approx(wanted.rkhs_norm, rel=1e-6)


def test_a_solve_that_stands_still_stops_with_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(plan, "MAX_RANK", 20)  # no factor of K's range is affordable
    x, y = draw(150, 3), draw(150, 1, seed=1)
    result = solve(x, y, Gaussian(1.5), tolerance=1e-12)
    assert (result.converged, result.solver) == (False, "pcg")
    assert "exact solve stopped at relative residual" in caplog.text
    assert "ridge=1e-6), or use solver='direct'" in caplog.text
    assert result.iterations < 2000


def test_a_nearly_singular_kernel_reports_its_true_residual():
    x, y = draw(150, 3), draw(150, 1, seed=1)
    result = solve(x, y, Gaussian(1.5))
    K = oracle.matrix(oracle.gaussian, x.numpy(), x.numpy(), bandwidth=1.5)
    left = np.linalg.norm(K @ result.alpha.numpy() - y.double().numpy()) / float(y.norm())
    # Large weights of both signs: another sum of K's rounding errors has another value.
    rounding = 1e-16 * np.abs(K).sum(axis=1).max() * float(result.alpha.norm()) / float(y.norm())
    assert left == pytest.approx(result.relative_residual, rel=1e-3, abs=rounding)


@pytest.mark.usefixtures("small_blocks")
def test_less_memory_gives_the_same_solution(monkeypatch):
    monkeypatch.setattr(plan, "LEAST_RANK", 1)
    x, y = draw(150, 4), draw(150, 2, seed=1)
    least, most = pcg_memory(150, 4, 2, 15), pcg_memory(150, 4, 2, 15, 5, 32)
    assert [pcg_plan(150, 4, 2, least, 32)[1], pcg_plan(150, 4, 2, most, 32)] == [0, (15, 5)]
    kept = []
    monkeypatch.setattr(
        pcg.LowerTriangle,
        "keep",
        lambda self, count, keep=pcg.LowerTriangle.keep: kept.append(count) or keep(self, count),
    )
    results = [solve(x, y, memory=memory, tolerance=1e-9) for memory in (least, (least + most) // 2, most)]
    assert kept[0] == 0 < kept[1] < kept[2] == 5
    for result in results[:2]:
        torch.testing.assert_close(result.alpha, results[2].alpha, atol=1e-6, rtol=0)


def test_a_budget_that_holds_nothing_is_an_error():
    with pytest.raises(
        kl.MemoryBudgetError, match=r"conjugate gradients of n=100 rows needs \d+ KB, .* 10 KB: .*use \d+ rows or less"
    ):
        solve(draw(100, 4), draw(100, 1), memory="10KB")


def test_which_solver_auto_is():
    enough = 10**12
    assert choose_solver("auto", 1000, 10, 1, enough, CPU) == "direct"
    assert choose_solver("auto", 30_001, 10, 1, enough, CPU) == "pcg"
    assert choose_solver("auto", 30_001, 10, 1, enough, torch.device("cuda")) == "direct"
    assert choose_solver("auto", 1000, 10, 1, 10**6, CPU) == "pcg"
    assert choose_solver("direct", 10**6, 10, 1, 1, CPU) == "direct"


def test_the_preconditioner_is_the_inverse_of_what_it_says():
    x, r = draw(80, 3), draw(80, 2, seed=1).double()
    found = LowRankPreconditioner(Laplacian(2.0), Rows.of(x), 20, ridge=0.1)
    F = found._factor.double()
    M = F.T @ F + found.delta * torch.eye(80)
    assert found.rank == 20
    torch.testing.assert_close(M @ found.solve(r), r, atol=1e-4, rtol=0)
    left = torch.from_numpy(matrix(x)) - F.T @ F
    assert float(torch.linalg.eigvalsh(left)[0]) > -1e-5
    assert found.delta == pytest.approx(float(left.diagonal().mean()) + 0.1, rel=1e-3)


def test_it_takes_fewer_iterations_than_plain_conjugate_gradients(monkeypatch):
    x, y = draw(300, 3), draw(300, 1, seed=1)
    ours = solve(x, y)
    monkeypatch.setattr(plan, "MAX_RANK", 1)
    assert ours.iterations < 0.7 * solve(x, y).iterations


class Interrupt:
    """A progress callback that ends the solve after so many iterations, as Ctrl-C does."""

    def __init__(self, after):
        self.after, self.seen = after, []

    def __call__(self, progress):
        self.seen.append(progress)
        if progress.done == self.after:
            raise KeyboardInterrupt


def test_an_interrupted_solve_goes_on(tmp_path, caplog):
    caplog.set_level(logging.INFO, "kl")
    x, y, path = draw(200, 4), draw(200, 2, seed=1), tmp_path / "folder" / "a.partial"
    whole = solve(x, y, tolerance=1e-8)
    with pytest.raises(KeyboardInterrupt):
        solve(x, y, tolerance=1e-8, checkpoint=path, progress=Interrupt(5))
    assert "interrupted after 5 iterations, kept on disk" in caplog.text
    rest = Interrupt(None)
    result = solve(x, y, tolerance=1e-8, checkpoint=path, progress=rest)
    assert "going on after 5 iterations" in caplog.text
    assert rest.seen[0].done == 6
    assert result.iterations == pytest.approx(whole.iterations, abs=1)
    torch.testing.assert_close(result.alpha, whole.alpha, atol=1e-6, rtol=0)
    assert not list(path.parent.iterdir())


def test_going_on_with_another_budget(tmp_path, monkeypatch):
    x, y, path = draw(200, 4), draw(200, 2, seed=1), tmp_path / "a.partial"
    with pytest.raises(KeyboardInterrupt):
        solve(x, y, checkpoint=path, progress=Interrupt(5))
    monkeypatch.setattr(plan, "MAX_RANK", 10)
    assert solve(x, y, checkpoint=path).converged


def test_the_state_is_saved_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr("kl.exact.checkpoint.SAVE_SECONDS", 0.0)
    path, there = tmp_path / "a.partial", []
    solve(draw(50, 4), draw(50, 1), checkpoint=path, progress=lambda _: there.append(path.exists()))
    assert all(there)
    assert not path.exists()


def test_a_disk_that_refuses_the_state_is_a_log_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("kl.exact.checkpoint.SAVE_SECONDS", 0.0)
    (tmp_path / "file").write_text("")
    assert solve(draw(50, 4), draw(50, 1), checkpoint=tmp_path / "file" / "a").converged
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize("other", ["x", "y", "ridge", "kernel"])
def test_a_checkpoint_of_another_system_is_refused(tmp_path, other):
    x, y, path = draw(100, 4), draw(100, 1, seed=1), tmp_path / "a.partial"
    with pytest.raises(KeyboardInterrupt):
        solve(x, y, checkpoint=path, progress=Interrupt(3))
    changed = {"x": x + (other == "x"), "y": y + (other == "y"), "ridge": 0.1 * (other == "ridge")}
    kernel = Laplacian(3.0) if other == "kernel" else None
    with pytest.raises(kl.CheckpointError, match=r"a.partial must belong to the same data.*delete it"):
        solve(kernel=kernel, checkpoint=path, **changed)
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(kl.CheckpointError, match="a is damaged or something else: delete it"):
        solve(draw(20, 4), draw(20, 1), checkpoint=tmp_path / "a")


def test_progress_and_time_left(monkeypatch, caplog):
    monkeypatch.setattr("kl.exact.equations.LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "kl")
    reports = Interrupt(None)
    solve(draw(200, 4), draw(200, 1, seed=1), progress=reports)
    assert [report.done for report in reports.seen] == list(range(1, len(reports.seen) + 1))
    assert reports.seen[-1].relative_residual < reports.seen[0].relative_residual
    assert math.isfinite(reports.seen[-1].seconds_left)
    assert "pcg: iteration 5, relative residual" in caplog.text
    assert "the least true relative residual is" in caplog.text


@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_rows_far_from_the_origin(solver, offset):
    x = torch.rand(200, 40, generator=torch.Generator().manual_seed(0)) + offset
    y = draw(200, 2, seed=1)
    solved = kl.interpolate(kl.Laplacian(4.0), x, y, solver=solver)
    assert solved.converged
    torch.testing.assert_close(solved.fitted, y.double(), atol=1e-4, rtol=0)


def test_a_solve_that_came_to_nothing_is_an_error_where_it_is_used():
    solved = kl.interpolate(kl.Laplacian(4.0), draw(50, 4), draw(50, 1, seed=1))
    solved.require_better_than_zero()
    with pytest.raises(kl.SingularKernelError, match=r"direct solve of n=50 rows found nothing better than f = 0"):
        replace(solved, relative_residual=1.0).require_better_than_zero()


@pytest.mark.parametrize("tolerance", [1.0, 2])
def test_a_tolerance_that_zero_meets_is_refused(tolerance):
    with pytest.raises(kl.InputError, match="tolerance must be a relative residual above 0 and below 1"):
        kl.interpolate(kl.Laplacian(4.0), draw(5, 2), draw(5, 1), tolerance=tolerance)
