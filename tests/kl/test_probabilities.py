"""Temperatures and the metrics of probabilities, against scikit-learn's and a search of the log loss."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from kl.probabilities import classification_scores, fit_temperature, regression_scores

pytestmark = pytest.mark.numeric

N, C = 200, 4


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=generator)
    noise = torch.randn(N, C, generator=generator, dtype=torch.float64)
    return torch.nn.functional.one_hot(labels, C) + 0.7 * noise, labels


def test_the_temperature_minimises_the_weighted_log_loss():
    outputs, labels = draw()
    weights = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(temperature):
        p = (outputs / temperature).softmax(dim=1).numpy()
        return metrics.log_loss(labels, p, sample_weight=weights, labels=range(C))

    found = fit_temperature(outputs, labels, weights)
    for factor in (1.01, 0.99):
        assert loss(found) < loss(found * factor)
    assert fit_temperature(3 * outputs, labels, weights) == pytest.approx(3 * found, rel=1e-12)
    repeated = torch.arange(N).repeat_interleave(labels + 1)
    expected = fit_temperature(outputs[repeated], labels[repeated])
    assert fit_temperature(outputs, labels, labels + 1) == pytest.approx(expected, rel=1e-12)


def test_temperatures_at_the_ends():
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(outputs, torch.tensor([0, 1])) == pytest.approx(1e-4)  # the surer the better
    assert fit_temperature(outputs, torch.tensor([1, 0])) == pytest.approx(1e8)  # equal probabilities are best
    assert fit_temperature(torch.ones(3, 2), torch.tensor([0, 1, 1])) == 1.0


def test_classification_scores_are_scikit_learns():
    outputs, labels = draw()
    found = classification_scores(outputs, labels, temperature=0.5)
    p = (outputs / 0.5).softmax(dim=1).numpy()
    one_hot = np.eye(C)[labels]
    areas = [metrics.roc_auc_score(labels == k, outputs.softmax(dim=1)[:, k]) for k in range(C)]
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, p.argmax(axis=1)))
    assert found["roc_auc"] == pytest.approx(np.mean(areas), rel=1e-6)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, p))
    assert found["brier"] == pytest.approx(np.mean(((p - one_hot) ** 2).sum(axis=1)))
    bins = np.minimum((p.max(axis=1) * 15).astype(int), 14)
    right = p.argmax(axis=1) == labels.numpy()
    gaps = [abs((p.max(axis=1)[bins == b] - right[bins == b]).sum()) for b in range(15)]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / N, rel=1e-5)
    assert classification_scores(outputs, labels).keys() == {"balanced_accuracy", "roc_auc"}


def test_classes_that_no_row_has_are_left_out():
    outputs, labels = draw()
    labels = labels.clamp(max=1)
    found = classification_scores(outputs, labels)
    expected = [metrics.roc_auc_score(labels == k, outputs.softmax(dim=1)[:, k]) for k in range(2)]
    assert found["roc_auc"] == pytest.approx(np.mean(expected), rel=1e-6)
    only = classification_scores(outputs, torch.zeros(N, dtype=torch.long), temperature=1.0)
    assert math.isnan(only["roc_auc"])
    assert only["balanced_accuracy"] == pytest.approx(float((outputs.argmax(dim=1) == 0).double().mean()))


def test_regression_scores_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    p = y + 0.3 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    found = regression_scores(p, y)
    assert found["rmse"] == pytest.approx(math.sqrt(metrics.mean_squared_error(y, p)))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p))
    assert math.isnan(regression_scores(p[:1], y[:1])["r2"])
    assert regression_scores(p + 1e9, y + 1e9)["r2"] == pytest.approx(found["r2"], rel=1e-6)  # not by their squares
