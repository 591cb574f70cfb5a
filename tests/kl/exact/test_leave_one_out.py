"""Leave-one-out predictions against n refits by the float64 oracle: with a ridge, weights, equal rows, low rank."""

import logging

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.exact import cholesky as direct, cost, diagonals
from kl.kernels import Gaussian, Laplacian, Polynomial
from kl.products import triangle

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(2.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_weights(n, seed=3):
    return 3 * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def repeated(n):
    """Rows of which some stand twice or three times, with targets of their own."""
    x = draw(n, 4)
    x[-1], x[-2], x[-3] = x[0], x[0], x[5]
    return x


def laplacian(x, z):
    return oracle.matrix(oracle.laplacian, x.double().numpy(), z.double().numpy(), bandwidth=2.0)


def linear(x, z):
    return x.double().numpy() @ z.double().numpy().T


def refit(matrix, x, y, ridge, w, i):
    """f at x_i, trained without row i: weighted least squares of least norm in the range of K, in float64."""
    kept = [j for j in range(len(x)) if j != i and w[j] > 0]
    K, root = matrix(x[kept], x[kept]), np.sqrt(w.double().numpy()[kept])[:, None]
    scaled, target = root * K * root.T, root * y.double().numpy()[kept]
    if ridge:
        beta = np.linalg.solve(scaled + ridge * np.eye(len(kept)), target)
    else:
        beta = np.linalg.pinv(scaled, rcond=1e-11, hermitian=True) @ target
    return matrix(x[i : i + 1], x[kept]) @ (root * beta)


def refits(matrix, x, y, ridge=0.0, w=None):
    w = torch.ones(len(x)) if w is None else w
    return np.concatenate([refit(matrix, x, y, ridge, w, i) for i in range(len(x))])


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("c", [1, 3])
def test_it_equals_refits(ridge, c):
    x, y = draw(30, 4), draw(30, c, seed=1)
    found = kl.interpolate(KERNEL, x, y, ridge, leave_one_out=True).leave_one_out
    wanted = refits(laplacian, x, y, ridge)
    np.testing.assert_allclose(found.predictions, wanted, atol=1e-9)
    assert found.predictions.dtype == torch.float64
    assert (found.method, found.standard_error) == ("factor", None)
    assert found.mse(y) == pytest.approx(np.mean((wanted - y.double().numpy()) ** 2), rel=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_refits_with_equal_rows_and_weights(ridge, weighted):
    x, y, w = repeated(30), draw(30, 2, seed=1), drawn_weights(30) if weighted else None
    if weighted:
        w[7] = w[29] = 0.0  # a row that stands alone, and one whose equals count
    found = kl.interpolate(KERNEL, x, y, ridge, weights=w, leave_one_out=True).leave_one_out
    np.testing.assert_allclose(found.predictions, refits(laplacian, x, y, ridge, w), atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_it_equals_refits_where_the_kernel_is_singular(weighted, own, solver):
    x, y, w = repeated(30), draw(30, 2, seed=1), drawn_weights(30) if weighted else None
    if own:  # row 9 alone has the last feature, so that f fits it whatever its target is
        x[:, 3] = 0.0
        x[9, 3] = 2.0
    solved = kl.interpolate(Polynomial(degree=1, bias=0.0), x, y, weights=w, leave_one_out=True, solver=solver)
    assert solved.solver == {"direct": "eigen", "pcg": "low-rank"}[solver]
    found = solved.leave_one_out
    np.testing.assert_allclose(found.predictions, refits(linear, x, y, 0.0, w), atol=1e-9)
    assert found.method == "factor"


@pytest.mark.parametrize("weighted", [False, True])
def test_a_ridge_on_a_kernel_of_low_rank(weighted):
    x, y, w = draw(30, 4), draw(30, 2, seed=1), drawn_weights(30) if weighted else None
    for solver in ("direct", "pcg"):
        found = kl.interpolate(
            Polynomial(degree=1, bias=0.0), x, y, 0.1, solver=solver, tolerance=1e-9, weights=w, leave_one_out=True
        ).leave_one_out
        if found.method == "factor" or solver == "direct":
            np.testing.assert_allclose(found.predictions, refits(linear, x, y, 0.1, w), atol=1e-6)


def gcv(matrix, x, y, ridge):
    """The formula, with the hat matrix of all rows."""
    K, y = matrix(x, x), y.double().numpy()
    H = np.linalg.solve(K + ridge * np.eye(len(K)), K).T
    return np.mean((y - H @ y) ** 2) / (1 - np.trace(H) / len(K)) ** 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("x", [draw(30, 4), repeated(30)])
def test_generalised_cross_validation(x):
    y = draw(30, 2, seed=1)
    found = kl.interpolate(KERNEL, x, y, 0.3, leave_one_out=True).leave_one_out
    assert found.gcv == pytest.approx(gcv(laplacian, x, y, 0.3), rel=1e-8)
    without = kl.interpolate(KERNEL, x, y, leave_one_out=True).leave_one_out
    tiny = gcv(laplacian, x, y, 1e-9) if len(x.unique(dim=0)) == 30 else equal_rows_alone(x, y)
    assert without.gcv == pytest.approx(tiny, rel=1e-5)


def equal_rows_alone(x, y):
    """Without a ridge f is wrong on equal rows alone, and n - tr(H) is the number of rows that repeat another."""
    y = y.double()
    of_three, of_two = y[[0, 28, 29]], y[[5, 27]]
    squares = sum(float((part - part.mean(dim=0)).square().sum()) for part in (of_three, of_two))
    return squares / 60 / (3 / 30) ** 2


def test_generalised_cross_validation_of_a_singular_kernel():
    x, y = draw(30, 4), draw(30, 2, seed=1)
    found = kl.interpolate(Polynomial(degree=1, bias=0.0), x, y, leave_one_out=True).leave_one_out
    X = x.double().numpy()
    left = y.double().numpy() - X @ np.linalg.lstsq(X, y.double().numpy())[0]
    assert found.gcv == pytest.approx(np.mean(left**2) / (1 - 4 / 30) ** 2, rel=1e-9)


def watch(monkeypatch):
    monkeypatch.setattr(direct, "SINGLE_ROWS", 10)
    monkeypatch.setattr(cost, "SINGLE_ROWS", 10)
    monkeypatch.setattr(triangle, "SIDE", 16)
    seen, factorise = [], triangle.LowerTriangle.factorise

    def watched(self, *arguments):
        seen.append(self.rows.dtype)
        return factorise(self, *arguments)

    monkeypatch.setattr(triangle.LowerTriangle, "factorise", watched)
    return seen


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_factor_in_float32_serves_where_it_is_accurate(monkeypatch, ridge):
    seen = watch(monkeypatch)
    x, y = draw(60, 4), draw(60, 2, seed=1)
    found = kl.interpolate(KERNEL, x, y, ridge, leave_one_out=True).leave_one_out
    assert seen == [torch.float32]
    np.testing.assert_allclose(found.predictions, refits(laplacian, x, y, ridge), atol=1e-4)


def test_a_factor_in_float32_that_is_not_accurate_enough_is_made_in_float64(monkeypatch, caplog):
    seen = watch(monkeypatch)
    monkeypatch.setattr(diagonals, "ACCURATE", 1e-9)  # float32 does not reach it on any matrix
    x, y = draw(60, 4), draw(60, 2, seed=1)
    need = direct.direct_memory(60, 4, 2, 8, True)
    found = kl.interpolate(KERNEL, x, y, leave_one_out=True, memory=need, solver="direct").leave_one_out
    assert seen == [torch.float32, torch.float64]
    np.testing.assert_allclose(found.predictions, refits(laplacian, x, y), atol=1e-9)
    solved = kl.interpolate(KERNEL, x, y, leave_one_out=True, memory=need - 1, solver="direct")
    assert solved.leave_one_out is None
    assert solved.converged
    assert "not accurate enough for leave-one-out, and float64 needs" in caplog.text


def test_an_inverse_that_is_wrong_is_found_out():
    """Whatever entry is wrong by a per cent, among the largest or all."""

    class Wrong:
        def __init__(self, diagonal):
            self.found, self.exact = diagonal, torch.arange(1.0, 41.0, dtype=torch.float64)

        def __len__(self):
            return 40

        def diagonal(self):
            return self.found

        def matmul(self, v):
            return v * self.exact[:, None]

    exact = Wrong(None).exact
    assert diagonals.checked_diagonal(Wrong(exact), lambda v: v / exact[:, None]) is not None
    for wrong in (1.01 * exact, torch.where(exact == 40, 1.01 * exact, exact), exact * torch.nan):
        assert diagonals.checked_diagonal(Wrong(wrong), lambda v: v / exact[:, None]) is None


def test_a_matrix_too_near_to_singular_has_no_predictions_and_says_so(caplog):
    x = draw(60, 2)
    solved = kl.interpolate(Gaussian(4.0), x, torch.sin(x[:, :1]), leave_one_out=True)
    assert solved.solver == "direct"
    assert solved.leave_one_out is None
    assert "too near to singular for leave-one-out predictions" in caplog.text


def test_one_row_and_two():
    x, y = draw(2, 3), draw(2, 2, seed=1)
    one = kl.interpolate(KERNEL, x[:1], y[:1], leave_one_out=True).leave_one_out
    np.testing.assert_allclose(one.predictions, 0, atol=1e-12)  # without its row, f is 0
    two = kl.interpolate(KERNEL, x, y, leave_one_out=True).leave_one_out
    np.testing.assert_allclose(two.predictions, refits(laplacian, x, y), atol=1e-9)


def test_it_is_not_computed_unasked_and_moves_with_the_solution():
    x, y = draw(10, 3), draw(10, 2, seed=1)
    assert kl.interpolate(KERNEL, x, y).leave_one_out is None
    solved = kl.interpolate(KERNEL, x, y, leave_one_out=True)
    assert torch.equal(solved.to("cpu").leave_one_out.predictions, solved.leave_one_out.predictions)
    with pytest.raises(kl.InputError, match=r"y must have the predictions' shape \(10, 2\); got \(10, 1\)"):
        solved.leave_one_out.mse(y[:, :1])


def test_the_budget_counts_the_columns_that_are_checked(caplog):
    caplog.set_level(logging.INFO, "kl")
    x, y = draw(100, 10), draw(100, 1, seed=1)
    need = direct.direct_memory(100, 10, 1, 8, True)
    assert need > direct.direct_memory(100, 10, 1, 8)
    kl.interpolate(KERNEL, x, y, memory=need, solver="direct", leave_one_out=True)
    with pytest.raises(kl.MemoryBudgetError, match="the direct solve of n=100 rows needs"):
        kl.interpolate(KERNEL, x, y, memory=need - 1, solver="direct", leave_one_out=True)
