"""Sample weights: a weight of 2 is a row that is there twice, a weight of 0 is no row; the oracle finds the same."""

import logging
import math

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.exact.checkpoint import solution_key
from kl.kernels import Laplacian, Polynomial

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(2.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_weights(n, seed=3):
    return 3 * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def matrix(x, z):
    return oracle.matrix(oracle.laplacian, x.double().numpy(), z.double().numpy(), bandwidth=2.0)


def solve(solver, x, y, **options):
    return kl.interpolate(KERNEL, x, y, solver=solver, tolerance=1e-11, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_whole_weight_is_as_many_equal_rows(solver, ridge, dtype):
    x, y, z = draw(40, 4), draw(40, 2, seed=1), draw(15, 4, seed=2)
    counts = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(5))
    weighted = solve(solver, x, y, ridge=ridge, weights=counts.to(dtype))
    many = torch.repeat_interleave(torch.arange(40), counts)
    repeated = solve(solver, x[many], y[many], ridge=ridge)
    summed = torch.zeros(40, 2, dtype=torch.float64).index_add_(0, many, repeated.alpha)
    torch.testing.assert_close(weighted.alpha, summed, atol=1e-8, rtol=0)
    torch.testing.assert_close(weighted.predict(z), repeated.predict(z), atol=1e-8, rtol=0)
    torch.testing.assert_close(weighted.fitted[many], repeated.fitted, atol=1e-8, rtol=0)
    assert weighted.rkhs_norm == pytest.approx(repeated.rkhs_norm, rel=1e-8)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_weights_divide_the_ridge_of_the_oracle(solver):
    x, y, w = draw(50, 4), draw(50, 3, seed=1), drawn_weights(50)
    found = solve(solver, x, y, ridge=0.5, weights=w)
    K = matrix(x, x)
    wanted = np.linalg.solve(K + 0.5 * np.diag(1 / w.numpy()), y.double().numpy())
    np.testing.assert_allclose(found.alpha, wanted, atol=1e-8)
    np.testing.assert_allclose(found.fitted, K @ wanted, atol=1e-8)
    assert found.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, wanted), rel=1e-8)
    # The gradient of sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2 in alpha is 0.
    loss = K @ (w.numpy()[:, None] * (K @ found.alpha.numpy() - y.double().numpy())) + 0.5 * K @ found.alpha.numpy()
    np.testing.assert_allclose(loss, 0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_equal_rows_have_the_weighted_mean_of_their_targets(solver, ridge, caplog):
    x = draw(40, 4)[torch.tensor([*range(40), 0, 0, 5])]
    y, w = draw(43, 2, seed=1), drawn_weights(43)
    w[40], w[7] = 0.0, 0.0  # a row whose equals count, and a row that stands alone
    found = solve(solver, x, y, ridge=ridge, weights=w)
    assert "2 training rows are equal to others, and some carry" in caplog.text
    kept = [i for i in range(43) if i not in (40, 41, 42, 7)]
    means = y.double().numpy()[kept]
    total = w.numpy()[kept].copy()
    for i, others in ((0, [0, 41]), (5, [5, 42])):
        total[kept.index(i)] = w.numpy()[others].sum()
        means[kept.index(i)] = (w.numpy()[others, None] * y.double().numpy()[others]).sum(0) / w.numpy()[others].sum()
    K = matrix(x[kept], x[kept])
    wanted = np.linalg.solve(K + ridge * np.diag(1 / total), means)
    np.testing.assert_allclose(found.fitted, matrix(x, x[kept]) @ wanted, atol=1e-8)
    alpha = found.alpha.numpy()
    assert not alpha[[7, 40]].any()
    np.testing.assert_allclose(alpha[0] + alpha[41], wanted[0], atol=1e-8)
    np.testing.assert_allclose(alpha[0] * float(w[41]), alpha[41] * float(w[0]), atol=1e-9)
    if ridge == 0:
        again = solve(solver, x, y, weights=torch.where(w > 0, w, 0) * 7.5)
        np.testing.assert_allclose(again.alpha, alpha, atol=1e-8)  # a common factor of the weights does nothing
        np.testing.assert_allclose(found.fitted[10], y[10], atol=1e-8)


def test_a_row_of_weight_0_whatever_its_target_is_left_out():
    x, y = draw(30, 4), draw(30, 2, seed=1)
    w = torch.ones(30)
    w[[3, 20]] = 0
    y[3], kept = 1e6, w > 0
    found, without = kl.interpolate(KERNEL, x, y, ridge=0.1, weights=w), kl.interpolate(KERNEL, x[kept], y[kept], 0.1)
    torch.testing.assert_close(found.alpha[kept], without.alpha)
    assert not found.alpha[~kept].any()
    torch.testing.assert_close(found.fitted[~kept], without.predict(x[~kept]))
    torch.testing.assert_close(found.predict(x), found.fitted)
    assert found.relative_residual < 1e-9


def test_weights_far_from_0_and_of_8_bit_rows():
    grey = torch.randint(0, 256, (30, 20), generator=torch.Generator().manual_seed(0)) / 255
    for x in (draw(30, 4) + 1e4, grey):
        w = torch.ones(30)
        w[:5] = 0
        found = kl.interpolate(KERNEL, x, draw(30, 1), weights=w)
        K = matrix(x, x[5:])
        np.testing.assert_allclose(found.fitted, K @ found.alpha.numpy()[5:], atol=1e-7)
        np.testing.assert_allclose(found.fitted[5:], draw(30, 1)[5:], atol=1e-7)


def test_weights_of_1_change_nothing():
    x, y = draw(30, 4)[torch.tensor([*range(30), 3])], draw(31, 2, seed=1)
    y[30] = y[3]
    plain, weighted = (kl.interpolate(KERNEL, x, y, 0.1, weights=w) for w in (None, torch.ones(31)))
    assert torch.equal(plain.alpha, weighted.alpha)
    assert torch.equal(plain.fitted, weighted.fitted)


def test_weights_of_many_magnitudes():
    x, y = draw(60, 4), draw(60, 2, seed=1)
    w = torch.logspace(-4, 4, 60, dtype=torch.float64)
    wanted = np.linalg.solve(matrix(x, x) + 0.1 * np.diag(1 / w.numpy()), y.double().numpy())
    for solver in ("direct", "pcg"):
        found = solve(solver, x, y, ridge=0.1, weights=w)
        np.testing.assert_allclose(found.alpha, wanted, atol=1e-7)


def test_singular_kernels_have_weights_too():
    x, y, w = draw(30, 4), draw(30, 2, seed=1), drawn_weights(30)
    X, root = x.double().numpy(), np.sqrt(w.numpy())[:, None]
    linear = Polynomial(degree=1, bias=0.0)
    coefficients = np.linalg.solve(X.T @ (w.numpy()[:, None] * X) + 0.2 * np.eye(4), X.T @ (root**2 * y.numpy()))
    for solver in ("direct", "pcg"):  # |f|_H = |coefficients|
        found = kl.interpolate(linear, x, y, 0.2, solver=solver, tolerance=1e-9, weights=w)
        np.testing.assert_allclose(found.fitted, X @ coefficients, atol=1e-6)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    x, y, w = draw(30, 4), draw(30, 2, seed=1), drawn_weights(30)
    keys = {solution_key(KERNEL, x, y, 0.1, weights=weights) for weights in (None, w, 2 * w)}
    assert len(keys) == 3
    with pytest.raises(KeyboardInterrupt):
        kl.interpolate(
            KERNEL,
            x,
            y,
            0.1,
            solver="pcg",
            checkpoint=tmp_path / "state",
            progress=interrupt,
            weights=w,
            tolerance=1e-9,
        )
    with pytest.raises(kl.CheckpointError, match="same data, targets, weights, kernel and ridge"):
        kl.interpolate(KERNEL, x, y, 0.1, solver="pcg", checkpoint=tmp_path / "state", weights=2 * w)
    found = kl.interpolate(KERNEL, x, y, 0.1, solver="pcg", checkpoint=tmp_path / "state", weights=w, tolerance=1e-9)
    torch.testing.assert_close(found.alpha, kl.interpolate(KERNEL, x, y, 0.1, weights=w).alpha, atol=1e-6, rtol=0)


def interrupt(progress):
    if progress.done == 2:
        raise KeyboardInterrupt


def test_equal_rows_of_equal_targets_need_no_warning(caplog):
    caplog.set_level(logging.WARNING)
    x, y = draw(10, 3)[torch.tensor([*range(10), 2, 2])], draw(12, 1)
    y[10] = y[2]
    kl.interpolate(KERNEL, x, y, weights=torch.tensor([1.0] * 11 + [0.0]))  # the row that differs does not count
    assert not caplog.text


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (torch.ones(4), {}, r"weights must be a tensor of shape \(5,\), one number for each .*; got \(4,\)"),
        (torch.ones(5, 1), {}, r"weights must be a tensor of shape \(5,\).* got \(5, 1\)"),
        ([1.0] * 5, {}, "weights must be a tensor .*; got list"),
        (torch.ones(5, dtype=torch.complex64), {}, r"weights must be a tensor of shape \(5,\).*torch.complex64"),
        (torch.tensor([1, 1, -1, 1, 1]), {}, "finite numbers, 0 or above; row 2 has -1.0: give"),
        (torch.tensor([1, 1, 1, math.nan, 1]), {}, "finite numbers, 0 or above; row 3 has nan"),
        (torch.tensor([1, 1, 1, math.inf, 1]), {}, "finite numbers, 0 or above; row 3 has inf"),
        (torch.zeros(5), {}, "weights must be above 0 for a row at least; got 5 zeros"),
        (torch.full((5,), 1e308, dtype=torch.float64), {}, "weights must have a finite sum"),
        (
            torch.full((5,), 1e-310, dtype=torch.float64),
            {"ridge": 1.0},
            "a finite ridge / weight; got weights from 1e-3",
        ),
    ],
)
@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_wrong_weights_are_refused(weights, options, message, solver):
    with pytest.raises(kl.InputError, match=message):
        kl.interpolate(KERNEL, draw(5, 2), draw(5, 1), solver=solver, weights=weights, **options)
