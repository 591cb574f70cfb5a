"""The exact solve against the oracle and scikit-learn, and every way in which it can be degenerate."""

import logging
import math

import numpy as np
import oracle
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

import kl
from kl.exact import cholesky as direct, cost as plan, equations as system
from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNTK
from kl.products import triangle
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(x, bandwidth=2.0, function=oracle.laplacian):
    return oracle.matrix(function, x.numpy(), x.numpy(), bandwidth=bandwidth)


def true_residual(K, result, y):
    y = y.double().numpy()
    return np.linalg.norm(K @ result.alpha.numpy() + result.ridge * result.alpha.numpy() - y) / np.linalg.norm(y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("c", [1, 4])
def test_it_equals_the_oracle_and_scikit_learn(c, ridge, dtype):
    x, y = draw(25, 4).to(dtype), draw(25, c, seed=1)
    result = kl.interpolate(Laplacian(2.0), x, y, ridge=ridge)
    K = matrix(x.double())
    wanted = oracle.naive_interpolate(K, y, ridge)
    np.testing.assert_allclose(result.alpha, wanted, atol=1e-9)
    np.testing.assert_allclose(result.fitted, K @ wanted, atol=1e-9)
    assert result.alpha.dtype == result.fitted.dtype == torch.float64
    assert result.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, wanted), rel=1e-9)
    assert float(result.rkhs_norm_per_class.norm()) == pytest.approx(result.rkhs_norm)
    assert (result.solver, result.jitter, result.ridge) == ("direct", 0.0, ridge)
    assert result.relative_residual < 1e-9
    assert true_residual(K, result, y) == pytest.approx(result.relative_residual, abs=1e-12)
    assert result.seconds > 0
    if dtype == torch.float64:
        ours = KernelRidge(alpha=max(ridge, 1e-300), kernel="precomputed").fit(K, y.numpy()).dual_coef_
        np.testing.assert_allclose(result.alpha, ours, atol=1e-8)


def test_inputs_are_not_changed_and_may_be_strided():
    x, y = draw(6, 20).T, draw(20, 4, seed=1)[:, ::2]
    kept = x.clone(), y.clone()
    result = kl.interpolate(Gaussian(), x, y)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
    again = kl.interpolate(Gaussian().resolve(x), x.contiguous(), y.contiguous())
    torch.testing.assert_close(result.alpha, again.alpha)


def test_it_has_the_least_norm_of_all_that_fit():
    x, y, z = draw(15, 3), draw(15, 2, seed=1), draw(10, 3, seed=2)
    kernel = Laplacian(2.0)
    result = kl.interpolate(kernel, x, y)
    points = torch.cat([x, z]).double()
    for seed in range(5):  # other functions through the same points, with centres at z too
        free = draw(10, 2, seed=seed).double()
        rest = kl.interpolate(kernel, x, y - (kernel(x.double(), z.double()) @ free).float())
        weights = torch.cat([rest.alpha, free])
        torch.testing.assert_close(kernel(points)[:15] @ weights, y.double(), atol=1e-6, rtol=0)
        assert kl.rkhs_norm(kernel, points, weights) > result.rkhs_norm


def test_a_single_row():
    for kernel in (Laplacian(), Gaussian(1.0), ReluNTK(2)):
        result = kl.interpolate(kernel, torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0]]))
        torch.testing.assert_close(result.fitted, torch.tensor([[3.0]], dtype=torch.float64))


def test_targets_of_zero():
    result = kl.interpolate(Gaussian(1.0), draw(5, 2), torch.zeros(5, 2))
    assert not result.alpha.any()
    assert result.relative_residual == result.rkhs_norm == 0


def test_equal_rows_with_equal_targets(caplog):
    x, y = draw(12, 3), draw(12, 2, seed=1)
    rows = torch.tensor([*range(12), 3, 3, 7])
    once, result = kl.interpolate(Laplacian(2.0), x, y), kl.interpolate(Laplacian(2.0), x[rows], y[rows])
    assert not caplog.text
    torch.testing.assert_close(result.fitted, y[rows].double(), atol=1e-9, rtol=0)
    assert result.rkhs_norm == pytest.approx(once.rkhs_norm)
    assert result.relative_residual < 1e-9
    summed = torch.zeros(12, 2, dtype=torch.float64).index_add_(0, rows, result.alpha)
    torch.testing.assert_close(summed, once.alpha)
    torch.testing.assert_close(result.alpha[3], result.alpha[12])


