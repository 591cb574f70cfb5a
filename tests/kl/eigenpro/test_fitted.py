"""The carried fitted values and RKHS norm against their definitions, and the functions of kl.rkhs."""

import math

import numpy as np
import oracle
import pytest
import torch
from user_kernels import ManhattanLaplacian

import kl
from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.preconditioner import make_preconditioner
from kl.eigenpro.spectrum import nystrom_eigensystem
from kl.kernels import Gaussian, Laplacian, ReluNTK
from kl.products.blocks import kernel_matrix
from kl.products.kept import KernelMatrix
from kl.rkhs import inner_product_per_class
from kl.rows.rows import Rows

pytestmark = pytest.mark.numeric

N, C = 90, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(kernel, s, q, steps=500, m=16, keep=True, kept_rows=0):
    """EigenPro on float32 features with uneven batches; returns fitted, alpha and K in float64."""
    x, y = draw(N, 6), draw(N, C, seed=1)
    rows = Rows.of(x)
    columns = kernel_matrix(kernel, rows, rows[:s], torch.arange(N)) if keep else None
    precond = make_preconditioner(nystrom_eigensystem(kernel, rows[:s]), q)
    K = kernel(x.double()).numpy()
    K_P = oracle.naive_preconditioned_kernel(K, list(range(s)), q)
    alpha = torch.nn.Parameter(torch.zeros(N, C, dtype=torch.float64))
    opt = EigenPro(alpha, precond, lr=0.5 * oracle.naive_step_size(K_P, m), batch_size=m)
    fitted = FittedValues(N, s, C)
    fitted.attach(KernelMatrix(kernel, rows), rows[:s], columns)
    if kept_rows:
        fitted.keep_rows(kept_rows)
    generator, done = torch.Generator().manual_seed(2), 0
    while done < steps:
        for batch in torch.randperm(N, generator=generator).split(m):  # the last has 10 rows
            block = fitted.block(batch)
            before = fitted.at(batch, block)
            update = opt.step(batch=Batch(batch, Ranks()), residual=before - y[batch], block=block)
            fitted.advance(Batch(batch, Ranks()), update)
            fitted.weights_changed(alpha.detach())
            done += 1
        if done % 2:
            fitted.flush()
    return fitted, alpha.detach(), K


@pytest.mark.parametrize(
    ("s", "q", "keep", "kept_rows", "steps"),
    [
        (30, 5, True, 0, 500),
        (30, 5, False, 0, 500),
        (30, 0, False, 0, 60),
        (N, 8, True, 0, 500),
        (N, 8, False, 0, 60),
        (1, 0, True, 0, 60),
        (30, 5, True, 20, 200),  # fewer rows than the subsample has
        (30, 5, False, 60, 200),
        (30, 5, True, N, 500),
        (30, 5, False, N, 200),
    ],
)
def test_values_and_norm_are_exact_after_many_steps(s, q, keep, kept_rows, steps):
    fitted, alpha, K = run(Laplacian(4.0), s, q, steps=steps, keep=keep, kept_rows=kept_rows)
    assert len(fitted.matrix.kept) == kept_rows
    direct = K @ alpha.numpy()
    per_class = (alpha.numpy() * direct).sum(axis=0)
    fitted.settle()  # in the middle of an epoch, with pending weights
    np.testing.assert_allclose(fitted.sq_norm, per_class, rtol=1e-5)
    np.testing.assert_allclose(fitted.flush(), direct, atol=1e-5 * np.abs(direct).max())
    np.testing.assert_allclose(fitted.sq_norm, per_class, rtol=1e-5)
    fitted._alpha = alpha  # the same norm from the flushed values
    fitted.settle()
    np.testing.assert_allclose(fitted.sq_norm, per_class, rtol=1e-5)


@pytest.mark.parametrize("kernel", [Gaussian(3.0), ReluNTK(3, 0.1), ManhattanLaplacian(4.0)])
def test_other_kernels(kernel):
    fitted, alpha, K = run(kernel, 30, 5, steps=200)
    direct = K @ alpha.numpy()
    np.testing.assert_allclose(fitted.flush(), direct, atol=2e-5 * np.abs(direct).max())
    # Weights of a smooth kernel are large with alternating signs: float32 kernel values lose what cancels.
    np.testing.assert_allclose(fitted.sq_norm, (alpha.numpy() * direct).sum(axis=0), rtol=5e-5)


def test_flushing_twice_changes_nothing_and_at_agrees():
    fitted, _, _ = run(Laplacian(4.0), 30, 5, steps=11)
    assert fitted.pending.any()
    rows = torch.tensor([40, 3, 77])
    before, unread = fitted.at(rows, fitted.block(rows)), run(Laplacian(4.0), 30, 5, steps=11)[0]
    fitted.settle()
    norm, first = fitted.sq_norm.clone(), fitted.flush().clone()
    unread.flush()
    torch.testing.assert_close(unread.sq_norm, norm, rtol=1e-5, atol=0)
    assert not fitted.pending.any()
    torch.testing.assert_close(first[rows], before, atol=1e-5, rtol=1e-5)
    assert torch.equal(fitted.flush(), first)
    assert torch.equal(fitted.sq_norm, norm)


