import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.curves import Curve, areas
from benchmarks.ranking import compare_areas, count_wins, holm, mean_ranks

COUNTS = np.array([10, 20, 50, 100])


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    seeds = rng.normal(scale=0.05, size=(5, 1))  # what all strategies share in a seed
    levels = {"a": 0.5, "b": 0.6, "c": 0.605, "d": 0.8}
    return {
        name: Curve(COUNTS, level + seeds + rng.normal(scale=0.01, size=(5, 4)))
        for name, level in levels.items()
    }


def plain_p(x, y):
    """Two-sided paired t-test by its definition."""
    d = [a - b for a, b in zip(x, y, strict=True)]
    mean = sum(d) / len(d)
    variance = sum((v - mean) ** 2 for v in d) / (len(d) - 1)
    return 2 * stats.t.sf(abs(mean) / math.sqrt(variance / len(d)), len(d) - 1)


def test_ranks_average_over_seeds_and_rounds(found):
    expected = dict.fromkeys(found, 0.0)
    for s, r in itertools.product(range(5), range(4)):
        order = sorted(found, key=lambda name: -found[name].values[s, r])
        for i, name in enumerate(order):
            expected[name] += (i + 1) / 20
    assert mean_ranks(found) == pytest.approx(expected)
    assert mean_ranks({"a": found["a"], "b": found["a"]}) == {"a": 1.5, "b": 1.5}


def test_areas_are_tested_in_pairs_with_holms_correction(found):
    pairs = compare_areas(found)
    each = [areas(curve) for curve in found.values()]
    raw = {
        (i, j): plain_p(each[i], each[j]) for i, j in itertools.combinations(range(len(each)), 2)
    }
    largest = 0.0
    for step, (i, j) in enumerate(sorted(raw, key=raw.__getitem__)):
        largest = min(1, max(largest, (len(raw) - step) * raw[i, j]))
        assert pairs.p_value[i, j] == pairs.p_value[j, i] == pytest.approx(largest)
        assert pairs.difference[i, j] == pytest.approx(each[i].mean() - each[j].mean())
        assert pairs.difference[i, j] == pytest.approx(-pairs.difference[j, i])
    np.testing.assert_array_equal(np.diag(pairs.p_value), 1)
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    np.testing.assert_array_equal(pairs.wins, expected)


def test_rounds_are_tested_in_pairs_uncorrected(found):
    wins = count_wins(found)
    for (i, a), (j, b) in itertools.permutations(enumerate(found.values()), 2):
        own = [(a.values[:, r], b.values[:, r]) for r in range(4)]
        assert wins[i, j] == sum(x.mean() > y.mean() and plain_p(x, y) < 0.05 for x, y in own)
    assert (np.diag(wins) == 0).all() and wins[3, 0] == 4


def test_equal_strategies_do_not_beat_each_other(found):
    same = {"a": found["a"], "b": found["a"]}
    assert compare_areas(same).p_value[0, 1] == 1 and not compare_areas(same).wins.any()
    assert not count_wins(same).any()


def test_one_seed_decides_nothing(found):
    one = {name: curve._replace(values=curve.values[:1]) for name, curve in found.items()}
    assert np.isnan(compare_areas(one).p_value[0, 1])
    assert not compare_areas(one).wins.any() and not count_wins(one).any()


def test_holm_of_a_worked_example():
    # 0.005 · 4, 0.01 · 3, 0.03 · 2, 0.04 · 1, none below the one before
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).max() == 1 and holm(np.array([])).shape == (0,)


def test_one_strategy_has_no_pair(found):
    pairs = compare_areas({"a": found["a"]})
    assert pairs.p_value.shape == (1, 1) and not count_wins({"a": found["a"]}).any()