def test_minus_zero_equals_zero():
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [2.0, 0.0]])
    result = kl.interpolate(Laplacian(1.0), x, torch.tensor([[1.0], [1.0], [2.0]]))
    assert result.jitter == 0
    assert float(result.alpha[0]) == float(result.alpha[1])
    torch.testing.assert_close(result.fitted[:, 0], torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_equal_rows_with_other_targets_give_least_squares(ridge, caplog):
    x, y = draw(10, 3)[torch.tensor([*range(10), 0, 0, 5])], draw(13, 2, seed=1)
    result = kl.interpolate(Laplacian(2.0), x, y, ridge=ridge)
    assert "3 training rows are equal to others, and some carry" in caplog.text
    K = matrix(x.double())
    if ridge:
        wanted = K @ oracle.naive_interpolate(K, y, ridge)
    else:
        wanted = K @ (np.linalg.pinv(K, rcond=1e-10, hermitian=True) @ y.double().numpy())
        np.testing.assert_allclose(result.fitted[0], y[[0, 10, 11]].mean(dim=0), atol=1e-6)
    np.testing.assert_allclose(result.fitted, wanted, atol=1e-6)
    np.testing.assert_allclose(K @ result.alpha.numpy(), wanted, atol=1e-6)
    assert result.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, result.alpha.numpy()), rel=1e-9)
    # <f, f*> = sum_i alpha_i . f*(x_i) for every f on these rows, so the distance needs `fitted`, not the targets.
    alpha = draw(13, 2, seed=2).double()
    squares = kl.rkhs_norm(Laplacian(2.0), x.double(), alpha) ** 2 + result.rkhs_norm**2
    distance = math.sqrt(squares - 2 * float((alpha * result.fitted).sum()))
    assert distance == pytest.approx(oracle.naive_rkhs_norm(K, alpha.numpy() - result.alpha.numpy()), rel=1e-9)


def test_rows_that_are_all_equal(caplog):
    y = torch.tensor([[1.0], [2.0], [6.0]])
    result = kl.interpolate(Gaussian(1.0), torch.ones(3, 2), y)
    torch.testing.assert_close(result.fitted, torch.full((3, 1), 3.0, dtype=torch.float64))
    assert "2 training rows are equal to others" in caplog.text
    with pytest.raises(kl.InputError, match="median pairwise distance is 0"):
        kl.interpolate(Gaussian(), torch.ones(3, 2), y)


def test_constant_features_beside_others_do_no_harm():
    x, y = draw(12, 3), draw(12, 1, seed=1)
    wide = torch.cat([x, torch.full((12, 2), 5.0)], dim=1)
    torch.testing.assert_close(
        kl.interpolate(Gaussian(2.0), wide, y).alpha, kl.interpolate(Gaussian(2.0), x, y).alpha, rtol=1e-4, atol=1e-6
    )


def test_a_kernel_of_low_rank_gives_least_squares_of_least_norm(caplog):
    x, y = draw(30, 4), draw(30, 2, seed=1)
    result = kl.interpolate(Polynomial(degree=1, bias=0.0), x, y)
    X = x.double().numpy()
    coefficients = np.linalg.lstsq(X, y.double().numpy())[0]
    np.testing.assert_allclose(result.fitted, X @ coefficients, atol=1e-8)
    assert result.rkhs_norm == pytest.approx(np.linalg.norm(coefficients), rel=1e-8)  # |f|_H = |w| here
    assert (result.solver, result.jitter) == ("eigen", 0.0)
    assert "singular, so the targets cannot all be fitted" in caplog.text
    left = np.linalg.norm(X @ coefficients - y.double().numpy()) / np.linalg.norm(y.double().numpy())
    assert result.relative_residual == pytest.approx(left, rel=1e-8)


