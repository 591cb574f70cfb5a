"""The estimators against float64 oracles: weights, leave-one-out, probabilities, files, and wrong input."""

import math
import os

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris

import kl
from kl import CheckpointError, InputError, KernelClassifier, KernelRegressor, Laplacian, load

pytestmark = pytest.mark.numeric

N, D = 40, 3
SOLVERS = {"direct": {}, "pcg": {}, "eigenpro": {"epochs": 150}}


def draw(n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return X, np.sin(X).sum(axis=1) + 0.1 * rng.standard_normal(n)


def exact(X, y, weights, ridge):
    """alpha of weighted ridge regression on distinct rows, from dense float64."""
    K = oracle.matrix(oracle.laplacian, X, X, bandwidth=2.0)
    return np.linalg.solve(K + ridge * np.diag(1 / weights), y)


def outputs(X, Z, alpha):
    return oracle.matrix(oracle.laplacian, Z, X, bandwidth=2.0) @ alpha


def refits(X, y, weights, ridge):
    """f at each row by weighted ridge regression without that row and those equal to it, from dense float64."""
    found = np.empty(y.shape)
    for i in range(len(X)):
        rest = (X[i] != X).any(axis=1)
        Z, group = np.unique(X[rest], axis=0, return_inverse=True)
        sums = np.bincount(group, weights[rest])
        means = np.bincount(group, weights[rest] * y[rest]) / sums
        found[i] = outputs(Z, X[i : i + 1], exact(Z, means, sums, ridge))[0]
    return found


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_count_rows_twice(solver):
    X, y = draw()
    weights = np.random.default_rng(1).integers(0, 4, N)
    repeated = np.repeat(np.arange(N), weights)
    options = {"kernel": Laplacian(2.0), "ridge": 0.3, "solver": solver, **SOLVERS[solver]}
    one = KernelRegressor(**options).fit(X, y, sample_weight=weights)
    two = KernelRegressor(**options).fit(X[repeated], y[repeated])
    Z = draw(9, seed=2)[0]
    np.testing.assert_allclose(one.predict(Z), two.predict(Z), atol=1e-5)
    assert one.rkhs_norm_ == pytest.approx(two.rkhs_norm_, rel=1e-5)
    assert one.solver_ == solver


@pytest.mark.parametrize("solver", SOLVERS)
def test_weighted_least_squares(solver):
    X, y = draw()
    weights = 0.2 + 3 * np.random.default_rng(1).random(N)
    model = KernelRegressor(Laplacian(2.0), ridge=0.3, solver=solver, standardize=False, **SOLVERS[solver])
    model.fit(X, y, sample_weight=weights)
    mean = np.average(y, weights=weights)
    alpha = exact(X, y - mean, weights, 0.3)
    Z = draw(9, seed=2)[0]
    np.testing.assert_allclose(model.predict(Z), mean + outputs(X, Z, alpha), atol=1e-5)
    norm = math.sqrt(alpha @ outputs(X, X, alpha))
    assert model.rkhs_norm_ == pytest.approx(norm, rel=1e-5)
    assert model.relative_residual_ < 1e-5


def test_standardised_columns_of_any_unit():
    X, y = draw()
    units = np.array([1e6, 1e-6, 1.0])
    plain = KernelRegressor().fit(X, y)
    np.testing.assert_allclose(KernelRegressor().fit(X * units + units, y).predict(X * units + units), plain.predict(X))
    for unit in (1e200, 1e-200):  # whose squares float64 does not hold
        np.testing.assert_allclose(KernelRegressor().fit(X * unit, y).predict(X * unit), plain.predict(X))
    constant = np.hstack([X, np.full((N, 1), 0.1)])
    np.testing.assert_allclose(KernelRegressor().fit(constant, y).predict(constant), plain.predict(X))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_leave_one_out_is_that_of_refits(ridge):
    X, y = draw()
    X[7] = X[3]
    weights = 0.2 + 3 * np.random.default_rng(1).random(N)
    weights[5] = 0
    model = KernelRegressor(Laplacian(2.0), ridge=ridge, standardize=False).fit(X, y, sample_weight=weights)
    kept, mean = weights > 0, np.average(y, weights=weights)
    expected = mean + refits(X[kept], y[kept] - mean, weights[kept], ridge)
    np.testing.assert_allclose(model.loo_predictions_, expected, rtol=1e-8, atol=1e-10)
    assert model.loo_error_ == pytest.approx(np.average((expected - y[kept]) ** 2, weights=weights[kept]))


def test_leave_one_out_of_classes():
    X, y = draw()
    labels = np.where(y > 0, "up", "down")
    model = KernelClassifier(Laplacian(2.0), ridge=0.3, standardize=False).fit(X, labels)
    scores = np.stack([refits(X, (labels == name).astype(float), np.ones(N), 0.3) for name in ("down", "up")], axis=1)
    chosen = np.array(["down", "up"])[scores.argmax(axis=1)]
    assert model.loo_predictions_.tolist() == chosen.tolist()
    assert model.loo_error_ == pytest.approx(np.mean(chosen != labels))
    places = np.linspace(-3, 3, 6001)
    losses = [log_loss(scores * 10**place, (labels == "up").astype(int)) for place in places]
    best = 10 ** -places[int(np.argmin(losses))]
    assert model.temperature_ == pytest.approx(best, rel=3e-3)
    np.testing.assert_allclose(
        model.predict_proba(X), (model.machine_(torch.from_numpy(X)) / model.temperature_).softmax(dim=1).detach()
    )


def log_loss(scores, labels):
    scores = scores - scores.max(axis=1, keepdims=True)
    return -np.mean(scores[np.arange(len(labels)), labels] - np.log(np.exp(scores).sum(axis=1)))


def test_class_weights_are_weights():
    X, y = draw()
    labels = np.where(y > 0.5, 2, 1)
    heavy = KernelClassifier(ridge=0.5, class_weight={1: 1.0, 2: 5.0}).fit(X, labels)
    same = KernelClassifier(ridge=0.5).fit(X, labels, sample_weight=np.where(labels == 2, 5.0, 1.0))
    np.testing.assert_allclose(heavy.predict_proba(X), same.predict_proba(X))
    balanced = KernelClassifier(ridge=0.5, class_weight="balanced").fit(X, labels)
    assert (balanced.predict(X) == 2).sum() >= (KernelClassifier(ridge=0.5).fit(X, labels).predict(X) == 2).sum()


def test_several_outputs():
    X, y = draw()
    Y = np.stack([y, 3 * y + 1], axis=1)
    model = KernelRegressor(ridge=0.1).fit(X, Y)
    np.testing.assert_allclose(model.predict(X)[:, 1], 3 * model.predict(X)[:, 0] + 1)
    assert model.predict(X).shape == model.loo_predictions_.shape == (N, 2)
    assert model.score(X, Y) > 0.9
    column = KernelRegressor(ridge=0.1).fit(X, y[:, None])
    np.testing.assert_allclose(column.predict(X)[:, 0], KernelRegressor(ridge=0.1).fit(X, y).predict(X))


def test_an_interpolant_meets_its_targets_and_trains_on_float32():
    X, y = draw()
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-5)):
        model = KernelRegressor(ridge=0).fit(X.astype(dtype), y)
        np.testing.assert_allclose(model.predict(X.astype(dtype)), y, atol=tolerance)
        assert model.machine_.centers.dtype == torch.from_numpy(np.zeros(1, dtype)).dtype


