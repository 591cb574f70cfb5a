"""The diagonal of the inverse by random probes: unbiased, as uncertain as it says, and harmless to the solution."""

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.exact import probes as module
from kl.exact.equations import System
from kl.exact.probes import Probes
from kl.kernels import Laplacian
from kl.products.low_rank import LowRankPreconditioner
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

KERNEL = Laplacian(2.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(x):
    return torch.from_numpy(oracle.matrix(oracle.laplacian, x.double().numpy(), x.double().numpy(), bandwidth=2.0))


def system_of(x, y, ridge=0.1):
    return System(KERNEL, Rows.of(x).double(), y.double(), torch.full((len(x),), ridge, dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 20, 80])
def test_the_diagonal_of_the_preconditioner_is_that_of_its_inverse(rank):
    x = draw(80, 4)
    preconditioner = LowRankPreconditioner(KERNEL, Rows.of(x), rank, 0.1)
    wanted = preconditioner.solve(torch.eye(80, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(preconditioner.inverse_diagonal(), wanted, rtol=1e-4, atol=1e-5)


def test_the_estimates_are_unbiased():
    x, y = draw(80, 4), draw(80, 2, seed=1)
    system = system_of(x, y)
    preconditioner = LowRankPreconditioner(KERNEL, Rows.of(x), 20, 0.1)
    inverse = torch.linalg.inv(matrix(x) + 0.1 * torch.eye(80))
    samples = []
    for seed in range(20):
        probes = Probes(system, seed)
        alpha = inverse @ probes.beside(system).y
        samples.append(probes.diagonals(system, alpha, preconditioner).samples)
    samples = torch.cat(samples, dim=1)
    z = (samples.mean(dim=1) - inverse.diagonal()) / samples.std(dim=1) * samples.shape[1] ** 0.5
    assert float(z.square().mean()) < 1.8
    assert float(z.abs().max()) < 5
    assert bool((inverse.diagonal() >= 1 / (1 + 0.1)).all())  # the lower bound that the estimates are kept above


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_mean_squared_error_is_right_within_its_standard_error(ridge, monkeypatch):
    x, y = draw(150, 4), draw(150, 2, seed=1)
    exact = kl.interpolate(KERNEL, x, y, ridge, leave_one_out=True).leave_one_out
    found, drawn = [], Probes
    for seed in range(8):
        monkeypatch.setattr("kl.exact.conjugate_gradients.Probes", lambda system, seed=seed: drawn(system, seed))
        solved = kl.interpolate(KERNEL, x, y, ridge, solver="pcg", leave_one_out=True)
        assert solved.leave_one_out.method == "probes"
        found.append((solved.leave_one_out.mse(y), solved.leave_one_out.standard_error, solved.leave_one_out.gcv))
    mse, error, gcv = np.array(found).T
    z = (mse - exact.mse(y)) / error
    assert np.mean(z**2) < 3
    assert np.max(error) < 0.1 * exact.mse(y)
    np.testing.assert_allclose(gcv, exact.gcv, rtol=0.1)


def test_the_solution_is_as_good_as_without_probes():
    x = draw(150, 4)
    for y in (draw(150, 2, seed=1), 1e-6 * draw(150, 2, seed=1), torch.zeros(150, 1)):
        solved = kl.interpolate(KERNEL, x, y, solver="pcg", tolerance=1e-8, leave_one_out=True)
        assert solved.converged
        wanted = oracle.naive_interpolate(matrix(x).numpy(), y)
        np.testing.assert_allclose(solved.alpha, wanted, atol=1e-6 * float(y.norm()))
        assert solved.alpha.shape == solved.fitted.shape == y.shape
        assert solved.leave_one_out.predictions.isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_equal_rows_and_weights():
    x = torch.cat([draw(140, 4), draw(10, 4)])
    y, w = draw(150, 2, seed=1), torch.rand(150, generator=torch.Generator().manual_seed(2)) + 0.2
    w[20] = 0
    exact = kl.interpolate(KERNEL, x, y, 0.1, weights=w, leave_one_out=True).leave_one_out
    found = kl.interpolate(KERNEL, x, y, 0.1, weights=w, leave_one_out=True, solver="pcg").leave_one_out
    assert abs(found.mse(y) - exact.mse(y)) < 4 * found.standard_error < 0.2 * exact.mse(y)
    torch.testing.assert_close(found.predictions[20], exact.predictions[20], atol=1e-5, rtol=0)


def test_an_interrupted_solve_goes_on_with_its_probes(tmp_path):
    x, y = draw(150, 4), draw(150, 2, seed=1)

    def solve(**options):
        return kl.interpolate(KERNEL, x, y, solver="pcg", checkpoint=tmp_path / "state", leave_one_out=True, **options)

    with pytest.raises(KeyboardInterrupt):
        solve(progress=interrupt)
    resumed = solve()
    assert not (tmp_path / "state").exists()
    whole = solve()
    torch.testing.assert_close(resumed.leave_one_out.predictions, whole.leave_one_out.predictions, atol=1e-4, rtol=0)
    with pytest.raises(KeyboardInterrupt):
        solve(progress=interrupt)
    with pytest.raises(kl.CheckpointError, match="must belong to the same"):
        kl.interpolate(KERNEL, x, y, solver="pcg", checkpoint=tmp_path / "state")


def interrupt(progress):
    if progress.done == 2:
        raise KeyboardInterrupt


def test_more_probes_are_less_uncertain(monkeypatch):
    x, y = draw(150, 4), draw(150, 2, seed=1)
    errors = []
    for count in (5, 80):
        monkeypatch.setattr(module, "PROBES", count)
        errors.append(kl.interpolate(KERNEL, x, y, solver="pcg", leave_one_out=True).leave_one_out.standard_error)
    assert errors[1] < 0.5 * errors[0]
