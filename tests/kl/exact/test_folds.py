"""Predictions of folds from one factor against a refit without each fold by the float64 oracle."""

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.exact import cholesky as direct, cost
from kl.kernels import Laplacian, Polynomial
from kl.products import triangle

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(2.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(x, z):
    return oracle.matrix(oracle.laplacian, x.double().numpy(), z.double().numpy(), bandwidth=2.0)


def refits(x, y, folds, ridge, w=None):
    """Weighted least squares of least norm on the rows outside each fold, at the rows in it."""
    w, wanted = np.ones(len(x)) if w is None else w.double().numpy(), np.zeros(y.shape)
    for fold in folds.unique():
        kept, left = np.flatnonzero((folds != fold).numpy() & (w > 0)), np.flatnonzero((folds == fold).numpy())
        root = np.sqrt(w[kept])[:, None]
        scaled, target = root * matrix(x[kept], x[kept]) * root.T, root * y.double().numpy()[kept]
        if ridge:
            beta = np.linalg.solve(scaled + ridge * np.eye(len(kept)), target)
        else:
            beta = np.linalg.pinv(scaled, rcond=1e-11, hermitian=True) @ target
        wanted[left] = matrix(x[left], x[kept]) @ (root * beta)
    return wanted


def drawn_folds(n, k, seed=4):
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("k", [2, 5])
def test_they_equal_refits(ridge, k):
    x, y, folds = draw(40, 4), draw(40, 3, seed=1), drawn_folds(40, k)
    found = kl.leave_out(KERNEL, x, y, folds, ridge)
    np.testing.assert_allclose(found, refits(x, y, folds, ridge), atol=1e-9)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(kl.leave_out(KERNEL, x, y, 7 - 3 * folds, ridge), found, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_they_equal_refits_with_equal_rows_and_weights(ridge, weighted, seed):
    """Equal rows are in the same fold, in several folds, without weight, and all of that at once."""
    # Folds have seeds of their own, because those of the rows would put equal rows into the same fold.
    x = draw(12, 4)[torch.randint(0, 12, (40,), generator=torch.Generator().manual_seed(seed))]
    y, folds, w = draw(40, 2, seed=1), drawn_folds(40, 4, seed + 10), None
    if weighted:
        w = torch.rand(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
        w[::3] = 0.0
    found = kl.leave_out(KERNEL, x, y, folds, ridge, weights=w)
    np.testing.assert_allclose(found, refits(x, y, folds, ridge, w), atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_folds_of_one_row_are_leave_one_out(ridge):
    x, y, w = draw(30, 4)[torch.tensor([*range(30), 4])], draw(31, 2, seed=1), torch.rand(31) + 0.1
    single = kl.interpolate(KERNEL, x, y, ridge, weights=w, leave_one_out=True).leave_one_out
    found = kl.leave_out(KERNEL, x, y, torch.arange(31), ridge, weights=w)
    torch.testing.assert_close(found, single.predictions, atol=1e-10, rtol=0)


def test_rows_far_from_0():
    x, y, w, folds = draw(30, 4) + 1e4, draw(30, 2, seed=1), torch.ones(30), drawn_folds(30, 3)
    w[:4] = 0
    found = kl.leave_out(KERNEL, x, y, folds, weights=w)
    np.testing.assert_allclose(found, refits(x, y, folds, 0.0, w), atol=1e-7)


def test_a_factor_in_float32_serves(monkeypatch):
    for place in (direct, cost):
        monkeypatch.setattr(place, "SINGLE_ROWS", 10)
    monkeypatch.setattr(triangle, "SIDE", 16)
    x, y, folds = draw(60, 4), draw(60, 2, seed=1), drawn_folds(60, 5)
    np.testing.assert_allclose(kl.leave_out(KERNEL, x, y, folds), refits(x, y, folds, 0.0), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_singular_matrix_is_refused_without_a_ridge():
    x, y, folds, linear = draw(30, 4), draw(30, 2, seed=1), drawn_folds(30, 3), Polynomial(degree=1, bias=0.0)
    with pytest.raises(kl.SingularKernelError, match="n=30 rows is too near to singular for predictions of folds"):
        kl.leave_out(linear, x, y, folds)
    assert kl.leave_out(linear, x, y, folds, ridge=0.1).shape == (30, 2)


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(kl.MemoryBudgetError, match=r"in folds of up to 15 need .*: raise memory=, or use"):
        kl.leave_out(KERNEL, draw(30, 4), draw(30, 2), torch.arange(30) % 2, memory=10_000)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (torch.arange(4), r"folds must be a tensor of shape \(5,\) of whole numbers.*; got \(4,\)"),
        (torch.arange(5.0), "folds must be a tensor .* torch.float32"),
        ([0, 1, 0, 1, 0], "folds must be a tensor .* got list"),
        (torch.ones(5, dtype=torch.long), "folds must be at least two.*; got 5 rows in one"),
    ],
)
def test_wrong_folds_are_refused(folds, message):
    with pytest.raises(kl.InputError, match=message):
        kl.leave_out(KERNEL, draw(5, 2), draw(5, 1), folds)
    with pytest.raises(kl.InputError, match="one row per sample; got 5 and 4"):
        kl.leave_out(KERNEL, draw(5, 2), draw(4, 1), torch.arange(5))
