import numpy as np
import pytest

from benchmarks.curves import Curve, areas, curves, oracles, shown_names
from benchmarks.runner import Row


def row(strategy, seed, n, accuracy, **kwargs):
    return Row(strategy, seed, n, accuracy, 0.5, 0.1, 0.2, None)._replace(**kwargs)


def test_curves_gather_by_seed_and_labels():
    rows = [row("b", s, n, s + n / 100) for n in (20, 10) for s in (1, 0)]
    rows += [row("a", 0, 10, 0.5)]
    found = curves(rows)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"].num_labeled, [10, 20])
    np.testing.assert_allclose(found["b"].values, [[0.1, 0.2], [1.1, 1.2]])
    assert curves(rows, "estimated_risk") == {}


def test_area_is_the_mean_over_the_logarithm():
    rng = np.random.default_rng(0)
    counts, values = np.array([10, 25, 100, 700]), rng.uniform(size=(3, 4))
    grid = np.linspace(1, np.log10(700), 100_001)
    dense = [np.interp(grid, np.log10(counts), own).mean() for own in values]
    np.testing.assert_allclose(areas(Curve(counts, values)), dense, atol=1e-4)
    # A constant is its own mean, and half of the axis counts half.
    assert areas(Curve(np.array([1, 10, 100]), np.array([[0, 0, 1.0]]))) == pytest.approx(0.25)
    np.testing.assert_allclose(areas(Curve(counts, np.full((2, 4), 0.7))), 0.7)


def test_area_of_one_round_is_its_value():
    np.testing.assert_array_equal(
        areas(Curve(np.array([10]), np.array([[0.3], [0.4]]))), [0.3, 0.4]
    )


def test_oracles_are_marked():
    rows = [row("a", 0, 10, 0.5), row("seer", 0, 10, 0.5, oracle=True)]
    assert oracles(rows) == {"seer"}
    assert shown_names(rows) == {"a": "a", "seer": "seer (oracle)"}
