"""Mean ranks of methods over sets, Friedman's test, and the critical difference of Nemenyi's test."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import chi2, rankdata, studentized_range

LEVEL = 0.05


def mean_ranks(
    losses: np.ndarray,  # NaN where a method failed, shape: (N, k)
) -> np.ndarray:
    """Each method's mean rank over N sets, shape (k,): 1 is the smallest loss, equal losses share their mean rank.

    A failure ranks behind all losses; several share their mean rank.

    >>> mean_ranks(np.array([[0.1, 0.2, 0.2], [0.3, 0.1, np.nan]])).tolist()
    [1.5, 1.75, 2.75]
    """
    return rankdata(np.where(np.isnan(losses), np.inf, losses), axis=1).mean(axis=0)


def friedman(
    ranks: np.ndarray,  # mean ranks, shape: (k,)
    sets: int,
) -> tuple[float, float]:
    """Friedman's statistic chi^2 = 12 N / (k (k + 1)) (sum_j R_j^2 - k (k + 1)^2 / 4), and its p-value.

    Source: Demsar 2006, JMLR 7, section 3.2.2, without a correction for ties.
    """
    k = len(ranks)
    statistic = 12 * sets / (k * (k + 1)) * (float((ranks**2).sum()) - k * (k + 1) ** 2 / 4)
    return statistic, float(chi2.sf(statistic, k - 1))


def critical_difference(methods: int, sets: int, level: float = LEVEL) -> float:
    """The difference of mean ranks from which on two methods differ: CD = q sqrt(k (k + 1) / (6 N)).

    q is the upper quantile of the studentised range of k, with infinite degrees of freedom, over sqrt 2.

    Source: Demsar 2006, JMLR 7, section 3.2.2 (Nemenyi's test).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = float(studentized_range.ppf(1 - level, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * sets))


def groups(ranks: list[float], difference: float) -> list[tuple[int, int]]:
    """The longest runs of ascending ranks that span less than the critical difference, as first and last index.

    Runs of one method are left out.

    >>> groups([1.0, 1.5, 2.2, 4.0], 1.0)
    [(0, 1), (1, 2)]
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
