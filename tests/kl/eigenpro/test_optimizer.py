"""The optimizer: one step against the oracle, plain SGD, fixed points, and the edge of stability."""

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.preconditioner import Preconditioner, make_preconditioner
from kl.eigenpro.spectrum import nystrom_eigensystem
from kl.kernels import Gaussian, Laplacian
from kl.products.kept import KernelMatrix
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N, S, C = 30, 12, 2
KERNEL = Laplacian(1.5)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, 4, generator=generator).double()
    y = torch.randn(N, C, generator=generator).double()
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=1.5)
    return x, y, K


def optimizer(x, q, lr, batch_size, alpha=None, s=S):
    alpha = torch.nn.Parameter(torch.zeros(len(x), C, dtype=torch.float64) if alpha is None else alpha.clone())
    precond = make_preconditioner(nystrom_eigensystem(KERNEL, Rows.of(x[:s])), q, torch.float64)
    return EigenPro(alpha, precond, lr=lr, batch_size=batch_size), alpha


@pytest.mark.parametrize("q", [0, 1, 5, S])
@pytest.mark.parametrize("batch", [[20, 25, 13], [2, 20, 11, 0], list(range(N))])
def test_a_step_equals_the_oracle(data, q, batch):
    x, y, K = data
    start = torch.randn(N, C, generator=torch.Generator().manual_seed(0)).double()
    opt, alpha = optimizer(x, q, 0.7, len(batch), start)
    rows = torch.tensor(batch)
    residual = torch.from_numpy(K)[rows] @ start - y[rows]
    update = opt.step(batch=Batch(rows, Ranks()), residual=residual, block=torch.from_numpy(K[batch][:, :S]))
    wanted = oracle.naive_eigenpro_step(K, start.numpy(), y.numpy(), batch, list(range(S)), q, 0.7)
    np.testing.assert_allclose(alpha.detach(), wanted, atol=1e-11)
    assert update.batch.shape == (len(batch), C)
    assert update.subsample.shape == (S, C)
    moved = start.clone().index_add_(0, rows, update.batch)
    moved[:S] += update.subsample
    np.testing.assert_allclose(alpha.detach(), moved, atol=1e-14)


def test_without_damping_it_is_plain_sgd(data):
    x, y, K = data
    opt, alpha = optimizer(x, 0, 0.9, 10)
    plain = np.zeros((N, C))
    for step in range(9):
        batch = [(10 * step + i) % N for i in range(10)]
        rows = torch.tensor(batch)
        residual = torch.from_numpy(K)[rows] @ alpha.detach() - y[rows]
        opt.step(batch=Batch(rows, Ranks()), residual=residual, block=torch.from_numpy(K[batch][:, :S]))
        plain[batch] -= 0.9 / 10 * (K[batch] @ plain - y.numpy()[batch])
    np.testing.assert_allclose(alpha.detach(), plain, atol=1e-13)


def test_a_smaller_batch_keeps_the_weight_of_a_row(data):
    x, y, K = data
    opt, alpha = optimizer(x, 0, 0.6, 10)
    rows = torch.tensor([4, 9])
    opt.step(batch=Batch(rows, Ranks()), residual=-y[rows], block=torch.from_numpy(K[[4, 9]][:, :S]))
    np.testing.assert_allclose(alpha.detach()[rows], 0.06 * y[rows], atol=1e-15)
    opt, alpha = optimizer(x, 0, 0.6, 1)  # a larger one than planned for must not take a larger step
    opt.step(batch=Batch(rows, Ranks()), residual=-y[rows], block=torch.from_numpy(K[[4, 9]][:, :S]))
    np.testing.assert_allclose(alpha.detach()[rows], 0.3 * y[rows], atol=1e-15)


def test_it_is_a_torch_optimizer(data):
    x, y, K = data
    opt, alpha = optimizer(x, 3, 0.5, 2)
    assert isinstance(opt, torch.optim.Optimizer)
    assert opt.param_groups[0]["lr"] == opt.step_size == 0.5
    assert opt.param_groups[0]["params"] == [alpha]
    opt.step_size = 0.25
    assert opt.param_groups[0]["lr"] == 0.25
    called = []
    rows = torch.tensor([0, 1])
    arguments = {"batch": Batch(rows, Ranks()), "residual": -y[rows], "block": torch.from_numpy(K[:2, :S])}
    opt.step(lambda: called.append(torch.is_grad_enabled()), **arguments)
    assert called == [True]
    other, _ = optimizer(x, 3, 0.5, 2)
    other.load_state_dict(opt.state_dict())
    assert other.step_size == 0.25
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    opt.step(**arguments)
    scheduler.step()
    assert opt.step_size == 0.125


