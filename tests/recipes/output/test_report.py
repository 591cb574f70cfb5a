"""What `kl fit` prints for people."""

import re

import pytest

from recipes.output.report import distance_text


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
