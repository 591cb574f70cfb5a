"""Every method learns both tables, and its search keeps to the budget."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin

import kl
from kl.features.chain import evaluate_solution
from kl.solve import Problem
from recipes.bench.tables import methods, peers
from recipes.bench.tables.methods import METHODS, NotRunError
from recipes.bench.tables.search import search
from recipes.bench.tables.sets import read_split


@pytest.mark.filterwarnings("ignore:the search for the parameters ended after")  # of gp, which has half a second
@pytest.mark.parametrize("method", [name for name in METHODS if name != "xrfm"])
def test_methods_learn(folder, tiny, method):
    tiny = replace(tiny, candidates=2, seconds=0.5 if method == "gp" else 20.0)
    wave = read_split(folder / "uci/wave.npz", 0, replace(tiny, train_rows=100))
    error = np.abs(METHODS[method](wave, tiny).predict(wave.x_test) * wave.scale + wave.offset - wave.y_test).mean()
    assert error < (8 if method == "boosting" else 4)  # the targets' mean deviation is 6; 40 rows are few for trees
    halves = read_split(folder / "tables/halves.csv", 0, replace(tiny, train_rows=100))
    fitted = METHODS[method](halves, tiny)
    assert (fitted.predict(halves.x_test) == halves.y_test).mean() >= 0.6
    assert fitted.candidates in ({24} if method == "kl" else {None} if method == "gp" else {2})


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::SyntaxWarning"
)  # of xrfm's docstrings, when Python first compiles them
def test_xrfm_learns_or_says_that_it_is_missing(folder, tiny):
    wave = read_split(folder / "uci/wave.npz", 0, tiny)
    try:
        import xrfm  # noqa: F401
    except ImportError:
        with pytest.raises(NotRunError, match="xrfm is not installed: pip install"):
            METHODS["xrfm"](wave, tiny)
    else:
        assert METHODS["xrfm"](wave, tiny).predict(wave.x_test).shape == (10,)


def test_rfm_is_fitted_to_all_rows_by_the_choice(folder, tiny):
    split = read_split(folder / "uci/wave.npz", 0, tiny)
    fitted = METHODS["rfm"](split, replace(tiny, candidates=5))
    x, y = torch.from_numpy(split.x_train), torch.from_numpy(split.y_train)[:, None]
    best = kl.tune_features(x, y, candidates=5).best
    assert fitted.chosen["kernel"] == repr(best.candidate.kernel)
    assert (fitted.chosen["ridge"], fitted.chosen["round"]) == (best.candidate.ridge, best.round)
    fit = best.candidate.fit(Problem.of(x, y, torch.ones(len(x), dtype=torch.float64)), best.round)
    wanted = evaluate_solution(fit.solution, torch.from_numpy(split.x_test))[:, 0]
    np.testing.assert_allclose(fitted.predict(split.x_test), wanted)


def test_rfm_ends_by_time_after_one_candidate(folder, tiny):
    fitted = METHODS["rfm"](read_split(folder / "tables/halves.csv", 0, tiny), replace(tiny, seconds=0.0))
    assert fitted.candidates == 1
    assert fitted.chosen["kernel"] == "ExponentialPower(bandwidth='auto', power=1.0)"
    assert {"metric", "bandwidth_factor", "ridge", "power", "round"} < set(fitted.chosen)


def test_gaussian_process_of_many_rows(folder, tiny, monkeypatch):
    monkeypatch.setattr(methods, "GP_ROWS", 29)
    with pytest.raises(NotRunError, match="30 training rows, and a Gaussian process is run on 29 at most"):
        METHODS["gp"](read_split(folder / "uci/wave.npz", 0, tiny), tiny)


class Slow(RegressorMixin, BaseEstimator):
    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, X, y):
        time.sleep(0.02)
        self.mean_ = y.mean() + self.shift
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


def test_search_tries_defaults_first_and_ends_by_time(folder, tiny):
    split = read_split(folder / "uci/wave.npz", 0, tiny)
    found = search(Slow(), {"shift": [1.0, 2.0, 3.0]}, split, tiny)
    assert found.cv_results_["params"][0] == {}
    assert len(found.cv_results_["params"]) == 4
    assert found.best_params_ == {}
    found = search(Slow(), {"shift": [1.0, 2.0, 3.0]}, split, replace(tiny, seconds=0.15))  # 0.1 s a candidate
    assert 1 <= len(found.cv_results_["params"]) <= 2


def test_optimizer_gives_its_best_point_when_time_is_up():
    def objective(theta):
        time.sleep(0.01)
        return float((theta**2).sum()), 2 * theta

    with pytest.warns(UserWarning, match="search for the parameters ended after"):
        best, least = peers.timed_optimizer(0.0)(objective, np.array([3.0]), np.array([[-5.0, 5.0]]))
    assert (best.tolist(), least) == ([3.0], 9.0)
    best, least = peers.timed_optimizer(10.0)(objective, np.array([3.0]), np.array([[-5.0, 5.0]]))
    assert abs(best[0]) < 1e-3


def test_one_hot_ridge_keeps_labels():
    x = np.array([[0.0], [0.1], [2.0], [2.1]])
    model = peers.OneHotRidge(kernel="rbf").fit(x, np.array([7, 7, 3, 3]))
    assert model.predict(x).tolist() == [7, 7, 3, 3]
