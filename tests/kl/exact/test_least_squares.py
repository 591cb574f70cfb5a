"""kl.least_squares against NumPy, and what a run says of it."""

import json
import logging

import numpy as np
import pytest
import torch

import kl
from kl import Gaussian, InputError, Laplacian, MemoryBudgetError, SingularKernelError

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def laplacian(x, z):
    return np.exp(-np.linalg.norm(x.numpy()[:, None].astype(float) - z.numpy()[None].astype(float), axis=2) / 2)


X, Y, Z = draw(200, 5), draw(200, 3, seed=1), draw(30, 5, seed=2)


def test_it_is_the_solution_of_numpy():
    found = kl.least_squares(Laplacian(2.0), Z, X, Y)
    K, y = laplacian(X, Z), Y.double().numpy()
    alpha = np.linalg.lstsq(K, y, rcond=None)[0]
    np.testing.assert_allclose(found.alpha.numpy(), alpha, rtol=1e-8)
    np.testing.assert_allclose(found.fitted.numpy(), K @ alpha, rtol=1e-8)
    per_class = np.sqrt(np.sum(alpha * (laplacian(Z, Z) @ alpha), axis=0))
    np.testing.assert_allclose(found.rkhs_norm_per_class.numpy(), per_class, rtol=1e-8)
    assert found.rkhs_norm == pytest.approx(np.linalg.norm(per_class))
    assert found.relative_residual < 1e-12
    assert found.jitter == 0


def test_a_ridge_is_on_the_norm():
    found = kl.least_squares(Laplacian(2.0), Z, X, Y, ridge=3.0)
    K, y = laplacian(X, Z), Y.double().numpy()
    alpha = np.linalg.solve(K.T @ K + 3.0 * laplacian(Z, Z), K.T @ y)
    np.testing.assert_allclose(found.alpha.numpy(), alpha, rtol=1e-8)


def test_centres_that_are_the_rows_interpolate():
    found = kl.least_squares(Laplacian(2.0), X, X, Y)
    exact = kl.interpolate(Laplacian(2.0), X, Y)
    np.testing.assert_allclose(found.alpha.numpy(), exact.alpha.numpy(), rtol=1e-5, atol=1e-6)
    assert found.rkhs_norm == pytest.approx(exact.rkhs_norm, rel=1e-6)


def test_more_centres_than_rows_give_the_least_norm():
    found = kl.least_squares(Laplacian(2.0), X, Z, Y[:30])
    K, G, y = laplacian(Z, X), laplacian(X, X), Y[:30].double().numpy()
    half = np.linalg.solve(G, K.T)
    np.testing.assert_allclose(found.alpha.numpy(), half @ np.linalg.solve(K @ half, y), atol=1e-6)


def test_centres_that_repeat():
    once, twice = (kl.least_squares(Laplacian(2.0), z, X, Y) for z in (Z, torch.cat([Z, Z[:7]])))
    np.testing.assert_allclose(twice.fitted.numpy(), once.fitted.numpy(), atol=1e-6)
    assert twice.rkhs_norm == pytest.approx(once.rkhs_norm, rel=1e-6)
    np.testing.assert_allclose(twice.alpha[:7].numpy(), twice.alpha[30:].numpy(), atol=1e-6)


def test_rows_far_from_zero():
    near, far = kl.least_squares(Gaussian(2.0), Z, X, Y), kl.least_squares(Gaussian(2.0), Z + 500, X + 500, Y)
    np.testing.assert_allclose(far.fitted.numpy(), near.fitted.numpy(), atol=1e-2)


def test_progress_reaches_its_end():
    seen = []
    kl.least_squares(Laplacian(2.0), Z, X, Y, progress=seen.append)
    assert seen[-1].done == 1
    assert str(seen[-1]).startswith("least squares: 100% done")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z, X, Y[:9]), InputError, "x and y must have one row per sample"),
        ((Z[:, :2], X, Y), InputError, "and centers x's columns"),
        ((Z, X, Y * torch.nan), InputError, "y must be finite"),
        ((Z, X, Y, -1.0), InputError, "ridge must be"),
        ((Z, X, Y, 0.0, 1000), MemoryBudgetError, "the exact limit of p=30 centres needs .* or use fewer centers"),
    ],
)
def test_mistakes(arguments, error, message):
    with pytest.raises(error, match=message):
        kl.least_squares(Laplacian(2.0), *arguments)


