import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.scaling import unit_rows
from jaxal.unit_distances import (
    NOISE,
    as_tiles,
    fold_distances,
    unit_lengths,
    unit_squared_distances,
)


def test_equal_dense_numpy():
    rng = np.random.default_rng(0)
    a, b = unit_rows(rng.normal(size=(30, 7))), unit_rows(rng.normal(size=(20, 7)))
    expected = ((np.float64(a)[:, None] - np.float64(b)[None]) ** 2).sum(-1)
    np.testing.assert_allclose(unit_squared_distances(a, b), expected, atol=1e-6)
    given = unit_squared_distances(a, b, (unit_lengths(a), unit_lengths(b)))
    np.testing.assert_array_equal(given, unit_squared_distances(a, b))


def test_zero_rows_are_at_distance_one():
    x = unit_rows(np.array([[3.0, 4], [0, 0], [6, 8], [0, 0]]))
    expected = [[0, 1, 0, 1], [1, 0, 1, 0]] * 2
    np.testing.assert_array_equal(unit_squared_distances(x, x), expected)
    np.testing.assert_array_equal(unit_lengths(x), [1, 0, 1, 0])


def test_rounding_counts_as_nothing_and_more_does_not():
    angles = np.sqrt(NOISE) * np.array([0, 0.5, 2])
    x = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32)
    found = np.asarray(unit_squared_distances(x, x))[0]
    assert found[1] == 0
    assert found[2] == pytest.approx(4 * NOISE, rel=0.2)


def test_tiles_end_in_zeros():
    np.testing.assert_array_equal(as_tiles(jnp.arange(1, 6), 3), [[1, 2, 3], [4, 5, 0]])
    np.testing.assert_array_equal(as_tiles(jnp.arange(1, 3), 3), [[1, 2]])


@pytest.mark.parametrize("tile", [4, 9, 30])
def test_folding_meets_each_pair(tile):
    x = unit_rows(np.random.default_rng(1).normal(size=(18, 5)))

    def add(a, b, squared, sums):
        sums = sums.at[a].add(squared.sum(1))
        return sums.at[b].add(jnp.where(a == b, 0, squared.sum(0)))

    tiles = as_tiles(x, tile)
    sums = fold_distances(add, tiles, jnp.zeros(tiles.shape[:2])).reshape(-1)[:18]
    squared = np.asarray(unit_squared_distances(x, x), np.float64)
    padding = tiles.shape[0] * tiles.shape[1] - 18  # rows of zeros, at distance one
    np.testing.assert_allclose(sums, squared.sum(1) + padding, rtol=1e-5)
