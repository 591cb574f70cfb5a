"""Every method learns both tables, and its search keeps to the budget."""

import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

import kl
from recipes.bench.tables import features, methods, peers
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


def test_candidates_of_rfm():
    """The defaults with both metrics come first; draws are of the stated ranges, and those of the seed."""
    drawn = list(features.candidates(200, 0))
    assert drawn[:2] == [features.Candidate(), features.Candidate(metric="diagonal")]
    assert drawn[:50] == list(features.candidates(50, 0))
    assert drawn[2:] != list(features.candidates(200, 1))[2:]
    assert list(features.candidates(1, 0)) == drawn[:1]
    rest = drawn[2:]
    assert {(each.metric, each.power) for each in rest} == set(product(("full", "diagonal"), (0.5, 1.0)))
    assert (
        0.5 <= min(each.bandwidth_factor for each in rest) < 0.6 < 7 < max(each.bandwidth_factor for each in rest) <= 8
    )
    assert 1e-6 <= min(each.ridge for each in rest) < 1e-5 < 1 < max(each.ridge for each in rest) <= 10


def test_defaults_of_rfm_are_those_of_the_estimator():
    default, model = features.Candidate(), kl.RFMRegressor()
    assert (default.metric, default.ridge, default.power) == (model.metric, model.ridge, model.power)
    assert (default.kernel, features.ROUNDS) == (kl.build_kernel(model.kernel), model.rounds)


def test_rfm_keeps_the_candidate_of_least_error(folder, tiny, monkeypatch):
    """A ridge of 1e6 is 0 everywhere, whose error is 1. Fitted to all rows, the other one is the estimator's fit."""
    bad, good = features.Candidate(ridge=1e6), features.Candidate(metric="diagonal", ridge=1e-2)
    split = read_split(folder / "uci/wave.npz", 0, tiny)
    same = kl.RFMRegressor(metric="diagonal", ridge=1e-2, by="kfold", solver="direct", standardize=False)
    same.fit(split.x_train, split.y_train)
    for order in ([bad, good], [good, bad]):
        monkeypatch.setattr(features, "candidates", lambda count, seed, order=order: iter(order))
        found = features.search_features(split, tiny)
        assert (found.candidate, found.tried) == (good, 2)
        assert found.fit.number == same.best_round_
        np.testing.assert_allclose(found.outputs(split.x_test)[:, 0], same.predict(split.x_test), rtol=1e-6)


def test_rfm_gives_up_a_candidate_that_is_far_behind(folder, tiny, monkeypatch):
    """The third has 1.11 times the best one's error after a part; the fourth 0.8 beside a mean of 0.69 after three."""
    told = {1.0: [0.8] * 5, 2.0: [0.87] + [0.6] * 4, 3.0: [0.97], 4.0: [0.8] * 3}
    asked = []

    def errors(self, rows, held, seed):
        asked.append(self.ridge)
        return [1.0, told[self.ridge][asked.count(self.ridge) - 1]]

    monkeypatch.setattr(features.Candidate, "errors", errors)
    monkeypatch.setattr(features, "candidates", lambda count, seed: (features.Candidate(ridge=each) for each in told))
    monkeypatch.setattr(features.Candidate, "fit", lambda self, problem, rounds, seed: rounds)
    found = features.search_features(read_split(folder / "uci/wave.npz", 0, tiny), tiny)
    assert [asked.count(ridge) for ridge in told] == [5, 5, 1, 3]
    assert (found.candidate.ridge, found.fit, found.tried) == (2.0, 1, 4)


def test_rfm_ends_by_time_after_one_candidate(folder, tiny):
    fitted = METHODS["rfm"](read_split(folder / "tables/halves.csv", 0, tiny), replace(tiny, seconds=0.0))
    assert fitted.candidates == 1
    assert fitted.chosen["kernel"] == "Laplacian(bandwidth='auto')"
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
