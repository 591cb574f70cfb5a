"""Ranks, Friedman's test and the critical difference, against numbers of Demsar 2006 and by hand."""

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, studentized_range

from recipes.bench.tables.cells import Cell
from recipes.bench.tables.ranks import critical_difference, friedman, groups, mean_ranks
from recipes.bench.tables.summary import ranked, summarised

DEMSAR = np.array([3.143, 2.000, 2.893, 1.964])  # table 6: four methods on 14 sets


def test_mean_ranks_by_hand():
    losses = np.array([[0.3, 0.1, 0.2], [0.5, 0.5, 0.1], [0.2, 0.2, 0.2]])  # ranks 3 1 2; 2.5 2.5 1; 2 2 2
    np.testing.assert_allclose(mean_ranks(losses), [7.5 / 3, 5.5 / 3, 5 / 3])


def test_failures_rank_last_and_share():
    np.testing.assert_allclose(mean_ranks(np.array([[math.nan, 0.9, math.nan, 0.1]])), [3.5, 2, 3.5, 1])


def test_friedman_of_the_paper():
    statistic, p = friedman(DEMSAR, 14)
    assert statistic == pytest.approx(9.28, abs=0.01)
    assert 0.02 < p < 0.03  # chi^2 with 3 degrees of freedom: 9.35 is at 2.5%


def test_friedman_as_scipy_without_ties():
    losses = np.random.default_rng(0).normal(size=(12, 5))
    statistic, p = friedman(mean_ranks(losses), 12)
    assert (statistic, p) == pytest.approx(tuple(friedmanchisquare(*losses.T)))


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_critical_difference_by_the_table_of_the_paper(k, q):
    """Table 5 a, which rounds to three digits."""
    by_hand = q * math.sqrt(k * (k + 1) / (6 * 20))
    assert critical_difference(k, 20) == pytest.approx(by_hand, rel=4e-4)
    exact = studentized_range.ppf(0.95, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / 120)
    assert critical_difference(k, 20) == pytest.approx(exact)


def test_groups_by_hand():
    assert groups([1.0, 1.4, 2.1, 2.4, 5.0], 1.1) == [(0, 1), (1, 3)]
    assert groups([1.0, 3.0, 5.0], 1.5) == []
    assert groups([1.0, 1.1, 1.2], 1.5) == [(0, 2)]


def cell(name, method, split, value, state="done", reason=None):
    return Cell(name, split, method, "regression", state, value, 1.0 + split, reason=reason, candidates=4)


def test_summary_and_ranks_with_failures_and_a_method_left_out():
    cells = [
        *(cell("a", "kl", split, value) for split, value in enumerate((1.0, 3.0))),
        *(cell("a", "svm", split, value) for split, value in enumerate((3.0, 4.0))),
        cell("a", "ridge", 0, 0.1),
        cell("a", "ridge", 1, None, "failed", "ValueError: no"),
        *(cell("a", "gp", split, None, "not run", "too many rows") for split in (0, 1)),
    ]
    kl, svm, ridge, gp = summarised(cells)
    assert (kl["mean"], kl["std"], kl["seconds"], kl["candidates"]) == (2.0, pytest.approx(math.sqrt(2)), 1.5, 4)
    assert (svm["mean"], ridge["mean"], ridge["failures"], ridge["reasons"]) == (3.5, 0.1, 1, ["ValueError: no"])
    assert (gp["mean"], gp["not_run"], gp["failures"]) == (None, 2, 0)
    found = ranked([kl, svm, ridge, gp])
    assert found["methods"] == ["kl", "svm", "ridge"]  # ridge is best where it ran, and last because it failed
    assert found["mean_ranks"] == [1.0, 2.0, 3.0]
    assert found["left_out"] == {"gp": "too many rows"}
    assert found["critical_difference"] == pytest.approx(2.343 * math.sqrt(3 * 4 / 6), rel=4e-4)


def test_one_method_has_no_critical_difference():
    found = ranked(summarised([cell("a", "kl", 0, 1.0)]))
    assert (found["mean_ranks"], found["critical_difference"]) == ([1.0], None)
