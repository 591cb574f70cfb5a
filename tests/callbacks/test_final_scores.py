"""The scores at the end of a run: with and without a validation part, of regression, and where they are written."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from callbacks.reliability import reliability_figure
from kl import load
from kl.probabilities import SCORES

DIGITS = ("fit", "--data", "digits", "--train-size", 300, "--test-size", 200, "--epochs", 2, "--no-exact", "--json")


def test_a_validation_part_gives_probabilities(kl):
    found = json.loads(kl(*DIGITS, "--validation", 0.3).out)
    model = load(found["checkpoint"])
    from datamodules import DigitsDataModule

    data = DigitsDataModule(train_size=300, test_size=200, validation=0.3)
    data.setup()
    labels, outputs = data.test_set.y.argmax(dim=1), torch.from_numpy(model._values(data.test_set.x.numpy()))
    predicted = outputs.argmax(dim=1)
    assert found["test_balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    areas = [metrics.roc_auc_score(labels == k, outputs.softmax(dim=1)[:, k]) for k in range(10)]
    assert found["test_roc_auc"] == pytest.approx(np.mean(areas), abs=1e-5)
    assert 0 < found["test_log_loss"] < math.log(10)
    assert 0 < found["test_brier"] < 2
    assert 0 <= found["test_calibration_error"] < 1
    assert found["test_rmse"] is None
    assert (Path(found["log_dir"]) / "figures" / "test_reliability.png").stat().st_size > 10_000


def test_without_one_there_are_no_probabilities(kl):
    found = json.loads(kl(*DIGITS).out)
    assert found["test_balanced_accuracy"] > 0.8
    assert found["test_roc_auc"] > 0.95
    assert found["test_log_loss"] is found["test_brier"] is found["test_calibration_error"] is None
    assert not (Path(found["log_dir"]) / "figures" / "test_reliability.png").exists()


def test_the_limits_leave_one_out_predictions_give_the_temperature(kl):
    limit = [option for option in DIGITS if option != "--no-exact"]
    found = json.loads(kl(*limit).out)
    solved = json.loads(kl("interpolate", *DIGITS[1:7], "--json").out)
    assert found["exact_loo_error"] == solved["loo_error"]
    assert found["exact_loo_mse"] == solved["loo_mse"]
    assert found["test_log_loss"] == pytest.approx(solved["test_log_loss"], rel=0.1)  # two epochs are near the limit
    assert "leave-one-out error" in kl(*limit[:-1]).out


def test_regression_is_in_the_targets_unit(kl):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.standard_normal(200)})
    table["rent"] = 500 + 50 * np.sin(table["a"])
    table[:150].to_csv("train.csv", index=False)
    table[150:].to_csv("test.csv", index=False)
    options = ("--data", "csv:train.csv", "--test-data", "test.csv", "--target", "rent", "--no-exact", "--epochs", 3)
    found = json.loads(kl("fit", *options, "--json").out)
    predicted = load(found["checkpoint"]).predict(table[150:])
    assert found["test_rmse"] == pytest.approx(
        math.sqrt(metrics.mean_squared_error(table["rent"][150:], predicted)), rel=1e-3
    )
    assert found["test_mae"] == pytest.approx(metrics.mean_absolute_error(table["rent"][150:], predicted), rel=1e-3)
    assert found["test_r2"] == pytest.approx(metrics.r2_score(table["rent"][150:], predicted), abs=1e-3)
    assert found["test_mse"] == pytest.approx(found["test_rmse"] ** 2, rel=1e-3)
    assert found["test_roc_auc"] is None


def test_nothing_is_measured_under_fast_dev_run(kl):
    found = json.loads(kl(*DIGITS, "--fast-dev-run").out)
    assert [found[f"test_{name}"] for name in SCORES] == [None] * len(SCORES)


def test_the_diagram_shows_shares_and_their_gap():
    probabilities = torch.tensor([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10, dtype=torch.float64)
    labels = torch.tensor([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)
    above, below = reliability_figure(probabilities, labels).axes
    means, shares = above.lines[1].get_data()
    assert (means.tolist(), shares.tolist()) == ([pytest.approx(0.6), pytest.approx(0.9)], [0.6, 0.8])
    assert above.get_title(loc="left") == "expected calibration error 0.050"
    assert sum(bar.get_height() for bar in below.patches) == 20