def test_a_kernel_of_low_rank_fits_targets_in_its_range():
    x = draw(30, 4)
    y = x.double() @ draw(4, 2, seed=1).double()
    result = kl.interpolate(Polynomial(degree=1, bias=0.0), x, y)
    np.testing.assert_allclose(result.fitted, y, atol=1e-6)


def test_a_nearly_singular_kernel_is_reported(caplog):
    x = draw(60, 2)
    y = torch.sin(x[:, :1])
    result = kl.interpolate(Gaussian(50.0), x, y)
    assert result.jitter > 0 or result.solver == "eigen"
    assert ("added jitter" in caplog.text) or ("singular" in caplog.text)
    K = matrix(x.double(), 50.0, oracle.gaussian)
    # The weights are huge and cancel, so K alpha in another order of summation differs a little.
    assert true_residual(K, result, y) == pytest.approx(result.relative_residual, rel=0.2, abs=1e-7)


def test_a_large_singular_kernel_is_an_error(monkeypatch):
    monkeypatch.setattr(direct, "EIGEN_LIMIT", 20)
    with pytest.raises(kl.SingularKernelError, match=r"matrix of n=30 rows is singular.*ridge=1e-6"):
        kl.interpolate(Polynomial(degree=1, bias=0.0), draw(30, 4), draw(30, 2, seed=1))
    kl.interpolate(Polynomial(degree=1, bias=0.0), draw(30, 4), draw(30, 2, seed=1), ridge=1e-3)


def test_a_kernel_that_is_zero_is_an_error():
    with pytest.raises(kl.SingularKernelError, match=r"Polynomial.* is zero on every training row"):
        kl.interpolate(Polynomial(degree=2, bias=0.0), torch.zeros(4, 2), torch.ones(4, 1))


def test_the_memory_budget_is_kept():
    x, y = draw(100, 10), draw(100, 1, seed=1)
    need, one_row = plan.direct_memory(100, 10, 1), draw(1, 10).repeat(100, 1)

    def solve(memory, x=x):
        return kl.interpolate(Laplacian(1.0), x, torch.ones(100, 1), memory=memory, solver="direct")

    with pytest.raises(kl.MemoryBudgetError, match=r"n=100 rows needs 471 KB, more .* 10 KB: .* use \d+ rows"):
        solve("10KB")
    with pytest.raises(kl.MemoryBudgetError, match="use solver='pcg', or use 99 rows or less"):
        solve(need - 1)
    assert solve(need).alpha.shape == (100, 1)
    solve("10KB", one_row)  # one row that counts
    assert kl.interpolate(Laplacian(1.0), x, y, memory=need).solver == "direct"
    assert kl.interpolate(Laplacian(1.0), x, y, memory=need - 1).solver == "pcg"


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_factor_in_float32_gives_a_solution_in_float64(monkeypatch, ridge):
    monkeypatch.setattr(direct, "SINGLE_ROWS", 10)
    monkeypatch.setattr(triangle, "SIDE", 16)
    factorised = watch_factors(monkeypatch)
    x, y = draw(70, 4), draw(70, 3, seed=1)
    x[60:] = x[:10]
    y[60:] = y[:10]
    result = kl.interpolate(Laplacian(2.0), x, y, ridge=ridge)
    assert factorised == [torch.float32]
    K = matrix(x.double())
    fitted = K @ oracle.naive_interpolate(K, y, ridge) if ridge else y
    np.testing.assert_allclose(result.fitted, fitted, atol=1e-8)
    assert result.relative_residual < 1e-9
    assert (result.solver, result.jitter, result.converged) == ("direct", 0.0, True)


def test_a_matrix_too_near_to_singular_for_float32_is_factorised_in_float64(monkeypatch):
    monkeypatch.setattr(direct, "SINGLE_ROWS", 10)
    monkeypatch.setattr(plan, "SINGLE_ROWS", 10)
    factorised = watch_factors(monkeypatch)
    x, y = draw(60, 3), draw(60, 1, seed=1)
    result = kl.interpolate(Gaussian(2.5), x, y)
    assert factorised[:2] == [torch.float32, torch.float64]
    assert result.relative_residual < 1e-6
    half = plan.direct_memory(60, 3, 1, 8) - 1
    with pytest.raises(kl.MemoryBudgetError, match=r"too near to singular for float32, and float64 needs .*ridge=1e-6"):
        kl.interpolate(Gaussian(2.5), x, y, memory=half, solver="direct")


