"""What `kl fit` prints for people."""

import re

import pytest

from recipes.output.fit_table import distance_text
from recipes.output.report import far_from_limit

FAR = {
    "distance_to_exact": 3.0,
    "exact_rkhs_norm": 20.0,
    "ridge": 0.0,
    "centers": None,
    "train_mse": 0.2,
    "exact_train_mse": 1e-20,
    "val_mse": None,
    "exact_val_mse": None,
    "test_mse": 0.292,
    "exact_test_mse": 0.243,
}


@pytest.mark.parametrize(
    ("distance", "norm", "text"),
    [
        (0.0, 20.0, "below 0.006"),
        (0.0059, 20.0, "below 0.006"),
        (0.0061, 20.0, "0.0061"),
        (1.2345678, 20.0, "1.235"),
        (0.0, 0.0, "0"),
        (0.5, None, "0.5"),
        (None, 20.0, ""),
    ],
)
def test_a_distance_under_its_floor_is_below_it(distance, norm, text):
    assert distance_text(distance, norm) == text


def test_a_run_at_its_limit_is_not_at_the_distance_0(kl):
    """Rounding makes the computed distance of such a run 0, though the two functions differ."""
    found = kl("fit", "--data", "digits", "--train-size", 300, "--test-size", 100, "--ridge", 1, "--epochs", 40)
    assert found.code == 0, found.err
    norm = float(re.search(r"RKHS norm +([0-9.]+) ", found.out)[1])
    assert f"RKHS distance to the limit below {3e-4 * norm:.1g}" in re.sub(" +", " ", found.out)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "still far from the exact limit: test mse 0.292, and 0.243 there; the RKHS distance is 15% of |f*|: give"),
        ({"ridge": 0.1}, "still far from the ridge solution: .* or take the ridge solution itself by kl interpolate"),
        ({"centers": 100}, "15% of |f*|: give more --epochs"),
        ({"val_mse": 0.4, "exact_val_mse": 0.3}, "validation mse 0.4, and 0.3 there"),
        ({"test_mse": None, "exact_test_mse": None}, "training mse 0.2, and 1e-20 there"),
        ({"test_mse": 0.256}, "test mse 0.256, and 0.243 there"),
        ({"distance_to_exact": 2.01}, "10% of"),
        ({"test_mse": 0.255}, None),
        ({"distance_to_exact": 1.99}, None),
        ({"test_mse": 0.2}, None),
        ({"val_mse": 0.3, "exact_val_mse": 0.3}, None),
        ({"distance_to_exact": None}, None),
        ({"distance_to_exact": 0.0, "exact_rkhs_norm": 0.0}, None),
    ],
)
def test_a_run_far_from_its_limit_is_told_what_it_loses(change, said):
    line = far_from_limit(FAR | change)
    assert line is None if said is None else re.search(said.replace("|f*|", r"\|f\*\|"), line)
    if "centers" in change:
        assert line.endswith("give more --epochs")


@pytest.mark.slow
def test_one_line_of_kl_fit_says_so(kl):
    data = ("fit", "--data", "digits", "--train-size", 300, "--test-size", 100, "--kernel", "gaussian")
    short, long = kl(*data, "--epochs", 1, "--step-size", 1), kl(*data, "--ridge", 0.1, "--epochs", 20)
    assert short.code == long.code == 0
    assert short.out.count("still far from the exact limit: test mse") == 1
    assert "still far" not in long.out
