"""EigenPro with a ridge comes to the ridge solution (K + ridge I)^-1 Y, and says that it has one."""

import json

import numpy as np
import oracle
import pytest
import torch
from processes import on_ranks, shared
from training import fit, regression

import kl
from callbacks import ExactInterpolation
from kl import KernelMachine, Laplacian
from kl.eigenpro.divergence import DivergenceGuard
from kl.eigenpro.preconditioner import damping_weights, make_preconditioner
from kl.eigenpro.rules import optimal_step_size
from kl.eigenpro.spectrum import nystrom_eigensystem
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(1.5)


def double(repeated=0, **options):
    """Regression in float64; the last rows repeat the first ones, with other targets."""
    data = regression(n=40, c=2, **options)
    data.setup()
    x, y = data.train_set.x.double(), data.train_set.y.double()
    if repeated:
        x[-repeated:] = x[:repeated]
    data.train_set = kl.RowDataset(x, y)
    data.test_set = kl.RowDataset(data.test_set.x.double(), data.test_set.y.double())
    return data


def solution(data, ridge):
    x, y = data.train_set.x.numpy(), data.train_set.y.numpy()
    K = oracle.matrix(oracle.laplacian, x, x, bandwidth=1.5)
    return K, np.linalg.solve(K + ridge * np.eye(len(x)), y)


def weights(machine):
    return machine.in_data_order(machine.alpha.detach()).numpy()


@pytest.mark.parametrize(
    ("ridge", "epochs", "repeated", "options"),
    [
        (0.03, 250, 0, {}),
        (1.0, 60, 0, {"batch_size": 7}),
        (1.0, 60, 6, {}),
        (1.0, 60, 6, {"subsample": 16, "top_q": 4, "batch_size": 20}),
        (50.0, 40, 6, {"batch_size": 7}),
        (50.0, 40, 0, {"top_q": 0}),
    ],
)
def test_training_comes_to_the_ridge_solution(ridge, epochs, repeated, options):
    data = double(repeated)
    machine = KernelMachine(KERNEL, ridge=ridge, **options)
    fit(machine, data, epochs)
    K, alpha = solution(data, ridge)
    f, found = K @ alpha, K @ weights(machine)
    np.testing.assert_allclose(found, f, atol=1e-4 * np.abs(f).max())
    assert machine.train_metrics["train/mse"] == pytest.approx(np.mean((f - data.train_set.y.numpy()) ** 2), rel=1e-3)
    assert machine.rkhs_norm == pytest.approx(np.sqrt(np.sum(alpha * f)), rel=1e-3)
    if not repeated and ridge >= 1:
        np.testing.assert_allclose(weights(machine), alpha, atol=1e-6 * np.abs(alpha).max())
    assert machine.run.guard.cuts == 0


def test_the_distance_to_the_ridge_solution_falls_to_nothing(tmp_path):
    exact = ExactInterpolation(cache_dir=tmp_path)
    machine = KernelMachine(KERNEL, ridge=1.0)
    fit(machine, double(repeated=6), 100, callbacks=[exact])
    assert exact.solution.ridge == 1.0
    assert exact.results["distance_to_exact"] < 1e-6 * exact.results["exact_rkhs_norm"]


@pytest.mark.parametrize("ridge", [0.0, 0.5, 40.0])
@pytest.mark.parametrize("q", [1, 5, 12])
def test_the_damped_spectrum_is_that_of_the_ridge(ridge, q):
    """With s = n, P (K + ridge I)/n has (lambda_i + r)^(1-a) (lambda_q + r)^a above q, and lambda_i + r below."""
    data = double()
    K, _ = solution(data, ridge)
    n, x = len(K), data.train_set.x
    system = nystrom_eigensystem(KERNEL, Rows.of(x))
    precond = make_preconditioner(system, q, torch.float64, ridge / n)
    E, D = precond.vectors.numpy(), precond.weights.numpy()
    found = np.linalg.eigvals((np.eye(n) - E * D @ E.T @ K) @ (K + ridge * np.eye(n)) / n).real
    shifted = np.linalg.eigvalsh(K / n)[::-1] + ridge / n
    wanted = shifted.copy()
    wanted[:q] = shifted[:q] ** 0.05 * shifted[q - 1] ** 0.95
    np.testing.assert_allclose(np.sort(found), np.sort(wanted), rtol=1e-8)
    np.testing.assert_allclose(D, damping_weights(torch.from_numpy(shifted - ridge / n), q, shift=ridge / n))


