"""Mean losses and their standard errors."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from kl.tuning.losses import Losses


def draw(n=40, c=4, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_normal((n, c))), torch.eye(c).double()[generator.integers(0, c, n)]


def naive_log_loss(scores, y, inverse):
    total = 0.0
    for f, row in zip(scores.numpy(), y.numpy(), strict=True):
        p = np.exp(inverse * f) / np.exp(inverse * f).sum()
        total -= math.log(p[row.argmax()])
    return total / len(y)


@pytest.mark.parametrize("help_", [0.2, 1.0, 3.0])
def test_losses_against_loops(help_):
    noise, y = draw()
    scores = noise + help_ * y
    losses = Losses.of(scores, y, classes=True)
    squared = [np.mean([(a - b) ** 2 for a, b in zip(f, t, strict=True)]) for f, t in zip(scores, y, strict=True)]
    wrong = [float(f.argmax() != t.argmax()) for f, t in zip(scores, y, strict=True)]
    assert losses.by("mse") == pytest.approx((np.mean(squared), np.std(squared, ddof=1) / math.sqrt(40)))
    assert losses.by("error") == pytest.approx((np.mean(wrong), np.std(wrong, ddof=1) / math.sqrt(40)))
    best = minimize_scalar(lambda b: naive_log_loss(scores, y, b), bounds=(0, 20), options={"xatol": 1e-9}).fun
    assert losses.log_loss == pytest.approx(best, rel=1e-9)
    assert losses.log_loss_standard_error > 0


def test_outputs_that_mislead_get_the_loss_of_guessing():
    noise, y = draw()
    assert Losses.of(-y, y, classes=True).log_loss == pytest.approx(math.log(4))
    assert Losses.of(torch.ones_like(noise), y, classes=True).log_loss == pytest.approx(math.log(4))


def test_outputs_without_an_error_get_nearly_no_loss():
    _, y = draw()
    assert 0 <= Losses.of(y, y, classes=True).log_loss < 1e-6


def test_numbers_have_no_error_and_one_row_no_standard_error():
    losses = Losses.of(torch.tensor([[3.0]]), torch.tensor([[1.0]]), classes=False)
    assert (losses.mse, losses.error, losses.log_loss) == (4.0, None, None)
    assert math.isnan(losses.mse_standard_error)
