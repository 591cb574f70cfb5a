"""Residuals of left-out rows against n refits in float64, on matrices of full and low rank."""

import numpy as np
import pytest
import torch

from kl.tuning.factor import Factor
from kl.tuning.spectrum import Spectrum

pytestmark = pytest.mark.numeric
N, C = 24, 3
FOLDS = [list(range(i, N, 5)) for i in range(5)]


def gram(rank=None, seed=0):
    """A positive semi-definite matrix of this rank; None is full."""
    factor = np.random.default_rng(seed).standard_normal((N, rank or N + 4))
    return factor @ factor.T


def targets(seed=1):
    return np.random.default_rng(seed).standard_normal((N, C))


def refits(K, Y, ridge, folds):
    """y - f(x) at the rows of each fold, f solved on the other rows: with ridge 0 the least squares of least norm."""
    out = np.empty_like(Y)
    for fold in folds:
        rest = [i for i in range(len(Y)) if i not in fold]
        G = K[np.ix_(rest, rest)] + ridge * np.eye(len(rest))
        alpha = np.linalg.solve(G, Y[rest]) if ridge else np.linalg.pinv(G, rcond=1e-11, hermitian=True) @ Y[rest]
        out[fold] = Y[fold] - K[np.ix_(fold, rest)] @ alpha
    return out


def tensors(folds):
    return None if folds is None else [torch.tensor(fold) for fold in folds]


@pytest.mark.parametrize("folds", [None, FOLDS])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-2, 3.0])
@pytest.mark.parametrize("rank", [None, 5, N - 1, 1])
def test_left_out_rows_are_those_of_refits(rank, ridge, folds):
    K, Y = gram(rank), targets()
    found = Spectrum.of(torch.from_numpy(K), torch.from_numpy(Y)).left_out(ridge, tensors(folds))
    wanted = refits(K, Y, ridge, folds or [[i] for i in range(N)])
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=1e-7 * scale if rank and 0 < ridge < 1e-3 else 1e-9 * scale)


@pytest.mark.parametrize("folds", [None, FOLDS])
def test_a_row_outside_the_span_of_the_others_in_a_matrix_of_low_rank(folds):
    """P_ii = 0 for row 0, because its direction is alone; all other rows share a space of dimension 4."""
    K, Y = gram(4), targets()
    K[0], K[:, 0] = 0, 0
    K[0, 0] = 2.0
    found = Spectrum.of(torch.from_numpy(K), torch.from_numpy(Y)).left_out(0.0, tensors(folds))
    np.testing.assert_allclose(found, refits(K, Y, 0.0, folds or [[i] for i in range(N)]), atol=1e-9)
    np.testing.assert_allclose(found[0], Y[0])


def test_a_zero_matrix_leaves_the_targets():
    Y = targets()
    spectrum = Spectrum.of(torch.zeros(N, N, dtype=torch.float64), torch.from_numpy(Y))
    for folds in (None, tensors(FOLDS)):
        np.testing.assert_allclose(spectrum.left_out(0.0, folds), Y)
    assert spectrum.sq_norm(0.0) == 0


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 2.0])
@pytest.mark.parametrize("rank", [None, 5])
def test_weights_and_norm(rank, ridge):
    K, Y = gram(rank), targets()
    spectrum = Spectrum.of(torch.from_numpy(K), torch.from_numpy(Y))
    alpha = np.linalg.pinv(K + ridge * np.eye(N), rcond=1e-11, hermitian=True) @ Y
    np.testing.assert_allclose(K @ spectrum.weights(ridge).numpy(), K @ alpha, atol=1e-9)
    # The oracle's weights are up to 1/ridge in the null space, where K is rounding error.
    assert spectrum.sq_norm(ridge) == pytest.approx(np.trace(alpha.T @ K @ alpha), rel=1e-7)


@pytest.mark.parametrize("folds", [None, FOLDS])
@pytest.mark.parametrize("ridge", [0.0, 1e-2, 3.0])
def test_a_factor_finds_the_same(monkeypatch, ridge, folds):
    monkeypatch.setattr("kl.tuning.factor.COLUMNS", 7)  # several parts, the last one smaller
    K, Y = torch.from_numpy(gram()), torch.from_numpy(targets())
    factor = Factor.of(K, Y, ridge)
    alpha, spectrum = factor.weights(), Spectrum.of(K, Y)
    torch.testing.assert_close(alpha, spectrum.weights(ridge), rtol=0, atol=1e-9)
    torch.testing.assert_close(factor.left_out(alpha, tensors(folds)), spectrum.left_out(ridge, tensors(folds)))
    assert factor.sq_norm(alpha) == pytest.approx(spectrum.sq_norm(ridge))


def test_there_is_no_factor_of_a_singular_matrix():
    K, Y = torch.from_numpy(gram(5)), torch.from_numpy(targets())
    assert Factor.of(K, Y, 0.0) is None
    assert Factor.of(K, Y, 1e-15) is None
    assert Factor.of(K, Y, 1e-3) is not None
    last = torch.ones(N, dtype=torch.float64)
    last[-1] = 1e-13  # LAPACK factorises it
    assert Factor.of(torch.diag(last), Y, 0.0) is None
    assert Factor.of(torch.diag(last), Y, 1e-6) is not None