def test_torch_and_lists():
    X, y = draw()
    expected = KernelRegressor().fit(X, y).predict(X)
    np.testing.assert_array_equal(KernelRegressor().fit(torch.from_numpy(X), torch.from_numpy(y)).predict(X), expected)
    np.testing.assert_array_equal(KernelRegressor().fit(X.tolist(), y.tolist()).predict(X.tolist()), expected)


def test_progress_is_printed(capsys):
    X, y = draw()
    KernelRegressor(solver="eigenpro", epochs=3, verbose=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("s left" in line for line in lines)
    KernelRegressor(solver="eigenpro", epochs=3).fit(X, y)
    assert capsys.readouterr().out == ""


def test_fit_makes_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    X, y = draw()
    for solver in SOLVERS:
        KernelClassifier(solver=solver).fit(X, y > 0)
    assert os.listdir(tmp_path) == []


# Files


@pytest.mark.parametrize("labels", [["a", "b", "c"], [3, 1, 2], [2.0, 1.0, -1.0]])
def test_a_classifier_comes_back(tmp_path, labels):
    X, y = load_iris(return_X_y=True)
    model = KernelClassifier(ridge=0.1).fit(X, np.array(labels)[y])
    model.save(tmp_path / "model.pt")
    again = kl.load(tmp_path / "model.pt")
    assert type(again) is KernelClassifier
    assert again.classes_.tolist() == model.classes_.tolist()
    assert again.predict(X).tolist() == model.predict(X).tolist()
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-4)
    assert (again.n_iter_, again.solver_, again.rkhs_norm_) == (model.n_iter_, model.solver_, model.rkhs_norm_)
    assert again.kernel_ == model.kernel_
    again.save(tmp_path / "again.pt")
    assert kl.load(tmp_path / "again.pt").predict(X).tolist() == model.predict(X).tolist()