def test_a_kernel_that_is_zero():
    with pytest.raises(SingularKernelError, match="zero or not finite on all centres"):
        kl.least_squares(kl.Polynomial(1, bias=0.0), torch.zeros(3, 5), X, Y)


# In a run


FAST = ("--data", "digits", "--train-size", 300, "--kernel", "laplacian", "--epochs", 20)


def fit(kl_command, *more):
    result = kl_command("fit", *FAST, *more, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.mark.slow
def test_a_run_is_shown_beside_it(kl, caplog):
    caplog.set_level(logging.INFO)
    found = fit(kl, "--solver", "eigenpro4", "--centers", 60)
    assert found["solver"] == "EigenPro 4"
    assert (found["centers"], found["projection"]) == (60, "factor")
    assert found["projection_period"] > 1
    assert found["exact_train_mse"] < found["train_mse"] < 1.1 * found["exact_train_mse"]
    assert 0 < found["distance_to_exact"] < 0.3 * found["exact_rkhs_norm"]
    assert "least squares of n=300 rows over the span of p=60 centres" in caplog.text
    caplog.clear()
    again = fit(kl, "--solver", "eigenpro4", "--centers", 60)
    assert "read from" in caplog.text
    caplog.clear()
    assert again["distance_to_exact"] == found["distance_to_exact"]
    third = fit(kl, "--solver", "eigenpro3", "--centers", 60, "--centers-from", "kmeans")
    assert third["solver"] == "EigenPro 3"
    assert "read from" not in caplog.text  # other centres


@pytest.mark.slow
def test_centres_from_a_file(kl, tmp_path):
    rows = np.random.default_rng(0).random((25, 64), dtype=np.float32)
    np.savez(tmp_path / "z.npz", centers=rows)
    found = fit(kl, "--solver", "eigenpro4", "--centers", "z.npz")
    assert found["centers"] == 25
    np.savez(tmp_path / "x.npz", x=rows)
    result = kl("predict", found["checkpoint"], "--input", "x.npz", "--output", "a.csv")
    assert result.code == 0, result.err


@pytest.mark.slow
def test_a_run_goes_on(kl):
    options = ("--solver", "eigenpro4", "--centers", 40, "--name", "run", "--no-exact")
    fit(kl, *options, "--epochs", 3)
    found = fit(kl, *options, "--epochs", 5, "--resume", "last")
    assert found["epochs"] == 5


@pytest.mark.parametrize("solver", ["eigenpro3", "eigenpro4"])
def test_a_plan(kl, solver):
    result = kl("plan", *FAST, "--solver", solver, "--centers", 60)
    assert result.code == 0, result.err
    assert "steps between projections T" in result.out
    found = json.loads(kl("plan", *FAST, "--solver", solver, "--centers", 60, "--json").out)
    assert found["centers"] == 60
    assert found["memory_total"] <= found["memory_budget"]
    assert found["seconds_total"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--centers", 60], "centers is for --solver eigenpro3 and eigenpro4; got 60 with eigenpro"),
        (["--solver", "pcg", "--centers-from", "kmeans"], "centers_from is for --solver eigenpro3 and eigenpro4"),
        (["--solver", "eigenpro5"], "solver must be one of eigenpro, eigenpro3, eigenpro4, pcg, rfm; got 'eigenpro5'"),
        (["--solver", "eigenpro3", "--projection-period", 4], "projection_period must be 1 with --solver eigenpro3"),
        (["--solver", "eigenpro4", "--projection-period", "x"], "projection_period must be a whole number or auto"),
        (
            ["--solver", "eigenpro4", "--centers", "many"],
            "centers must be a whole number of at least 1, or a .npz file",
        ),
        (["--solver", "eigenpro4", "--centers", 0], "centers must be"),
        (["--solver", "eigenpro4", "--centers", "none.npz"], "none.npz must be a .npz file; there is no such file"),
        (["--solver", "eigenpro4", "--centers-from", "best"], "centers_from must be one of random, kmeans, rpcholesky"),
    ],
)
def test_mistakes_on_the_command_line(kl, arguments, message):
    result = kl("fit", *FAST, *arguments)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1
