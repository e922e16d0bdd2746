"""How strategies stand to one another: ranks, and paired tests over seeds.

All strategies of a benchmark see the same pools and seeds, so a strategy is compared with another
seed by seed. Two tests are reported, and they answer different questions.

* `compare_areas`, the one to conclude from: one two-sided paired t-test over seeds for each pair,
  on the area under the learning curve (`benchmarks.curves.areas`), with Holm's correction over all
  pairs: the chance of calling any pair different that is not is at most 5 %.
* `count_wins`, as is customary since BADGE (arXiv 1906.03671, its pairwise comparison): one such
  test for each pair and round, at 5 %, uncorrected, and the rounds that each side wins counted.
  With many pairs and rounds some of these wins are chance.

Strategies that see labels nobody paid for (oracles) are to be left out by the caller.
"""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.curves import Curve, areas

__all__ = ["LEVEL", "Pairs", "compare_areas", "count_wins", "holm", "mean_ranks"]

LEVEL = 0.05


class Pairs(NamedTuple):
    """Each strategy (row) against each other (column), in the order of the curves."""

    difference: np.ndarray  # [k, k] mean over seeds of the row's area less the column's
    p_value: np.ndarray  # [k, k] after Holm's correction; 1 on the diagonal; NaN with one seed

    @property
    def wins(self) -> np.ndarray:
        """Tell where the row is better than chance allows, ``[k, k]`` bool."""
        return (self.difference > 0) & (self.p_value < LEVEL)


def mean_ranks(found: Mapping[str, Curve]) -> dict[str, float]:
    """Average each strategy's rank over seeds and rounds: 1 is the best, ties share their mean."""
    values = np.stack([curve.values for curve in found.values()])
    ranks = stats.rankdata(-values, axis=0)
    return dict(zip(found, ranks.mean(axis=(1, 2)).tolist(), strict=True))


def compare_areas(found: Mapping[str, Curve]) -> Pairs:
    """Test each pair's areas: a two-sided paired t-test over seeds, Holm's correction over pairs.

    Pairs that are equal for every seed have a p-value of 1.
    """
    each = np.stack([areas(curve) for curve in found.values()])  # [k, s]
    k = len(each)
    p_value = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    p_value[upper] = holm(_paired_test(each[upper[0]], each[upper[1]]))
    p_value.T[upper] = p_value[upper]
    return Pairs((each[:, None] - each[None]).mean(axis=2), p_value)


def count_wins(found: Mapping[str, Curve]) -> np.ndarray:
    """Count the rounds in which the row's accuracy beats the column's, ``[k, k]`` int.

    A round is won by a two-sided paired t-test over seeds at 5 %, uncorrected.
    """
    values = np.stack([curve.values for curve in found.values()])  # [k, s, r]
    first, second = (np.moveaxis(values, 1, -1)[index] for index in np.indices((len(values),) * 2))
    higher = (first - second).mean(axis=-1) > 0
    return (higher & (_paired_test(first, second) < LEVEL)).sum(axis=-1)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values ``[m]`` for their number, step by step (Holm 1979); NaN stays."""
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1) * p_values[order]
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def _paired_test(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute two-sided p-values over the last axis: 1 where all are equal, NaN for one seed."""
    if first.shape[-1] < 2:
        return np.full(first.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of equal differences
        found = np.asarray(stats.ttest_rel(first, second, axis=-1).pvalue)
    return np.where((first == second).all(axis=-1), 1.0, found)
