"""The search for the parameters of a recursive feature machine."""

import itertools
import math

import numpy as np
import pytest
import torch

import kl
from kl.features.chain import evaluate_solution
from kl.solve import Problem
from kl.tuning import features
from kl.tuning.features import Family, FeatureCandidate, candidates_of, tune_features


def draw(n=40, d=4, seed=0):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))
    return x, (2 * x[:, :1]).sin() * x[:, 1:2]


def test_candidates():
    """The defaults of all kernels with both metrics come first; draws have the stated ranges, and are the seed's."""
    kernels = [kl.Laplacian(), kl.Gaussian(2.0)]
    families = [Family.of(each) for each in kernels]
    drawn = list(candidates_of(families, 300, 0))
    first = [FeatureCandidate(kernel, metric) for kernel in kernels for metric in ("full", "diagonal")]
    assert drawn[:4] == first
    assert first[:2] == [FeatureCandidate(), FeatureCandidate(metric="diagonal")]
    assert drawn[:50] == list(candidates_of(families, 50, 0))
    assert drawn[4:] != list(candidates_of(families, 300, 1))[4:]
    assert list(candidates_of(families, 1, 0)) == drawn[:1]
    rest = drawn[4:]
    found = {(each.kernel, each.metric, each.power) for each in rest}
    assert found == set(itertools.product(kernels, ("full", "diagonal"), (0.5, 1.0)))
    factors = [each.bandwidth_factor for each in rest if each.kernel == kernels[0]]
    assert 0.5 <= min(factors) < 0.6 < 7 < max(factors) <= 8
    assert {each.bandwidth_factor for each in rest if each.kernel == kernels[1]} == {1.0}
    ridges = [each.ridge for each in rest]
    assert 1e-6 <= min(ridges) < 1e-5 < 1 < max(ridges) <= 10


def test_exponents_are_drawn_for_kernels_by_name():
    """The defaults have exponent 1, as the Laplacian. A kernel that is no name keeps its exponent."""
    given = ["exponential-power", "lpq-laplacian", kl.LpqLaplacian(p=1.5, q=1.2), "laplacian"]
    drawn = [each.kernel for each in candidates_of([Family.of(each) for each in given], 400, 0)]
    assert drawn[:4:2] == [kl.ExponentialPower(), kl.LpqLaplacian()]
    powers = [each.power for each in drawn[8:] if isinstance(each, kl.ExponentialPower)]
    assert 0.7 <= min(powers) < 0.75 < 1.95 < max(powers) <= 2
    found = [each for each in drawn[8:] if isinstance(each, kl.LpqLaplacian)]
    qs = [each.q for each in found if each.p == 1]
    assert 0.7 <= min(qs) < 0.75 < 0.95 < max(qs) <= 1
    assert {each for each in found if each.p != 1} == {given[2]}
    assert kl.Laplacian() in drawn[8:]


@pytest.mark.parametrize(("d", "found"), [(50, {kl.ExponentialPower, kl.LpqLaplacian}), (51, {kl.ExponentialPower})])
def test_kernels_auto_depend_on_the_number_of_columns(d, found):
    tuning = tune_features(*draw(d=d), candidates=4, rounds=1)
    assert {type(each.candidate.kernel) for each in tuning.points} == found


def test_defaults_are_those_of_the_estimator():
    default, model = FeatureCandidate(), kl.RFMRegressor()
    assert (default.metric, default.ridge, default.power) == (model.metric, model.ridge, model.power)
    assert default.bandwidth_factor == model.bandwidth_factor
    assert (default.kernel, features.ROUNDS) == (kl.build_kernel(model.kernel), model.rounds)


