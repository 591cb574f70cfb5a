"""The Nystrom eigensystem, the preconditioner, and the rules that choose s, q, m and eta."""

import logging
import math

import numpy as np
import oracle
import pytest
import torch

from kl.eigenpro.options import EigenProOptions, at_most, default_subsample
from kl.eigenpro.plan import memory_batch_size, plan_eigenpro
from kl.eigenpro.preconditioner import damping_weights, make_preconditioner
from kl.eigenpro.rules import STEP_MARGIN, critical_batch_size, default_batch_size, optimal_step_size
from kl.eigenpro.spectrum import nystrom_eigensystem
from kl.eigenpro.top_q import rank_candidates
from kl.errors import InputError
from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNTK
from kl.rows.rows import Rows
from kl.system.memory import format_memory, free_memory, parse_memory, peak_memory

pytestmark = pytest.mark.numeric

N, S = 60, 40


@pytest.fixture(scope="module")
def x():
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def K(x):  # noqa: N802
    return oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=4.0)


@pytest.fixture(scope="module")
def system(x):
    return nystrom_eigensystem(Laplacian(4.0), Rows.of(x[:S]))


def plan(x, kernel=None, memory=10**9, subsample=S, **options):
    rows, kernel = Rows.of(x), kernel or Laplacian(4.0)
    asked = EigenProOptions.parse(subsample=subsample, **options)
    return plan_eigenpro(kernel, rows, len(rows), 1, memory, asked)


