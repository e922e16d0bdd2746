import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxal.neighbors import nearest_neighbors, neighbor_indices


def _points(n=700, d=24, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def _unit(x):
    x = np.asarray(x, np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


# Below and above the size from which on the top-k works in groups.
@pytest.mark.parametrize("n", [60, 353])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_scikit_learn(n, metric):
    x = _points(n)
    found = nearest_neighbors(x, 20, metric=metric, chunk_size=100)
    model = NearestNeighbors(n_neighbors=20, algorithm="brute", metric=metric)
    distances, indices = model.fit(x.astype(np.float64)).kneighbors()
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4)
    assert found.indices.dtype == np.int32 and found.distances.dtype == np.float32


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_queries_agree_with_scikit_learn(metric):
    x, queries = _points(), _points(33, seed=1)
    found = nearest_neighbors(x, 7, queries=queries, metric=metric, chunk_size=10)
    model = NearestNeighbors(n_neighbors=7, algorithm="brute", metric=metric)
    distances, indices = model.fit(x.astype(np.float64)).kneighbors(queries.astype(np.float64))
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4)


def test_queries_find_themselves():
    x = _points(50)
    found = nearest_neighbors(x, 1, queries=x)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(50))
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


@pytest.mark.parametrize("n", [40, 600])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ties_go_by_the_lower_index(n, metric):
    # One-hot rows and their negatives: the mean is zero and products are exact.
    x = np.eye(n // 2, dtype=np.float32)
    x[5] = x[17]
    x = np.concatenate([x, -x])
    found = np.asarray(nearest_neighbors(x, 4, metric=metric).indices)
    for row in range(n):
        distance = -(x @ x[row])
        distance[row] = 2
        np.testing.assert_array_equal(found[row], np.argsort(distance, kind="stable")[:4])


def test_duplicates_are_neighbours_and_a_row_is_not_its_own():
    x = np.repeat(_points(30), 3, axis=0)
    found = nearest_neighbors(x, 2, metric="euclidean")
    indices = np.asarray(found.indices)
    rows = np.arange(90)
    assert (indices != rows[:, None]).all()
    np.testing.assert_array_equal(indices // 3, np.repeat(rows // 3, 2).reshape(90, 2))
    np.testing.assert_array_equal(found.distances, 0)


def test_all_other_rows():
    x = _points(12)
    found = np.sort(nearest_neighbors(x, 11, metric="euclidean").indices, axis=1)
    np.testing.assert_array_equal(found, [[j for j in range(12) if j != i] for i in range(12)])


def test_zero_rows_are_at_cosine_distance_one():
    x = _points(30)
    x[4] = 0
    found = nearest_neighbors(x, 29)
    np.testing.assert_array_equal(found.distances[4], 1)
    distance = np.asarray(found.distances)[np.asarray(found.indices) == 4]
    np.testing.assert_array_equal(distance, 1)


def test_a_common_offset_keeps_its_digits():
    x = _points(300, 8)
    near = nearest_neighbors(x, 5, metric="euclidean")
    far = nearest_neighbors(x + np.float32(2**10), 5, metric="euclidean")
    assert (np.asarray(near.indices) == np.asarray(far.indices)).mean() > 0.99
    np.testing.assert_allclose(far.distances, near.distances, atol=1e-3)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(metric, scale):
    x, queries = _points(60), _points(9, seed=1)
    for asked in (None, queries):
        near = nearest_neighbors(x, 5, queries=asked, metric=metric)
        asked = asked if asked is None else asked * scale
        found = nearest_neighbors(x * scale, 5, queries=asked, metric=metric)
        np.testing.assert_array_equal(found.indices, near.indices)
        unit = scale if metric == "euclidean" else 1.0
        np.testing.assert_allclose(found.distances / unit, near.distances, rtol=1e-5, atol=1e-6)


def test_neighbor_indices_are_as_many_as_there_are():
    x = _points(6)
    np.testing.assert_array_equal(neighbor_indices(x, 3), nearest_neighbors(x, 3).indices)
    assert neighbor_indices(x).shape == (6, 5)
    assert neighbor_indices(x[:1]).shape == (1, 0)
    with pytest.raises(ValueError, match="num_neighbors: expected a whole number"):
        neighbor_indices(x, 0)


@pytest.mark.parametrize("chunk_size", [1, 37, 150, 1000])
def test_chunks_change_nothing(chunk_size):
    x = _points(150).astype(np.float16)
    whole = nearest_neighbors(x, 5, chunk_size=150)
    found = nearest_neighbors(x, 5, chunk_size=chunk_size)
    np.testing.assert_array_equal(found.indices, whole.indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_neighbors": 10}, "num_neighbors: expected at most 9"),
        ({"num_neighbors": 11, "queries": np.ones((2, 3))}, "num_neighbors: expected at most 10"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"metric": "manhattan"}, "metric: expected"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"queries": np.ones((2, 4))}, "queries: expected 3 columns"),
        ({"x": np.full((10, 3), np.nan)}, "x: expected finite"),
        ({"x": np.ones((1, 3)), "num_neighbors": 1}, "num_neighbors: expected at most 0"),
    ],
)
def test_errors(change, message):
    arguments = {"x": np.eye(10, 3), "num_neighbors": 3} | change
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(**arguments)
