import numpy as np
import pytest

from jaxal.clustering.medoids import mean_distances

METRICS = ["squared", "euclidean", "cosine"]


def dense(x, metric):
    x = np.asarray(x, np.float64)
    if metric == "cosine":
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        return (1 - unit @ unit.T).mean(1)
    squared = ((x[:, None] - x) ** 2).sum(-1)
    return (squared if metric == "squared" else np.sqrt(squared)).mean(1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 2, 41])
def test_means_are_those_of_all_pairs(metric, n):
    x = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    found = mean_distances(x, metric=metric, chunk_size=7)
    np.testing.assert_allclose(found, dense(x, metric), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_chunks_make_no_difference(metric):
    x = np.random.default_rng(0).normal(size=(50, 3))
    found = [mean_distances(x, metric=metric, chunk_size=size) for size in (1, 8, 4096)]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_get_equal_numbers(metric):
    x = np.repeat(np.random.default_rng(0).normal(size=(7, 9)), 3, axis=0)
    found = mean_distances(x, metric=metric).reshape(7, 3)
    np.testing.assert_array_equal(found, found[:, :1].repeat(3, axis=1))


def test_zeros_and_a_far_offset():
    np.testing.assert_array_equal(mean_distances(np.zeros((4, 2)), metric="cosine"), 1)
    x = np.array([[0.0], [1.0], [5.0]]) + 1e6
    np.testing.assert_allclose(mean_distances(x, metric="euclidean"), [2, 5 / 3, 3])


def test_errors():
    with pytest.raises(ValueError, match="metric: expected one of"):
        mean_distances(np.eye(3), metric="manhattan")
    with pytest.raises(ValueError, match="x: expected finite"):
        mean_distances(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="chunk_size"):
        mean_distances(np.eye(3), chunk_size=0)