def test_eigensystem_equals_numpy(system, K):
    values, vectors = np.linalg.eigh(K[:S, :S] / S)
    np.testing.assert_allclose(system.eigenvalues, values[::-1], atol=1e-13)
    overlap = np.abs((system.eigenvectors.numpy() * vectors[:, ::-1]).sum(axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)
    assert system.eigenvalues.dtype == torch.float64


def test_eigenvalues_of_a_singular_matrix_are_not_negative(x):
    eigenvalues = nystrom_eigensystem(Polynomial(1, 0.0), Rows.of(x[:S].float())).eigenvalues
    assert float(eigenvalues.min()) >= 0
    assert float(eigenvalues[5:].max()) < 1e-13


@pytest.mark.parametrize("damping", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("q", [0, 1, 7])
def test_damping_weights_follow_the_formula(system, q, damping):
    weights = damping_weights(system.eigenvalues, q, damping)
    np.testing.assert_allclose(weights, oracle.naive_damping(system.eigenvalues.numpy(), q, damping), rtol=1e-12)
    if q:
        assert float(weights[-1]) == 0


@pytest.mark.parametrize("q", [0, 1, 5, S])
def test_preconditioner_equals_the_dense_oracle(system, K, q):
    precond = make_preconditioner(system, q, torch.float64)
    assert precond.top_q == q
    rows, g = [50, 3, 17], np.array([[1.0, 2.0], [-1.0, 0.5], [3.0, 0.0]])
    block = torch.from_numpy(K[rows][:, :S])
    got = (precond.vectors @ precond.coefficients(block, torch.from_numpy(g))).numpy()
    _, E = oracle.naive_eigensystem(K[:S, :S], q)
    D = np.diag(oracle.naive_damping(np.linalg.eigvalsh(K[:S, :S] / S)[::-1], q)) if q else np.zeros((0, 0))
    np.testing.assert_allclose(got, E @ D @ E.T @ K[:S, rows] @ g, atol=1e-10)
    K_P = oracle.naive_preconditioned_kernel(K, list(range(S)), q)
    damped = precond.damped_diagonal(torch.ones(N, dtype=torch.float64), torch.from_numpy(K[:, :S]))
    np.testing.assert_allclose(damped, np.diag(K_P), atol=1e-10)
    top = precond.largest_eigenvalue(torch.from_numpy(K), torch.from_numpy(K[:, :S].copy()), iterations=2000)
    assert top == pytest.approx(np.linalg.eigvalsh(K_P)[-1] / N, rel=1e-6)
    fifty = precond.largest_eigenvalue(torch.from_numpy(K), torch.from_numpy(K[:, :S].copy()))
    assert 0.9 * top < fifty <= top * (1 + 1e-9)


def test_largest_eigenvalue_of_nothing_is_zero():
    system = nystrom_eigensystem(Gaussian(1.0), Rows.of(torch.ones(1, 2)))
    precond = make_preconditioner(system, 1)
    assert precond.largest_eigenvalue(torch.zeros(3, 3), torch.zeros(3, 1)) == 0


def test_batch_and_step_rules():
    assert critical_batch_size(1.0, 0.1) == 11
    assert critical_batch_size(1.0, 0.0) == 2**31
    assert critical_batch_size(0.5, 1.0) == 1
    # m_G: (d + c + m) n numbers of 4 bytes
    assert memory_batch_size(1000, 50, 10, memory=4 * 1000 * (50 + 10 + 123), itemsize=4) == 123
    assert memory_batch_size(1000, 50, 10, memory=10, itemsize=4) == 1
    assert memory_batch_size(1000, 50, 10, memory=10**12, itemsize=8) == 1000
    assert default_batch_size(100, 64, parallel=True) == 64
    assert default_batch_size(100, 640, parallel=True) == 96
    assert default_batch_size(100, 640, parallel=False) == 48
    assert default_batch_size(1, 1, parallel=False) == 1
    assert default_batch_size(3, 640, parallel=False) == 32
    assert [default_subsample(n) for n in (1, 2000, 10**5, 10**5 + 1)] == [1, 2000, 2000, 5000]


def test_step_size_in_both_regimes(K):
    beta, top = 1.0, float(np.linalg.eigvalsh(K)[-1] / N)
    critical = oracle.naive_critical_batch(K)
    for m in range(1, 3 * math.ceil(critical)):
        exact = oracle.naive_step_size(K, m)
        got = optimal_step_size(m, beta, top, margin=1.0)
        assert got == pytest.approx(exact, rel=1e-12)
        assert optimal_step_size(m, beta, top) <= STEP_MARGIN * 2 * m / (beta + (m - 1) * top) * (1 + 1e-12)
    assert optimal_step_size(1, beta, top) == 1 / beta
    # continuous where the regimes meet, although m is whole elsewhere
    below, above = optimal_step_size(critical - 1e-9, beta, top), optimal_step_size(critical + 1e-9, beta, top)
    assert below == pytest.approx(above, rel=1e-8)


@pytest.mark.parametrize("kernel", [Laplacian(4.0), ReluNTK(3), Polynomial(2, 1.0)])
def test_top_q_is_the_largest_whose_critical_batch_fits(x, kernel):
    """Against K_P formed for every q; lambda_1(K_P) is the one of the subsample, as in the paper."""
    K = kernel(x).numpy()
    system = nystrom_eigensystem(kernel, Rows.of(x[:S]))
    values = system.eigenvalues.numpy()
    critical = []
    for q in range(1, S // 8 + 1):
        K_P = oracle.naive_preconditioned_kernel(K, list(range(S)), q)
        top = np.linalg.eigvalsh(K_P[:S, :S])[-1] / S
        assert top == pytest.approx(values[0] ** 0.05 * values[q - 1] ** 0.95, rel=1e-6)
        critical.append(max(np.diag(K_P)) / top + 1)
    for batch in (1, 2, 3, 5, 8, 12, 20, 60):
        fits = [q for q, m in enumerate(critical, 1) if m <= batch]
        got = rank_candidates(system, kernel.diag(x), torch.from_numpy(K[:, :S])).largest_for(batch)
        wanted = fits[-1] if fits else 0
        if fits and wanted < len(critical) and critical[wanted - 1] < batch / 2:
            wanted += 1  # a gap
        assert got == wanted, (batch, critical)


def test_the_plan_hangs_together(x):
    chosen, precond, eigenvalues = plan(x)
    assert precond.top_q == chosen.top_q
    assert len(eigenvalues) == chosen.subsample == S
    assert chosen.lambda_1_damped == max(chosen.lambda_1_subsample, chosen.lambda_1_check)
    assert chosen.critical_batch_size == critical_batch_size(chosen.beta, chosen.lambda_1_damped)
    assert chosen.step_size == optimal_step_size(chosen.batch_size, chosen.beta, chosen.lambda_1_damped)
    assert chosen.memory_batch_size == N


def test_explicit_values_are_kept(x):
    chosen, precond, _ = plan(x, top_q=3, batch_size=7, step_size=0.25)
    assert (chosen.top_q, chosen.batch_size, chosen.step_size) == (3, 7, 0.25)
    assert precond.vectors.shape == (S, 3)
    chosen, precond, _ = plan(x, top_q=0)
    assert precond.vectors.shape == (S, 0)
    assert chosen.beta == pytest.approx(1.0)
    assert plan(x, memory=4 * N * (x.data.shape[1] + 10 + 1))[0].batch_size <= 10
    assert plan(x[:1], subsample=1)[0].batch_size == 1


@pytest.mark.parametrize(("name", "limit"), [("top_q", S), ("batch_size", N)])
def test_too_large_values_are_clipped_with_a_message(x, name, limit, caplog):
    row = {"top_q": "subsample row", "batch_size": "training row"}[name]
    with caplog.at_level(logging.WARNING):
        chosen = plan(x, **{name: 1000})[0]
    assert getattr(chosen, name) == limit
    assert f"{name} 1000 is more than the {limit} {row}s; using {limit}" in caplog.text


def test_a_message_of_one_row(caplog):
    assert at_most("batch_size", 2, 1, "training row") == 1
    assert "batch_size 2 is more than the 1 training row; using 1" in caplog.text


@pytest.mark.parametrize("value", [-1, True, 1.5, "many"])
@pytest.mark.parametrize("name", ["top_q", "batch_size"])
def test_wrong_values_are_refused(x, name, value):
    with pytest.raises(InputError, match=f"{name} must be auto or an integer of at least"):
        plan(x, **{name: value})


@pytest.mark.parametrize("value", [0, -1.0, True, math.nan, "fast"])
def test_wrong_step_sizes_are_refused(x, value):
    with pytest.raises(InputError, match='step_size must be a finite number above 0 or "auto"'):
        plan(x, step_size=value)


def test_zero_is_a_rank_but_no_batch(x):
    assert EigenProOptions.parse(top_q=0).top_q == 0
    with pytest.raises(InputError, match="batch_size must be auto or an integer of at least 1; got 0"):
        plan(x, batch_size=0)


def test_directions_that_the_subsample_does_not_resolve_are_not_damped(x, caplog):
    chosen, precond, _ = plan(x.float(), Polynomial(1, 0.0), top_q=30)
    assert chosen.top_q == 5  # rank d
    assert "top_q 30 is more than the subsample resolves; using 5" in caplog.text
    assert float(precond.weights.max()) < 1e3


def test_kernels_that_are_zero_or_overflow(x):
    with pytest.raises(InputError, match=r"Polynomial.* is zero on every training row"):
        plan(torch.zeros(9, 2), Polynomial(2, 0.0), subsample=4)
    with pytest.raises(InputError, match=r"ReluNTK.* is not finite on the training rows.* rescale the features"):
        plan(1e12 * x.float(), ReluNTK(3))
    with pytest.raises(InputError, match=r"Polynomial.* is not finite on the training rows"):
        plan(1e15 * x.float(), Polynomial(3, 0.0))
    half = torch.cat([torch.zeros(4, 5), x[:4].float()])  # the subsample sees only zeros
    chosen = plan(half, Polynomial(1, 0.0), subsample=4)[0]
    assert chosen.top_q == 0
    assert math.isfinite(chosen.step_size)


def test_memory_is_read_as_users_write_it():
    assert [parse_memory(text) for text in ("10KB", "400 MB", "1.5gb", 7, "12")] == [
        10**4,
        4 * 10**8,
        15 * 10**8,
        7,
        12,
    ]
    assert 0 < parse_memory("auto") <= free_memory()
    assert peak_memory() > 10**7
    for text in ("0", "-1GB", "lots", "3 XB", 0, None):
        with pytest.raises(InputError, match="memory must be auto, a number of bytes"):
            parse_memory(text)
    assert [format_memory(size) for size in (72, 1500, 2 * 10**6, 1.3e9, 5e13)] == [
        "72 B",
        "1.5 KB",
        "2 MB",
        "1.3 GB",
        "5e+04 GB",
    ]