def train(x, y, K, q, eta, m, epochs, s=S):
    opt, alpha = optimizer(x, q, eta, m, s=s)
    K, order = torch.from_numpy(K), np.random.default_rng(0)
    for _ in range(epochs):
        for rows in torch.from_numpy(order.permutation(N)).split(m):
            opt.step(batch=Batch(rows, Ranks()), residual=K[rows] @ alpha.detach() - y[rows], block=K[rows][:, :s])
            if not torch.isfinite(alpha).all() or float(alpha.detach().abs().max()) > 1e12:
                return None
    return alpha.detach()


@pytest.mark.parametrize("q", [0, 2, 6])
def test_the_fixed_point_does_not_depend_on_q(data, q):
    x, y, K = data
    K_P = oracle.naive_preconditioned_kernel(K, list(range(S)), q)
    alpha = train(x, y, K, q, 0.9 * oracle.naive_step_size(K_P, 6), 6, epochs=300)
    np.testing.assert_allclose(alpha, kl.interpolate(KERNEL, x, y).alpha, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(alpha, oracle.naive_interpolate(K, y.numpy()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("q", [0, 4])
def test_the_edge_of_stability(data, q):
    """With whole-set batches and s = n the edge 2 n / (n lambda_1) is exact: beyond it training diverges."""
    x, y, K = data
    top = float(np.linalg.eigvalsh(oracle.naive_preconditioned_kernel(K, list(range(N)), q))[-1] / N)
    edge = 2 / top
    below = train(x, y, K, q, 0.95 * edge, N, epochs=300, s=N)
    error = float((torch.from_numpy(K) @ below - y).norm() / y.norm())
    assert error < 0.2
    assert train(x, y, K, q, 1.1 * edge, N, epochs=500, s=N) is None
    m = 6
    K_P = oracle.naive_preconditioned_kernel(K, list(range(N)), q)
    assert train(x, y, K, q, oracle.naive_step_size(K_P, m), m, epochs=100, s=N) is not None
    assert train(x, y, K, q, 2.2 * 2 * m / (1 + (m - 1) * top), m, epochs=300, s=N) is None


def test_damping_speeds_up_training(data):
    x, errors = data[0], {}
    K = Gaussian(2.0)(x).numpy()
    y = torch.from_numpy(K) @ data[1]  # smooth, so that there is much to learn in the damped directions and beside
    for q in (0, 4):
        system = nystrom_eigensystem(Gaussian(2.0), Rows.of(x))
        precond = make_preconditioner(system, q, torch.float64)
        alpha = torch.nn.Parameter(torch.zeros(N, C, dtype=torch.float64))
        K_P = oracle.naive_preconditioned_kernel(K, list(range(N)), q)
        opt = EigenPro(alpha, precond, lr=oracle.naive_step_size(K_P, N), batch_size=N)
        rows, matrix = torch.arange(N), torch.from_numpy(K)
        for _ in range(40):
            opt.step(batch=Batch(rows, Ranks()), residual=matrix @ alpha.detach() - y, block=matrix)
        errors[q] = float((matrix @ alpha.detach() - y).norm())
    assert errors[4] < 0.7 * errors[0]


def test_fitted_values_follow_the_optimizer_in_float64(data):
    x, y, K = data
    fitted = FittedValues(N, S, C)
    opt, alpha = optimizer(x, 4, 2.0, 7)
    centers = Rows.of(x)
    fitted.attach(KernelMatrix(KERNEL, centers), centers[:S], None)
    for step in range(40):
        rows = (torch.arange(7) * 4 + step) % N
        block = fitted.block(rows)
        before = fitted.at(rows, block)
        np.testing.assert_allclose(before, K[rows] @ alpha.detach().numpy(), atol=1e-10)
        update = opt.step(batch=Batch(rows, Ranks()), residual=before - y[rows], block=block)
        fitted.advance(Batch(rows, Ranks()), update)
        fitted.weights_changed(alpha.detach())
        fitted.settle()
        norm = oracle.naive_rkhs_norm(K, alpha.detach().numpy())
        assert float(fitted.sq_norm.sum().sqrt()) == pytest.approx(norm, rel=1e-11)


def test_a_step_needs_its_batch():
    alpha = torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
    sgd = EigenPro(alpha, Preconditioner(torch.zeros(1, 0), torch.zeros(0)), lr=1.0, batch_size=2)
    with pytest.raises(TypeError, match="step needs batch, residual and block"):
        sgd.step(batch=Batch(torch.arange(2), Ranks()))