def test_booleans_and_two_classes_come_back(tmp_path):
    X, y = draw()
    model = KernelClassifier().fit(X, y > 0)
    model.save(tmp_path / "model.pt")
    again = kl.load(tmp_path / "model.pt")
    assert again.classes_.tolist() == [False, True]
    np.testing.assert_allclose(again.decision_function(X), model.decision_function(X), atol=1e-4)


def test_a_regressor_comes_back(tmp_path):
    X, y = load_diabetes(return_X_y=True)
    model = KernelRegressor(ridge=1).fit(X, y)
    model.save(tmp_path / "model.pt")
    again = kl.load(tmp_path / "model.pt")
    assert type(again) is KernelRegressor
    np.testing.assert_allclose(again.predict(X), model.predict(X), rtol=1e-4)
    two = KernelRegressor(ridge=1).fit(X, np.stack([y, -y], axis=1))
    two.save(tmp_path / "two.pt")
    np.testing.assert_allclose(kl.load(tmp_path / "two.pt").predict(X), two.predict(X), rtol=1e-4)


def test_rows_far_from_0_come_back_without_standardisation(tmp_path):
    X, y = draw()
    X, fresh = X + np.array([1e8, -1e6, 0.0]), draw(9, seed=2)[0] + np.array([1e8, -1e6, 0.0])
    model = KernelRegressor("gaussian", standardize=False).fit(X, y)
    model.save(tmp_path / "model.pt")
    np.testing.assert_allclose(kl.load(tmp_path / "model.pt").predict(fresh), model.predict(fresh), atol=1e-4)
    kl.load(tmp_path / "model.pt").save(tmp_path / "again.pt")
    np.testing.assert_allclose(kl.load(tmp_path / "again.pt").predict(fresh), model.predict(fresh), atol=1e-4)


def test_a_checkpoint_of_kl_fit_is_an_estimator(kl, tmp_path):
    assert kl("fit", "--data", "digits", "--epochs", 2, "--no-exact", "--log-dir", tmp_path).code == 0
    (path,) = tmp_path.rglob("last.ckpt")
    model = load(path)
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    assert np.mean(model.predict(X / 16) == y.astype(str)) > 0.95
    with pytest.raises(InputError, match="predict_proba needs leave-one-out outputs"):
        model.predict_proba(X / 16)
    assert kl("fit", "--data", "digits", "--epochs", 2, "--log-dir", tmp_path / "with").code == 0
    (path,) = (tmp_path / "with").rglob("last.ckpt")
    np.save("x.npy", X[:50] / 16)
    assert kl("predict", path, "--input", "x.npy", "--output", "p.csv").code == 0
    table, probabilities = pd.read_csv("p.csv"), load(path).predict_proba(X[:50] / 16)
    names = [f"probability_{k}" for k in range(10)]
    np.testing.assert_allclose(table[names], probabilities, atol=1e-4)
    assert kl("predict", path, "--input", "x.npy", "--output", "p.npz").code == 0
    np.testing.assert_allclose(np.load("p.npz")["probabilities"], probabilities, atol=1e-4)


def test_a_checkpoint_of_a_table_predicts_data_frames(kl, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.standard_normal(80), "town": rng.choice(["Ulm", "Bonn"], 80)})
    table["rent"] = 500 + 50 * table["a"] + 100 * (table["town"] == "Bonn") + 0.01
    table.to_csv("t.csv", index=False)
    assert kl("fit", "--data", "csv:t.csv", "--target", "rent", "--no-exact", "--log-dir", tmp_path / "logs").code == 0
    (path,) = (tmp_path / "logs").rglob("last.ckpt")
    model = load(path)
    assert model.feature_names_in_.tolist() == ["a", "town"]
    assert model.score(table[["town", "a"]], table["rent"]) > 0.8
    assert kl("predict", path, "--input", "t.csv", "--output", "p.csv").code == 0
    np.testing.assert_allclose(model.predict(table), pd.read_csv("p.csv")["output_rent"], rtol=1e-4)
    with pytest.raises(
        InputError, match="X must be a data frame, because the model was fitted on a table; got ndarray"
    ):
        model.predict(table[["a"]].to_numpy())
    with pytest.raises(InputError, match="X must have at least one row; got a data frame without rows"):
        model.predict(table[:0])
    with pytest.raises(InputError, match=r"it lacks .*town"):
        model.predict(table[["a"]])
    model.save("again.pt")
    np.testing.assert_array_equal(load("again.pt").predict(table), model.predict(table))