def test_the_candidate_of_least_error_is_chosen(monkeypatch):
    """A ridge of 1e6 gives 0 everywhere. Fitted to all rows, the other candidate is the estimator's fit."""
    bad, good = FeatureCandidate(ridge=1e6), FeatureCandidate(metric="diagonal", ridge=1e-2)
    x, y = draw()
    same = kl.RFMRegressor(metric="diagonal", ridge=1e-2, by="kfold", solver="direct", standardize=False)
    same.fit(x.numpy(), (y - y.mean())[:, 0].numpy())
    for order in ([bad, good], [good, bad]):
        monkeypatch.setattr(features, "candidates_of", lambda kernels, count, seed, order=order: iter(order))
        found = tune_features(x, y - y.mean(), candidates=2)
        assert (found.best.candidate, len(found.points)) == (good, 2)
        assert found.best.round == same.best_round_
        assert found.best.score == pytest.approx(same.scores_.min(), rel=1e-6)
        problem = Problem.of(x, y - y.mean(), torch.ones(len(x), dtype=torch.float64))
        fit = found.best.candidate.fit(problem, found.best.round)
        np.testing.assert_allclose(evaluate_solution(fit.solution, x)[:, 0], same.predict(x.numpy()), atol=1e-6)


def test_a_row_given_twice_counts_twice_among_the_held_out_rows():
    """The error of a candidate is that of the mean target, weighted by how often the rows were given."""
    x, y = draw(n=60)
    rows, held = Problem.of(x[:40], y[:40]), Problem.of(torch.cat([x[40:], x[40:50]]), torch.cat([y[40:], y[40:50]]))
    (found,) = FeatureCandidate().errors(rows, held, 0, 0, "auto")
    outputs = evaluate_solution(FeatureCandidate().fit(rows, 0).solution, x[40:])
    squares = (outputs - y[40:]).square()[:, 0]
    assert found == pytest.approx(float((squares.sum() + squares[:10].sum()) / 30), rel=1e-6)


def test_a_candidate_that_is_far_behind_is_given_up(monkeypatch):
    """The third has 1.11 times the best one's error after a part; the fourth is tried on all, and is behind."""
    told = {1.0: [0.8] * 5, 2.0: [0.87] + [0.6] * 4, 3.0: [0.97], 4.0: [0.9] + [0.61] * 4}
    asked = []

    def errors(self, rows, held, rounds, seed, memory):
        asked.append(self.ridge)
        return [1.0, told[self.ridge][asked.count(self.ridge) - 1]]

    monkeypatch.setattr(FeatureCandidate, "errors", errors)
    order = [FeatureCandidate(ridge=each) for each in told]
    monkeypatch.setattr(features, "candidates_of", lambda kernels, count, seed: iter(order))
    found = tune_features(*draw(), candidates=4)
    assert [each.parts for each in found.points] == [5, 5, 1, 5]
    assert (found.best.candidate.ridge, found.best.round) == (2.0, 1)
    assert found.best.score == pytest.approx(0.654)


def test_the_search_ends_by_time_after_one_candidate_and_reports():
    said = []
    found = tune_features(*draw(), seconds=1e-9, progress=said.append)
    assert len(found.points) == len(said) == 1
    assert said[0].startswith("candidate 1 of 24, about 0")


def test_a_subsample_has_the_shares_of_the_classes():
    x, _ = draw(200)
    y = torch.eye(2)[(torch.arange(200) % 10 == 0).long()]
    found = tune_features(x, y, candidates=1, rounds=1, subsample=50)
    assert found.rows == 50
    assert math.isfinite(found.best.score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": []}, "kernels must name one kernel at least"),
        ({"kernels": "none"}, "unknown kernel"),
        ({"rounds": 0}, "rounds must be"),
        ({"candidates": 0}, "candidates must be"),
        ({"seconds": -1.0}, "seconds must be"),
        ({"subsample": 0}, "subsample must be"),
        ({"subsample": 10}, "x must have at least 20 rows"),
        ({"seed": -1}, "seed must be"),
        ({"task": "classification"}, "y must be one-hot"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(kl.InputError, match=message):
        tune_features(*draw(), **options)
