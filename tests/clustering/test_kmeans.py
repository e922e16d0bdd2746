import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import load_digits, make_blobs

from jaxal.clustering import kmeans

KEY = jax.random.key(0)


def _blobs(n=1500, d=12, centers=20, seed=0):
    return make_blobs(n, d, centers=centers, cluster_std=2.0, random_state=seed)[0]


def _dense_inertia(x, found):
    difference = np.asarray(x, np.float64) - np.asarray(found.centers, np.float64)[found.labels]
    return (difference**2).sum()


@pytest.mark.parametrize(
    ("x", "k"),
    [
        (load_digits().data, 40),
        (_blobs(), 30),
        pytest.param(load_digits().data, 10, marks=pytest.mark.slow),
        pytest.param(_blobs(5000, 64, 100), 100, marks=pytest.mark.slow),
    ],
)
def test_inertia_is_no_worse_than_scikit_learns(x, k):
    ours, theirs = [], []
    for seed in range(10):
        ours.append(float(kmeans(jax.random.key(seed), x, k).inertia))
        theirs.append(SklearnKMeans(k, n_init=1, random_state=seed).fit(x).inertia_)
    # No worse than what ten starts leave to chance.
    chance = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(10)
    assert np.mean(ours) <= np.mean(theirs) + 2 * chance


def test_centers_labels_and_inertia_agree():
    x = _blobs()
    found = kmeans(KEY, x, 30, tolerance=0.0)
    labels = np.asarray(found.labels)
    distances = ((x[:, None] - np.asarray(found.centers)) ** 2).sum(-1)
    np.testing.assert_array_equal(labels, distances.argmin(1))
    means = np.stack([x[labels == c].mean(0) for c in range(30)])
    np.testing.assert_allclose(found.centers, means, atol=1e-4)
    np.testing.assert_allclose(found.inertia, distances.min(1).sum(), rtol=1e-5)
    assert found.labels.dtype == np.int32
    assert 1 <= int(found.num_iterations) < 300


def test_a_common_offset_keeps_its_digits():
    x = np.float32(_blobs(300, 6, 4))
    near, far = kmeans(KEY, x, 4), kmeans(KEY, x + np.float32(2**12), 4)
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_allclose(far.inertia, near.inertia, rtol=1e-2)


def test_the_key_decides():
    x = _blobs()
    first, again, other = (kmeans(k, x, 30) for k in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.centers, again.centers)
    assert (np.asarray(first.labels) != np.asarray(other.labels)).any()


@pytest.mark.parametrize("chunk_size", [1, 97])
def test_chunks_change_no_label(chunk_size):
    x = _blobs(200)
    whole = kmeans(KEY, x, 15)
    chunked = kmeans(KEY, x, 15, chunk_size=chunk_size)
    np.testing.assert_array_equal(whole.labels, chunked.labels)
    np.testing.assert_allclose(whole.centers, chunked.centers, atol=1e-4)


def test_more_restarts_are_never_worse():
    x = load_digits().data
    inertia = [float(kmeans(KEY, x, 40, num_restarts=r).inertia) for r in (1, 3, 6)]
    assert inertia[0] >= inertia[1] >= inertia[2]


def test_integer_weights_count_as_copies():
    x = _blobs(300, 6, 4)
    weights = np.random.default_rng(0).integers(0, 4, 300)
    found = kmeans(KEY, x, 4, weights=weights, tolerance=0.0, num_restarts=4)
    copies = SklearnKMeans(4, n_init=4, random_state=0).fit(np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(found.inertia, copies.inertia_, rtol=1e-4)
    labels = np.asarray(found.labels)
    mean = np.average(x[labels == 2], axis=0, weights=weights[labels == 2])
    np.testing.assert_allclose(found.centers[2], mean, atol=1e-4)


@pytest.mark.parametrize("scale", [1e15, 1e30, 1e-15, 1e-30])
def test_huge_and_tiny_features(scale):
    x = np.float32(_blobs(300, 6, 3))
    found, plain = kmeans(KEY, x * np.float32(scale), 3), kmeans(KEY, x, 3)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_allclose(found.centers / scale, plain.centers, rtol=1e-3, atol=1e-4)
    assert not np.isnan(found.inertia)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_dtypes_and_memory_maps(tmp_path, dtype):
    x = _blobs(300, 6, 4).round().astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = kmeans(KEY, mapped, 4)
    np.testing.assert_array_equal(found.labels, kmeans(KEY, np.float32(x), 4).labels)
    assert found.centers.dtype == np.float32


def test_one_cluster():
    x = _blobs(200, 5, 3)
    found = kmeans(KEY, x, 1)
    np.testing.assert_allclose(found.centers[0], x.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.inertia, ((x - x.mean(0)) ** 2).sum(), rtol=1e-5)


def test_as_many_clusters_as_samples():
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = kmeans(KEY, x, 40)
    assert np.unique(found.labels).size == 40
    assert float(found.inertia) < 1e-9


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_fewer_distinct_samples_than_clusters(tolerance):
    distinct = np.random.default_rng(0).normal(size=(4, 7))
    x = np.repeat(distinct, [5, 1, 30, 9], axis=0)
    found = kmeans(KEY, x, 9, tolerance=tolerance)
    assert np.isfinite(found.centers).all()
    assert int(found.num_iterations) < 300
    labels = np.asarray(found.labels)
    assert labels.min() >= 0 and labels.max() < 9
    assert float(found.inertia) < 1e-9


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5])
def test_constant_features(value):
    found = kmeans(KEY, np.full((53, 2), value), 4)
    np.testing.assert_allclose(found.centers, value, rtol=1e-6)
    assert int(found.num_iterations) < 300


def test_an_emptied_cluster_moves_to_a_far_sample():
    # Two far samples among copies: whatever the start, four clusters must end with four samples.
    x = np.concatenate([np.zeros((50, 2)), [[100, 0], [0, 100], [100, 100]]])
    for seed in range(5):
        found = kmeans(jax.random.key(seed), x, 4)
        assert np.unique(found.labels).size == 4
        np.testing.assert_allclose(_dense_inertia(x, found), 0, atol=1e-6)


def test_max_iterations_is_kept():
    found = kmeans(KEY, _blobs(), 30, max_iterations=2)
    assert int(found.num_iterations) == 2
    np.testing.assert_allclose(found.inertia, _dense_inertia(_blobs(), found), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clusters": 11}, "num_clusters: expected at most 10"),
        ({"num_clusters": 0}, "num_clusters"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"x": np.zeros(10)}, "x: expected a matrix"),
        ({"x": np.full((10, 2), np.nan)}, "x: expected finite"),
        ({"weights": np.ones(9)}, "weights: expected shape"),
        ({"weights": -np.ones(10)}, "weights: expected finite"),
        ({"weights": np.eye(10)[0]}, "num_clusters: expected at most 1,"),
    ],
)
def test_errors(change, message):
    arguments = {"x": np.eye(10, 3), "num_clusters": 3} | change
    with pytest.raises(ValueError, match=message):
        kmeans(KEY, **arguments)
