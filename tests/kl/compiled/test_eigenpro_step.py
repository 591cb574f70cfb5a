"""Parts of a step of EigenPro 2 by compiled code: to the bit as with tensors, and near float64."""

import pytest
import torch
from compiled_code import best_library, library

from kl.compiled import LIBRARIES
from kl.compiled.eigenpro_step import residual_at, update_weights, values_at
from kl.compiled.thin_products import IndexedRows
from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.preconditioner import Preconditioner
from kl.eigenpro.run import EigenProRun
from kl.kernels import Gaussian

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(code, n=150, s=70, q=5, c=3, m=40):
    """K(X_B, X_S) as rows of a wider matrix, f(X), pending weights, E, D, g and alpha."""
    index = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:m]
    block = IndexedRows(code, draw(n, s + 9)[:, :s], index)
    values, pending = draw(c, n, seed=2, dtype=torch.float64).T, draw(c, s, seed=3, dtype=torch.float64).T
    vectors, damping = draw(q, s, seed=4).T, draw(q, seed=5)
    residual, alpha = draw(c, m, seed=6, dtype=torch.float64).T, draw(n, c, seed=7, dtype=torch.float64)
    return block, values, pending, vectors, damping, residual, alpha


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("sizes", [{}, {"c": 1, "q": 0}, {"n": 600, "s": 600, "m": 550, "c": 32}, {"m": 1, "s": 1}])
def test_parts_of_a_step(name, sizes):
    code = library(name)
    block, values, pending, vectors, damping, residual, alpha = problem(code, **sizes)
    rows, scale, s = block.matrix[block.index].double(), 0.37, len(pending)
    found = values_at(block, values, pending)
    assert torch.equal(found, values[block.index] + block.matmul(pending))
    torch.testing.assert_close(found, values[block.index] + rows @ pending, rtol=1e-5, atol=2e-4)

    changed = alpha.clone()
    on_batch, on_subsample = update_weights(block, vectors, damping, residual, scale, changed)
    assert torch.equal(on_batch, residual.float() * -scale)
    every = IndexedRows(block.code, vectors.T)
    projected = every.matmul(block.t_matmul(residual.float()))
    assert torch.equal(on_subsample, every.t_matmul(damping[:, None] * projected * scale).double())
    wanted = scale * vectors.double() @ (damping[:, None] * (vectors.double().T @ (rows.T @ residual)))
    torch.testing.assert_close(on_subsample.double(), wanted, rtol=1e-4, atol=1e-3 * float(wanted.abs().max()) + 1e-6)
    alpha[block.index] += on_batch
    alpha[:s] += on_subsample
    assert torch.equal(changed, alpha)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_residual(name, ridge):
    block, values, pending, _, _, _, alpha = problem(library(name))
    targets, index = draw(150, 3, seed=8), block.index
    f = values_at(block, values, pending)
    residual, errors = residual_at(block, f, targets, alpha, ridge)
    wanted = f + ridge * alpha[index] - targets[index]
    torch.testing.assert_close(residual, wanted.float(), rtol=1e-6, atol=1e-6)
    assert errors == pytest.approx(float(wanted.square().sum()), rel=1e-12)
    assert ridge or torch.equal(residual, wanted.float())


def test_residual_left_to_torch():
    block, values, pending, _, _, _, alpha = problem(best_library())
    targets, f = draw(150, 3, seed=8), values_at(block, values, pending)
    every = IndexedRows(block.code, block.matrix)
    for given in (
        (every, f, targets, alpha, 0.0),
        (block, f.float(), targets, alpha, 0.0),
        (block, f.contiguous(), targets, alpha, 0.0),
        (block, f[:, :2], targets, alpha, 0.0),
        (block, values_at(block, values, pending)[1:], targets, alpha, 0.0),
        (block, f, targets.double(), alpha, 0.0),
        (block, f, targets.T.contiguous().T, alpha, 0.0),
        (block, f, targets[1:], alpha, 0.0),
        (block, f, targets, alpha[1:], 0.0),
        (block, f, targets, alpha.float(), 0.0),
    ):
        assert residual_at(*given) is None


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_a_run_with_and_without_the_compiled_residual(monkeypatch, ridge):
    best_library()
    x, y = draw(200, 6), draw(200, 2, seed=1)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("kl.eigenpro.iteration.residual_at", lambda *_: None)
        run = EigenProRun(Gaussian(2.0), x, y, subsample=50, ridge=ridge, memory="1GB")
        for _ in range(2):
            for rows in run.batches():
                run.step(rows)
            run.end_epoch()
        found.append((run.alpha, run.fitted_values(), *run.last_batch))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ["weights", "targets"])