def watch_factors(monkeypatch):
    """The dtypes of all factors that will be made."""
    seen, factorise = [], triangle.LowerTriangle.factorise

    def watched(self, *arguments):
        seen.append(self.rows.dtype)
        return factorise(self, *arguments)

    monkeypatch.setattr(triangle.LowerTriangle, "factorise", watched)
    return seen


def test_a_tolerance_that_is_not_reached_is_a_warning(caplog):
    result = kl.interpolate(Laplacian(2.0), draw(20, 3), draw(20, 1, seed=1), tolerance=1e-30)
    assert not result.converged
    assert "above the tolerance of 1.0e-30" in caplog.text


def test_a_factorisation_reports_its_progress(monkeypatch, caplog):
    monkeypatch.setattr(triangle, "SIDE", 16)
    monkeypatch.setattr(system, "LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "kl")
    seen = []
    kl.interpolate(Laplacian(2.0), draw(40, 3), draw(40, 1, seed=1), progress=seen.append)
    assert [report.done for report in seen] == pytest.approx([0.352, 0.896, 1.0])
    assert "direct: 35% done, about" in caplog.text


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_triangle_multiplies_like_the_whole_matrix(kept, dtype):
    x, v = draw(40, 4).to(dtype), draw(40, 3, seed=1).double()
    lower = triangle.LowerTriangle(Laplacian(2.0), Rows.of(x), side=16)
    lower.keep(kept)
    K = matrix(x.double())
    np.testing.assert_allclose(lower.matmul(v), K @ v.numpy(), atol=1e-5 if dtype == torch.float32 else 1e-12)
    lower.keep(3)
    assert sum(panel.nbytes for panel in lower.panels) <= triangle.triangle_bytes(40, v.to(dtype).element_size(), 16)
    assert lower.factorise(torch.ones(40, dtype=dtype))
    wanted = oracle.naive_interpolate(K, v, 1.0)
    np.testing.assert_allclose(lower.solve(v), wanted, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_a_triangle_that_is_not_positive_definite_has_no_factor():
    lower = triangle.LowerTriangle(Laplacian(2.0), Rows.of(draw(40, 4)), side=16)
    lower.keep(3)
    assert not lower.factorise(torch.full((40,), -1.0))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (draw(5), draw(5, 1), {}, "x must be a float tensor of shape"),
        (draw(5, 2), draw(5), {}, "y must be a float tensor of shape"),
        (draw(5, 2), torch.ones(5, 1).long(), {}, "y must be a float tensor .* torch.int64"),
        (draw(5, 2), draw(4, 1), {}, "one row per sample; got 5 and 4"),
        (draw(5, 2) / 0, draw(5, 1), {}, "x must be finite; row 0"),
        (draw(5, 2), draw(5, 1), {"ridge": -1e-9}, "ridge must be a finite number, 0 or above; got -1e-09"),
        (draw(5, 2), draw(5, 1), {"ridge": math.nan}, "ridge must be a finite number, 0 or above; got nan"),
        (draw(5, 2), draw(5, 1), {"ridge": "1"}, "ridge must be a finite number, 0 or above; got '1'"),
        (draw(5, 2), draw(5, 1), {"tolerance": 0.0}, "tolerance must be a finite number above 0; got 0.0"),
        (draw(5, 2), draw(5, 1), {"solver": "lu"}, "solver must be one of auto, direct, pcg; got 'lu'"),
        (draw(5, 2), draw(5, 1), {"memory": "much"}, "memory must be auto, a number of bytes"),
    ],
)
def test_wrong_arguments_are_refused(x, y, options, message):
    with pytest.raises(kl.InputError, match=message):
        kl.interpolate(Laplacian(1.0), x, y, **options)
