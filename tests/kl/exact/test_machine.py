"""The machine that is fitted by conjugate gradients."""

import numpy as np
import oracle
import pytest
import torch
from training import fit, memory_for, quiet_trainer, regression

import kl
from callbacks import ExactInterpolation, StopWhenInterpolated
from datamodules import ArrayDataModule, DigitsDataModule
from kl import ConjugateGradientMachine, Gaussian, KernelMachine, Laplacian, Polynomial
from kl.products.low_rank import LowRankPreconditioner

pytestmark = pytest.mark.numeric


def digits(**options):
    return DigitsDataModule(train_size=300, test_size=50, **options)


def test_it_reaches_the_interpolant():
    data = regression(n=60, d=4, c=2)
    machine = ConjugateGradientMachine(Laplacian(1.5))
    trainer = fit(machine, data, 40)
    x, y = data.train_set.x, data.train_set.y
    K = oracle.matrix(oracle.laplacian, x.double().numpy(), x.double().numpy(), bandwidth=1.5)
    exact = np.linalg.solve(K, y.double().numpy())
    alpha = machine.in_data_order(machine.alpha.detach()).numpy()
    np.testing.assert_allclose(alpha, exact, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_allclose(machine.in_data_order(machine.fitted_values()), K @ alpha, atol=1e-5)
    assert machine.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, exact), rel=1e-5)
    assert machine.relative_residual < 1e-5
    assert trainer.global_step == trainer.current_epoch  # a step an epoch
    with torch.no_grad():
        torch.testing.assert_close(machine(x), y, atol=1e-4, rtol=0)


def test_norm_and_errors_are_exact_at_every_epoch():
    data = digits(label_noise=0.2)
    for epochs in (1, 2, 5):
        machine = ConjugateGradientMachine(Laplacian(3.0))
        fit(machine, data, epochs)
        x, alpha = data.train_set.x, machine.in_data_order(machine.alpha.detach())
        assert machine.rkhs_norm == pytest.approx(kl.rkhs_norm(machine.kernel, x, alpha), rel=1e-5)
        values = kl.rkhs.evaluate(machine.kernel, x, alpha, x)
        assert machine.train_metrics["train/mse"] == pytest.approx(
            float((values - data.train_set.y).square().mean()), rel=1e-3, abs=1e-9
        )
        assert machine.batch_error == machine.train_metrics["train/error"]


def test_it_comes_with_the_callbacks(tmp_path):
    exact, stop = ExactInterpolation(cache_dir=tmp_path), StopWhenInterpolated()
    trainer = fit(machine := ConjugateGradientMachine(), digits(), 30, callbacks=[exact, stop])
    assert stop.stopped_epoch == trainer.current_epoch < 30
    assert exact.results["distance_to_exact"] < 0.5 * exact.results["exact_rkhs_norm"]
    assert machine.train_metrics["train/error"] == 0
    assert trainer.callback_metrics["val/error"] < 0.2


@pytest.mark.slow
def test_it_stops_where_float32_leads_no_further(caplog):
    with caplog.at_level("INFO"):
        trainer = fit(machine := ConjugateGradientMachine(Gaussian(8.0)), digits(), 2000)
    assert trainer.current_epoch < 2000
    assert "lead no further: training stops" in caplog.text
    assert machine.train_metrics["train/mse"] < 1e-4
    assert torch.isfinite(machine.alpha).all()


@pytest.mark.parametrize("done", [1, 12])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, done):
    whole, first, rest = (ConjugateGradientMachine(Laplacian(3.0)) for _ in range(3))
    fit(whole, digits(), 20)
    fit(first, digits(), done).save_checkpoint(tmp_path / "part.ckpt")
    fit(rest, digits(), 20, ckpt_path=tmp_path / "part.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
    loaded = ConjugateGradientMachine.load_from_checkpoint(tmp_path / "part.ckpt", weights_only=True)
    assert torch.equal(loaded.alpha, first.alpha)
    assert loaded.rkhs_norm == first.rkhs_norm
    assert quiet_trainer().predict(loaded, datamodule=digits())


def test_a_run_resumed_within_less_memory_starts_its_search_anew(tmp_path, caplog):
    caplog.set_level("INFO", "kl")
    data = regression(n=400, d=6, c=2)
    fit(first := ConjugateGradientMachine(Laplacian(3.0)), data, 30).save_checkpoint(tmp_path / "part.ckpt")
    assert first._rank_of_direction == 40
    smaller = ConjugateGradientMachine(Laplacian(3.0), memory=first.memory.total - 4 * 400 * 420)
    fit(smaller, data, 60, ckpt_path=tmp_path / "part.ckpt")
    assert f"rank was 40 and is {smaller.rank}: the search starts anew" in caplog.text
    assert smaller._rank_of_direction == smaller.rank < first.rank
    assert smaller.relative_residual < 1e-4 * first.relative_residual


def linear(n, d, outside=0.0):
    """Normal rows with linear targets, or targets that are partly normal noise."""
    generator = torch.Generator().manual_seed(n + d)
    x, w, noise = (torch.randn(*shape, generator=generator) for shape in ((n, d), (d, 2), (n, 2)))
    return ArrayDataModule.from_arrays(x, x @ w + outside * noise, x[:5], x[:5] @ w)


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("n", [20, 60, 500])
def test_kernel_matrices_of_low_rank_are_fitted_at_once(n, d):
    machine = ConjugateGradientMachine(Polynomial(degree=1, bias=0.0))
    trainer = fit(machine, data := linear(n, d), 60)
    assert trainer.current_epoch <= 5
    x, y = data.train_set.x.double(), data.train_set.y
    alpha = machine.in_data_order(machine.alpha.detach())
    np.testing.assert_allclose(x @ (x.T @ alpha), y, atol=1e-5)
    assert machine.rkhs_norm == pytest.approx(float((x.T @ alpha).norm()), rel=1e-6)


def test_targets_outside_the_range_of_a_kernel_of_low_rank(caplog):
    machine = ConjugateGradientMachine(Polynomial(degree=1, bias=0.0))
    trainer = fit(machine, data := linear(200, 4, outside=1.0), 60)
    assert trainer.current_epoch <= 5
    assert "the kernel matrix has rank 4, so the targets cannot all be fitted" in caplog.text
    x, y = data.train_set.x.double().numpy(), data.train_set.y.double().numpy()
    np.testing.assert_allclose(x.T @ machine.in_data_order(machine.alpha.detach()).numpy(), np.linalg.lstsq(x, y)[0])


def test_a_rank_beyond_the_preconditioners_is_found_too():
    x, y = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), torch.ones(200, 1)
    y[::3] = -1.0
    machine = ConjugateGradientMachine(Polynomial(degree=3))
    fit(machine, ArrayDataModule.from_arrays(x, y, x[:5], y[:5]), 200)
    wanted = kl.interpolate(Polynomial(degree=3), x, y, solver="direct")
    assert machine.relative_residual == pytest.approx(wanted.relative_residual, rel=1e-6)