def test_a_snapshot_is_a_copy_that_restores():
    fitted, _, _ = run(Laplacian(4.0), 30, 5, steps=11)
    snapshot = fitted.snapshot()
    kept = {name: value.clone() for name, value in snapshot.items()}
    fitted.flush()
    fitted.values += 1
    fitted.sq_norm *= 2
    assert all(torch.equal(snapshot[name], kept[name]) for name in kept)
    fitted.load_state_dict(snapshot)
    assert torch.equal(fitted.pending, kept["pending"])
    assert torch.equal(fitted.values, kept["values"])
    assert torch.equal(fitted.sq_norm, kept["sq_norm"])


@pytest.fixture(scope="module")
def expansions():
    x, z = draw(9, 3), draw(7, 3, seed=1)
    return x, draw(9, 2, seed=2).double(), z, draw(7, 2, seed=3).double()


@pytest.mark.parametrize(("kernel", "function"), [(Gaussian(2.0), oracle.gaussian), (Laplacian(2.0), oracle.laplacian)])
def test_norms_products_and_distances_equal_the_oracle(expansions, kernel, function):
    x, alpha, z, gamma = expansions

    def matrix(a, b):
        return oracle.matrix(function, a.numpy(), b.numpy(), bandwidth=2.0)

    points = torch.cat([x, z])
    both = np.vstack([alpha, -gamma])
    wanted = oracle.naive_rkhs_norm(matrix(points, points), both)
    product = math.fsum((alpha.numpy() * (matrix(x, z) @ gamma.numpy())).ravel())
    norm = oracle.naive_rkhs_norm(matrix(x, x), alpha.numpy())
    assert kl.inner_product(kernel, x, alpha, z, gamma) == pytest.approx(product, rel=1e-5)
    assert kl.inner_product(kernel, z, gamma, x, alpha) == pytest.approx(product, rel=1e-5)
    assert kl.rkhs_norm(kernel, x, alpha) == pytest.approx(norm, rel=1e-5)
    assert kl.rkhs_distance(kernel, x, alpha, z, gamma) == pytest.approx(wanted, rel=1e-5)
    per_class = kl.rkhs_norm_per_class(kernel, x, alpha)
    assert per_class.shape == (2,)
    for k in range(2):
        one = oracle.naive_rkhs_norm(matrix(x, x), alpha[:, k : k + 1].numpy())
        assert float(per_class[k]) == pytest.approx(one, rel=1e-5)
    assert float(per_class.norm()) == pytest.approx(norm, rel=1e-5)
    assert inner_product_per_class(kernel, x, alpha, z, gamma).dtype == torch.float64


def test_a_copy_of_the_rows_counts_as_the_same_rows():
    """At this scale float32 distances of a row to its copy round far above 0."""
    kernel, x, alpha = Laplacian(1.0), 100 * draw(9, 3), torch.ones(9, 1)
    assert kl.inner_product(kernel, x, alpha, x.clone(), alpha) == kl.inner_product(kernel, x, alpha, x, alpha)
    assert kl.rkhs_distance(kernel, x, alpha, x.clone(), alpha) == 0
    nearly = alpha + 1e-6
    wanted = kl.rkhs_norm(kernel, x, nearly - alpha)
    assert kl.rkhs_distance(kernel, x, nearly, x.clone(), alpha) == pytest.approx(wanted)


def test_the_norm_bounds_the_function(expansions):
    """Cauchy-Schwarz: |f(x)| <= |f|_H sqrt(K(x, x))."""
    x, alpha, z, _ = expansions
    for kernel in (Gaussian(1.0), ReluNTK(3, 0.2), ManhattanLaplacian(1.0)):
        norms = kl.rkhs_norm_per_class(kernel, x, alpha)
        ratio = (kernel(z, x).double() @ alpha).abs() / kernel.diag(z).double().sqrt()[:, None]
        assert bool((ratio <= norms * (1 + 1e-6)).all())
    one = torch.zeros(9, 1)
    one[4] = 2.0
    assert kl.rkhs_norm(Gaussian(1.0), x, one) == 2.0


def test_wrong_expansions_are_refused(expansions):
    x, alpha, z, gamma = expansions
    kernel = Gaussian(1.0)
    with pytest.raises(kl.InputError, match="alpha must have one row per row of x; got 8 and 9"):
        kl.rkhs_norm(kernel, x, alpha[:8])
    with pytest.raises(kl.InputError, match="gamma must have one row per row of z; got 6 and 7"):
        kl.inner_product(kernel, x, alpha, z, gamma[:6])
    with pytest.raises(kl.InputError, match="must share features and outputs; got 3 and 2 features"):
        kl.inner_product(kernel, x, alpha, z[:, :2], gamma)
    for rows, weights in ((z, gamma[:, :1]), (x, alpha[:, :1])):  # also where the rows are the same
        with pytest.raises(kl.InputError, match="2 and 1 outputs"):
            kl.rkhs_distance(kernel, x, alpha, rows, weights)
    with pytest.raises(kl.InputError, match=r"share a dtype; got torch.float32 and torch.float64"):
        kl.inner_product(kernel, x, alpha, z.double(), gamma)
    with pytest.raises(kl.InputError, match="alpha must be finite; row 0"):
        kl.rkhs_norm(kernel, x, alpha / 0)
    with pytest.raises(kl.InputError, match='bandwidth is still "auto"'):
        kl.rkhs_norm(Gaussian(), x, alpha)