@pytest.mark.parametrize("ridge", [0.0, 0.5, 40.0])
def test_the_plan_is_that_of_the_kernel_with_the_ridge(ridge):
    data = double()
    machine = KernelMachine(KERNEL, ridge=ridge, top_q=4)
    machine.take(data)
    plan, n = machine.plan, 40
    x = machine.centers.numpy()
    K = oracle.matrix(oracle.laplacian, x, x, bandwidth=1.5)
    E, D = machine.vectors.numpy(), machine.weights.numpy()
    K_P = K - K @ (E * D) @ E.T @ K
    assert plan.ridge == ridge
    assert plan.beta == pytest.approx(K_P.diagonal().max() + ridge)
    top = np.linalg.eigvalsh(K_P)[-1] / n + ridge / n
    assert plan.lambda_1_damped >= (1 - 1e-6) * top
    assert plan.lambda_1_damped <= 1.001 * max(top, plan.lambda_1_subsample)
    assert plan.critical_batch_size == int(plan.beta / plan.lambda_1_damped) + 1
    assert plan.critical_batch_size <= n + 1
    edge = 2 / np.linalg.eigvals((np.eye(n) - E * D @ E.T @ K) @ (K + ridge * np.eye(n)) / n).real.max()
    assert optimal_step_size(n, plan.beta, plan.lambda_1_damped) < edge


def test_too_large_a_step_recovers_with_a_ridge(caplog):
    machine = KernelMachine(KERNEL, ridge=5.0, step_size=1e30)
    data = double()
    fit(machine, data, 60)
    assert "training diverged" in caplog.text
    assert machine.step_size == machine.plan.optimal_step_size
    np.testing.assert_allclose(weights(machine), solution(data, 5.0)[1], atol=1e-5)


def test_the_guard_watches_the_residual_of_the_ridge():
    machine = KernelMachine(KERNEL, ridge=2.0)
    fit(machine, double(), 1)
    guard, alpha = machine.run.guard, machine.alpha.detach()
    f, y = machine.fitted_values(), machine.targets
    assert isinstance(guard, DivergenceGuard)
    assert guard.errors() == pytest.approx(float((f + 2.0 * alpha - y).square().sum()))
    assert guard.energy() == pytest.approx(float((alpha * (f + 2.0 * alpha - 2 * y)).sum()))


def on_one():
    machine = KernelMachine(KERNEL, ridge=0.7, batch_size=11, memory="1GB")
    fit(machine, double(), 5, **shared())
    return machine.ranks.all_gather_in_order(machine.alpha.detach(), machine.num_centers), machine.plan.step_size


def test_ranks_train_as_one():
    (ours, step), (alone, alone_step) = on_ranks(2, on_one)[0], on_one()
    assert step == pytest.approx(alone_step, rel=1e-9)
    torch.testing.assert_close(ours, alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("value", [-1.0, float("nan"), "much"])
def test_wrong_ridges_are_refused(value):
    with pytest.raises(kl.InputError, match="ridge must be"):
        KernelMachine(KERNEL, ridge=value)


def test_resuming_with_another_ridge_is_refused(tmp_path):
    trainer = fit(KernelMachine(KERNEL, ridge=0.5), regression(), 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = KernelMachine.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.ridge == loaded.plan.ridge == 0.5
    with pytest.raises(kl.CheckpointError, match=r"trained with ridge 0\.5; got 0: resume with the same ridge"):
        fit(KernelMachine(KERNEL), regression(), 2, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.slow
def test_the_report_names_the_ridge(kl):
    options = ("fit", "--data", "digits", "--train-size", 200, "--ridge", 0.5, "--epochs", 12, "--bandwidth", 3)
    said = kl(*options).out
    assert "Laplacian(bandwidth=3.0)  ridge=0.5" in said
    assert "ridge solution" in said
    assert "exact limit" not in said
    found = json.loads(kl(*options, "--json").out)
    assert found["ridge"] == 0.5
    assert found["train_mse"] == pytest.approx(found["exact_train_mse"], rel=1e-3)
    assert found["distance_to_exact"] < 1e-2 * found["exact_rkhs_norm"]
    plan = json.loads(kl("plan", *options[1:], "--json").out)
    assert plan["ridge"] == 0.5


@pytest.mark.parametrize("solver", ["pcg", "eigenpro3", "eigenpro4"])
@pytest.mark.parametrize("command", ["fit", "plan"])
def test_solvers_without_a_ridge_refuse_it(kl, solver, command):
    result = kl(command, "--data", "digits", "--solver", solver, "--ridge", 0.5)
    assert result.code == 2
    for_rounds = f"ridge is for the rounds of --learn-features with --solver {solver}; got 0.5: give --learn-features"
    others = "ridge is for --solver eigenpro and rfm; got 0.5 with pcg"
    assert (others if solver == "pcg" else for_rounds) in result.err