def test_a_stall_short_of_the_range_goes_on_by_a_factor_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr(LowRankPreconditioner, "exhausted", False)
    # Where float32 stalls hangs on the last bits of its products; looked at so often it does, and soon.
    monkeypatch.setattr("kl.exact.iteration.CHECK_ITERATIONS", 2)
    monkeypatch.setattr("kl.exact.machine.CONSISTENT", 0.0)
    whole, first, rest = (ConjugateGradientMachine(Polynomial(degree=1, bias=0.0)) for _ in range(3))
    fit(whole, linear(120, 8), 400)
    assert whole._by_factor
    assert whole.relative_residual < 1e-6
    done = int(whole.progress[0]) - 1
    fit(first, linear(120, 8), done).save_checkpoint(tmp_path / "part.ckpt")
    assert first._by_factor
    fit(rest, linear(120, 8), 400, ckpt_path=tmp_path / "part.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


def test_checkpoints_of_other_machines_are_refused(tmp_path):
    fit(KernelMachine(Laplacian(3.0)), digits(), 1).save_checkpoint(tmp_path / "eigenpro.ckpt")
    with pytest.raises(kl.CheckpointError, match=r"holds a KernelMachine, this is a Conjugate.*same solver"):
        fit(ConjugateGradientMachine(Laplacian(3.0)), digits(), 2, ckpt_path=tmp_path / "eigenpro.ckpt")
    fit(ConjugateGradientMachine(Laplacian(3.0)), digits(), 1).save_checkpoint(tmp_path / "pcg.ckpt")
    with pytest.raises(kl.CheckpointError, match="holds a ConjugateGradientMachine"):
        KernelMachine.load_from_checkpoint(tmp_path / "pcg.ckpt", weights_only=True)
    with pytest.raises(kl.CheckpointError, match=r"other training (data|targets)"):
        fit(ConjugateGradientMachine(Laplacian(3.0)), digits(label_noise=0.5), 2, ckpt_path=tmp_path / "pcg.ckpt")


def test_equal_rows_are_fitted_to_the_mean_of_their_targets():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    y = torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    x[20:30] = x[:10]
    machine = ConjugateGradientMachine(Laplacian(2.0))
    fit(machine, ArrayDataModule.from_arrays(x, y, x[:5], y[:5]), 60)
    values = machine.in_data_order(machine.fitted_values())
    means = y.double().clone()
    means[:10] = means[20:30] = (y[:10] + y[20:30]).double() / 2
    torch.testing.assert_close(values, means, atol=1e-4, rtol=0)
    assert torch.isfinite(machine.alpha).all()


def test_budgets():
    whole = ConjugateGradientMachine(Laplacian(3.0))
    fit(whole, digits(), 15)
    assert "kept part" in " ".join(whole.memory.items)
    tight = ConjugateGradientMachine(Laplacian(3.0), memory=whole.memory.total - 2 * 300 * 300)
    fit(tight, digits(), 15)
    assert tight.memory.items["K(X, X), kept part of its lower triangle"] == 0
    torch.testing.assert_close(tight.fitted_values(), whole.fitted_values(), atol=1e-4, rtol=0)
    with pytest.raises(kl.MemoryBudgetError, match=r"conjugate gradients on n=300 rows .* raise memory="):
        fit(ConjugateGradientMachine(Laplacian(3.0), memory=memory_for(300, 64, 10, 10) // 100), digits(), 1)


def test_fast_dev_run():
    machine = ConjugateGradientMachine()
    fit(machine, digits(), fast_dev_run=True)
    assert machine.rkhs_norm > 0
