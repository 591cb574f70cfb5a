"""scikit-learn's own checks of estimators, and what its users do with them."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from kl import KernelClassifier, KernelRegressor, Laplacian, Polynomial, RFMClassifier, RFMRegressor

ESTIMATORS = [
    KernelRegressor(),
    KernelClassifier(),
    KernelRegressor(ridge=0),
    KernelRegressor(standardize=False),
    RFMRegressor(rounds=1),
    pytest.param(RFMClassifier(rounds=1), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_scikit_learns_checks_pass_whole(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks give odd input on purpose
        results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {each["check_name"]: each["exception"] for each in results if each["status"] not in ("passed", "skipped")}
    assert not failed
    skipped = [each["check_name"] for each in results if each["status"] == "skipped"]
    assert skipped in ([], ["check_array_api_input"])  # which needs an environment variable
    assert len(results) > 40


@pytest.mark.parametrize("estimator", [KernelRegressor, RFMRegressor])
def test_a_solver_that_has_not_converged_is_a_convergence_warning(estimator):
    """Very unequal weights slow EigenPro: ten epochs leave most of the targets, which is no longer silent."""
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((200, 4)), np.exp(4 * rng.standard_normal(200))
    y = np.sin(X[:, 0]) + rng.standard_normal(200)
    options = {"rounds": 1, "by": "holdout"} if estimator is RFMRegressor else {}
    with pytest.warns(
        ConvergenceWarning, match=r"'eigenpro' .* 10 .* above 0.5: give more epochs, solver='pcg'"
    ) as found:
        model = estimator(solver="eigenpro", **options).fit(X, y, sample_weight=weights)
    assert 0.5 < model.relative_residual_ < 1
    assert found[0].filename == __file__
    model = estimator(solver="eigenpro", epochs=20, **options).fit(X, np.sin(X[:, 0]))  # warnings are errors here
    assert model.relative_residual_ < 0.2
    assert estimator(solver="direct", **options).fit(X, y, sample_weight=weights).relative_residual_ < 1e-6


def test_conjugate_gradients_that_stand_still_are_a_convergence_warning(monkeypatch):
    monkeypatch.setattr("kl.exact.conjugate_gradients.solve_low_rank", lambda *_: None)  # as with little memory
    X, y = np.random.default_rng(0).standard_normal((200, 4)), np.random.default_rng(1).standard_normal(200)
    with pytest.warns(ConvergenceWarning, match=r"'pcg' .* above 0.01: give a larger ridge, solver='direct'"):
        KernelRegressor(Polynomial(degree=3), ridge=0, solver="pcg").fit(X, y)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True)


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), clone])
def test_copies_predict_alike(iris, copied):
    X, y = iris
    model = KernelClassifier(Laplacian(2.0)).fit(X, y)
    again = copied(model)
    if not hasattr(again, "classes_"):
        again.fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.get_params()["kernel"] == Laplacian(2.0)


def test_joblib(iris, tmp_path):
    X, y = iris
    model = KernelClassifier().fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(X), model.predict(X))


def test_pipelines_and_grids(iris):
    X, y = iris
    search = GridSearchCV(
        make_pipeline(StandardScaler(), KernelClassifier()),
        {"kernelclassifier__kernel": ["laplacian", "gaussian"], "kernelclassifier__ridge": [0.01, 1]},
        cv=3,
    ).fit(X, y)
    assert search.best_score_ > 0.93
    assert cross_val_score(KernelClassifier(), X, y, cv=3).mean() > 0.93


def test_calibration_and_importance(iris):
    X, y = iris
    calibrated = CalibratedClassifierCV(KernelClassifier(), cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    importance = permutation_importance(KernelClassifier().fit(X, y), X, y, n_repeats=3, random_state=0)
    assert importance.importances_mean[2:].sum() > importance.importances_mean[:2].sum()  # the petals tell the kinds


def test_data_frames_and_names(diabetes):
    X, y = diabetes
    frame = pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])])
    model = KernelRegressor(ridge=1).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_allclose(model.predict(frame), KernelRegressor(ridge=1).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [-1, 1], [1.0, 2.0]])
@pytest.mark.parametrize("wrapped", [np.array, pd.Series, list, lambda y: pd.Series(y).astype("category")])
def test_labels_of_all_kinds_come_back(labels, wrapped):
    X = np.linspace(0, 1, 12)[:, None]
    y = [labels[int(x > 0.5)] for x in X[:, 0]]
    model = KernelClassifier().fit(X, wrapped(y))
    assert model.classes_.tolist() == labels
    assert model.predict(X).tolist() == y