def test_a_file_is_read_by_kl_predict(kl, tmp_path):
    X, y = draw()
    KernelRegressor(ridge=0.1).fit(X, 100 + y).save(tmp_path / "model.pt")
    np.save(tmp_path / "x.npy", X)
    done = kl("predict", tmp_path / "model.pt", "--input", tmp_path / "x.npy", "--output", tmp_path / "p.npz")
    assert done.code == 0, done.err
    expected = KernelRegressor(ridge=0.1).fit(X, 100 + y).predict(X)
    np.testing.assert_allclose(np.load(tmp_path / "p.npz")["scores"][:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_iter": "many"}, "its estimator must have n_iter of type"),
        ({"labels": "complex"}, "its labels must be bool, int, float or str; got 'complex'"),
        ({"labels": "int"}, "its class names must be texts of int; got a, b"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    X, y = draw()
    path = tmp_path / "model.pt"
    KernelClassifier().fit(X, np.where(y > 0, "a", "b")).save(path)
    values = torch.load(path, weights_only=True)
    values["kernel_machine"]["data_info"]["estimator"] |= change
    from kl.system.saved import save_values

    save_values(path, {name: value for name, value in values.items() if name != "checksum"})
    with pytest.raises(CheckpointError, match=message):
        kl.load(path)


# Wrong input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "laplace"}, "laplacian"),
        ({"bandwidth": -1}, "bandwidth must be a finite number above 0"),
        ({"kernel": "polynomial", "bandwidth": 2.0}, "bandwidth"),
        ({"ridge": -1}, "ridge must be a finite number, 0 or above; got -1"),
        ({"solver": "svd"}, "solver must be one of auto, direct, pcg, eigenpro; got 'svd'"),
        ({"epochs": 0}, "epochs must be a whole number, 1 or above; got 0"),
        ({"memory": "none"}, "memory must be auto, a number of bytes"),
        ({"random_state": "x"}, "cannot be used to seed"),
    ],
)
def test_wrong_parameters(options, message):
    X, y = draw()
    with pytest.raises(ValueError, match=message):
        KernelRegressor(**options).fit(X, y)


def test_wrong_rows():
    X, y = draw()
    with pytest.raises(InputError, match="sample_weight must be 0 or above; got -1"):
        KernelRegressor().fit(X, y, sample_weight=-np.ones(N))
    with pytest.raises(InputError, match="y must hold at least two classes among rows of weight above 0; got 1 class"):
        KernelClassifier().fit(X, np.ones(N, dtype=int))
    with pytest.raises(InputError, match=r"of weight above 0; got 1 class, True"):
        KernelClassifier().fit(X, np.ones(N, dtype=bool))
    with pytest.raises(InputError, match=r"class_weight must hold numbers, 0 or above; got \{False: -1"):
        KernelClassifier(class_weight={False: -1, True: 1}).fit(X, y > 0)
    with pytest.raises(InputError, match="y must hold at least two classes among rows of weight above 0; got none"):
        KernelClassifier(class_weight={False: 0, True: 0}).fit(X, y > 0)
    with pytest.raises(ValueError, match="contains NaN"):
        KernelRegressor().fit(np.where(X > 2, np.nan, X * 0 + np.nan), y)
    with pytest.raises(ValueError, match="X has 2 features, but KernelRegressor is expecting 3"):
        KernelRegressor().fit(X, y).predict(X[:, :2])
    with pytest.raises(kl.MemoryBudgetError):
        KernelRegressor(memory="1KB").fit(X, y)
    with pytest.raises(InputError, match="predict_proba needs leave-one-out outputs, which solver='eigenpro'"):
        KernelClassifier(solver="eigenpro").fit(X, y > 0).predict_proba(X)


def test_auto_takes_eigenpro_beyond_the_rows_of_exact_solvers(monkeypatch):
    import kl.solve

    monkeypatch.setattr(kl.solve, "choose_solver", lambda *_: "pcg")
    X, y = draw()
    assert KernelRegressor().fit(X, y).solver_ == "pcg"
    monkeypatch.setattr(kl.solve, "PCG_ROWS", 10)
    assert KernelRegressor().fit(X, y).solver_ == "eigenpro"


def test_auto_counts_the_memory_of_leave_one_out():
    from kl.exact.cost import direct_memory

    X, y = draw(600)
    enough = direct_memory(600, D, 1, 8, True)
    assert KernelRegressor(memory=enough).fit(X, y).solver_ == "direct"
    assert direct_memory(600, D, 1, 8) < enough - 1
    assert KernelRegressor(memory=enough - 1).fit(X, y).solver_ == "pcg"