def test_residuals_that_compiled_code_does_not_compute(case):
    """Ridges of rows and targets of a step, beside K kept and float32, for which there is compiled code."""
    best_library()
    x, y, w = draw(200, 6), draw(200, 2, seed=1), torch.linspace(0.5, 2, 200)
    run = EigenProRun(
        Gaussian(2.0), x, y, subsample=200, ridge=1.0, memory="1GB", weights=w if case == "weights" else None
    )
    rows = torch.arange(0, 200, 3)[: run.plan.batch_size]
    run.step(rows, None if case == "weights" else 0 * y[rows])
    wanted = -run.step_size / run.plan.batch_size * (0 if case == "targets" else -y[rows].double())
    assert len(run.fitted.matrix.kept) == 200
    if case == "targets":
        assert not run.alpha.any()  # f = 0 meets them
        return
    for _ in range(60):
        for batch in run.batches():
            run.step(batch)
        run.end_epoch()
    k = Gaussian(2.0)(x.double(), x.double())
    wanted = torch.linalg.solve(k + torch.diag(1 / w.double()), y.double())
    torch.testing.assert_close(run.in_data_order(run.alpha), wanted, atol=1e-3, rtol=1e-3)


def test_what_is_left_to_torch():
    code = best_library()
    block, values, pending, vectors, damping, residual, alpha = problem(code)
    for other in ((values.float(), pending), (values.contiguous(), pending), (values[1:], pending)):
        assert values_at(block, *other) is None
    every = IndexedRows(code, block.matrix)
    for other in ((block, pending[1:]), (block, pending[:, :2]), (every, pending)):
        assert values_at(other[0], values, other[1]) is None
    before = alpha.clone()
    assert update_weights(every, vectors, damping, draw(150, 3), 1.0, alpha) is None
    for given in (
        (vectors, damping, residual, 1.0, alpha.float()),
        (vectors, damping, residual, 1.0, alpha.T.contiguous().T),
        (vectors, damping, residual, 1.0, alpha[1:]),
        (vectors[1:], damping, residual, 1.0, alpha),
        (vectors, damping[1:], residual, 1.0, alpha),
        (vectors, damping, residual[1:], 1.0, alpha),
        (vectors, damping, residual[:, :2], 1.0, alpha),
        (vectors.double(), damping, residual, 1.0, alpha),
        (vectors.contiguous(), damping, residual, 1.0, alpha),
    ):
        assert update_weights(block, *given) is None
    assert torch.equal(alpha, before)


def test_a_step_with_and_without_compiled_code(monkeypatch):
    """The optimizer and the fitted values take the same step; sums of other orders may differ in the last bits."""
    code = best_library()
    block, values, pending, vectors, damping, residual, alpha = problem(code)
    batch, found = Batch(block.index, Ranks()), []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("kl.eigenpro.optimizer.update_weights", lambda *_: None)
            monkeypatch.setattr("kl.eigenpro.fitted.values_at", lambda *_: None)
        weights = torch.nn.Parameter(alpha.clone())
        step = EigenPro(weights, Preconditioner(vectors, damping), lr=2.0, batch_size=50)
        fitted = FittedValues(len(values), len(pending), 3)
        fitted.values, fitted.pending = values, pending
        update = step.step(batch=batch, residual=residual, block=block)
        found.append((weights.detach(), *update, fitted.at(block.index, block)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
