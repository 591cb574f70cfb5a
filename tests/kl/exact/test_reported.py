"""What is said of an exact solution, jitter and residual, is what it has, also in the results of `kl fit`."""

import pytest
import torch
from training import quiet_trainer, regression

import kl
from callbacks import ExactInterpolation, Timing
from kl.exact import cholesky as direct
from kl.products.triangle import LowerTriangle
from recipes.output.report import fit_results

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def shifts(monkeypatch):
    """What was added to the diagonal, in turn; the first two factorisations fail, as of a matrix near to singular."""
    found, factorise = [], LowerTriangle.factorise

    def third_time(self, shift, progress):
        found.append(shift.clone())
        return len(found) > 2 and factorise(self, shift, progress)

    monkeypatch.setattr(direct.LowerTriangle, "factorise", third_time)
    return found


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_the_jitter_of_a_direct_solve_is_what_was_added(shifts, caplog, ridge):
    x, y = draw(40, 3), draw(40, 2, seed=1)
    result = kl.interpolate(kl.Laplacian(2.0), x, y, ridge)
    assert result.jitter == 100 * max(40 * torch.finfo(torch.float64).eps, 1e-14)
    assert torch.equal(shifts[-1], torch.full((40,), ridge + result.jitter, dtype=torch.float64))
    assert f"added jitter {result.jitter:.1e} to its diagonal" in caplog.text


def fitted(cache, **options):
    """The results of a run with an exact limit beside it."""
    exact, machine = ExactInterpolation(cache_dir=cache, **options), kl.KernelMachine(kl.Laplacian(2.0))
    data = regression(n=60, d=3, c=2)
    trainer = quiet_trainer(2, callbacks=[exact, Timing()])
    trainer.fit(machine, datamodule=data)
    return fit_results(trainer, machine, data, 1.0), exact, data


def test_the_residual_of_a_run_s_exact_limit_is_that_of_its_weights(tmp_path):
    results, exact, data = fitted(tmp_path, solver="pcg", tolerance=1e-3)
    x, y = data.train_set.x.double(), data.train_set.y.double()
    kernel = torch.exp(-torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / 2.0)
    residual = float((kernel @ exact.solution.alpha - y).norm() / y.norm())
    assert 1e-9 < residual < 1e-3
    assert results["exact_relative_residual"] == pytest.approx(residual, rel=1e-4)
    assert results["exact_jitter"] == 0
    again, kept, _ = fitted(tmp_path, solver="pcg", tolerance=1e-3)
    assert kept.results["cached"]
    assert again["exact_relative_residual"] == results["exact_relative_residual"]


def test_the_jitter_of_a_run_s_exact_limit_is_reported(tmp_path, shifts):
    results, exact, _ = fitted(tmp_path, solver="direct")
    assert results["exact_jitter"] == float(shifts[-1][0]) > 0
    assert results["exact_relative_residual"] == exact.solution.relative_residual < 1e-10
