"""Recursive feature machines as estimators: what they learn, what they keep in files, and what they refuse."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import kl
from kl import InputError, KernelClassifier, KernelRegressor, RFMClassifier, RFMRegressor
from kl.features.chain import MetricOptions
from kl.features.learning import Choice, FeatureLearning
from kl.solve import Problem

pytestmark = pytest.mark.numeric


def draw(n=150, d=8, seed=0):
    """Numbers and labels of the first two of d columns, whose units differ."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = np.sin(2 * X[:, 0]) * X[:, 1]
    return X * 10.0 ** np.arange(d), y, np.where(y > 0, "up", "down")


@pytest.mark.parametrize("metric", ["full", "diagonal", [[0, 1], [2, 3, 4, 5, 6, 7]]])
def test_it_learns_which_columns_count(metric):
    X, y, labels = draw()
    Z, truth, signs = draw(seed=1)
    model = RFMRegressor(metric=metric).fit(X, y)
    assert model.feature_importances_[:2].sum() > 0.9
    assert model.feature_importances_.sum() == pytest.approx(1)
    assert model.metric_.shape == ((8,) if metric == "diagonal" else (8, 8))
    assert model.scores_[model.best_round_] == model.scores_.min() < 0.5 * model.scores_[0]
    by_loo = RFMRegressor(metric=metric, by="loo").fit(X, y)
    assert by_loo.loo_error_ == pytest.approx(by_loo.scores_.min(), rel=1e-6)
    assert model.score(Z, truth) > KernelRegressor().fit(X, y).score(Z, truth) + 0.2
    classes = RFMClassifier(metric=metric).fit(X, labels)
    assert classes.score(Z, signs) > KernelClassifier().fit(X, labels).score(Z, signs) + 0.1
    assert classes.predict_proba(Z).sum(axis=1) == pytest.approx(1)


def test_the_rounds_are_those_of_the_plain_run():
    X, y, _ = draw()
    x = torch.from_numpy((X - X.mean(axis=0)) / X.std(axis=0))
    targets = torch.from_numpy(y - y.mean())[:, None]
    metric, choice = MetricOptions(power=0.5, centered=True, sample=100), Choice(3, "holdout")
    problem = Problem.of(x, targets, torch.ones(len(x), dtype=torch.float64))
    best = FeatureLearning(problem, kl.Laplacian(), ridge=0.01, seed=3, metric=metric, choice=choice).run()
    model = RFMRegressor(ridge=0.01, rounds=3, by="holdout", power=0.5, centered=True, sample=100, random_state=3)
    model.fit(X, y)
    np.testing.assert_allclose(model.metric_, best.metric.dense(), atol=1e-6)
    assert model.best_round_ == best.number


def test_no_rounds_are_the_plain_machine():
    X, y, labels = draw()
    model, plain = RFMRegressor(rounds=0).fit(X, y), KernelRegressor().fit(X, y)
    assert np.array_equal(model.predict(X), plain.predict(X))
    assert np.array_equal(model.metric_, np.ones(8))
    np.testing.assert_allclose(model.feature_importances_, 1 / 8)
    assert np.array_equal(
        RFMClassifier(rounds=0).fit(X, labels).predict_proba(X), KernelClassifier().fit(X, labels).predict_proba(X)
    )


@pytest.mark.parametrize("metric", ["full", "diagonal"])
@pytest.mark.parametrize("form", [RFMRegressor, RFMClassifier])
def test_files_copies_and_machines(metric, form, tmp_path):
    X, y, labels = draw()
    Z = draw(seed=1)[0]
    model = form(metric=metric, rounds=2).fit(X, y if form is RFMRegressor else labels)
    model.save(tmp_path / "model.ckpt")
    loaded = kl.load(tmp_path / "model.ckpt")
    assert type(loaded) is form
    np.testing.assert_allclose(loaded.feature_importances_, model.feature_importances_)
    for each in (pickle.loads(pickle.dumps(model)), clone(model).fit(X, y if form is RFMRegressor else labels)):
        assert np.array_equal(each.predict(Z), model.predict(Z))
    same = np.testing.assert_array_equal if form is RFMClassifier else np.testing.assert_allclose
    same(loaded.predict(Z), model.predict(Z), **({} if form is RFMClassifier else {"atol": 1e-6}))  # floats in files
    machine = kl.load_machine(tmp_path / "model.ckpt")
    encoded = machine.data_info["encoding"]
    assert encoded
    standard = torch.from_numpy((Z - X.mean(axis=0)) / X.std(axis=0))
    scores = machine.in_target_units(machine(standard)).numpy()
    wanted = model.predict(Z)
    got = scores[:, 0] if form is RFMRegressor else model.classes_[scores.argmax(axis=1)]
    if form is RFMRegressor:
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    else:
        assert (got == wanted).all()


def test_data_frames_weights_and_searches():
    X, y, _ = draw(80, 4)
    frame = pd.DataFrame(X, columns=list("abcd"))
    search = GridSearchCV(RFMRegressor(rounds=1), {"power": [0.5, 1.0]}, cv=3).fit(frame, y)
    assert search.best_estimator_.feature_names_in_.tolist() == list("abcd")
    repeated = np.repeat(np.arange(80), np.arange(80) % 3)
    one = RFMRegressor(rounds=2, standardize=False, kernel=kl.Laplacian(3.0)).fit(X, y, sample_weight=np.arange(80) % 3)
    two = RFMRegressor(rounds=2, standardize=False, kernel=kl.Laplacian(3.0)).fit(X[repeated], y[repeated])
    np.testing.assert_allclose(one.metric_, two.metric_, atol=1e-6)


def test_progress_is_printed(capsys):
    X, y, _ = draw(60, 4)
    RFMRegressor(rounds=1, verbose=True).fit(X, y)
    said = capsys.readouterr().out
    assert "round 0: Laplacian(bandwidth=" in said
    assert ", mse" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds must be"),
        ({"rounds": 1.5}, "rounds must be"),
        ({"by": "half"}, "by must be one of"),
        ({"metric": "half"}, "metric must be"),
        ({"metric": [[0, 1]]}, "metric must have groups of all columns"),
        ({"power": 0}, "power must be"),
        ({"sample": -5}, "sample must be"),
        ({"ridge": -1}, "ridge must be"),
    ],
)
def test_wrong_parameters(options, message):
    X, y, _ = draw(30, 3)
    with pytest.raises(InputError, match=message):
        RFMRegressor(**options).fit(X, y)
