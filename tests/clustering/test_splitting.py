import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from jaxal.clustering import split_clusters

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(800, 5, centers=8, cluster_std=0.3, random_state=3)


def _same_partition(a, b):
    pairs = {(i, j) for i, j in zip(np.asarray(a), np.asarray(b), strict=True)}
    return len(pairs) == np.unique(a).size == np.unique(b).size


def _refines(fine, coarse):
    return len(set(zip(np.asarray(fine), np.asarray(coarse), strict=True))) == np.unique(fine).size


def test_by_size_alone_the_blobs_come_apart(blobs):
    x, y = blobs
    found = split_clusters(KEY, x, np.zeros(800, int), 8)
    assert found.dtype == np.int32
    assert _same_partition(found, y)


def test_what_the_labels_contradict_is_split_first(blobs):
    x, y = blobs
    # Cluster 0: blobs 0 to 5, large; cluster 1: blobs 6 and 7, small but of two classes.
    start = np.where(y < 6, 0, 1)
    labeled = np.array([np.flatnonzero(y == c)[0] for c in (6, 7)])
    found = split_clusters(KEY, x, start, 3, labeled=labeled, class_labels=[1, 0])
    found = np.asarray(found)
    np.testing.assert_array_equal(found[y < 6], 0)
    assert np.unique(found[y >= 6]).size == 2


def test_then_what_the_head_predicts_in_several_classes(blobs):
    x, y = blobs
    start = np.where(y < 6, 0, 1)
    probs = np.eye(2)[(y == 7).astype(int)]
    found = np.asarray(split_clusters(KEY, x, start, 3, probs=probs))
    np.testing.assert_array_equal(found[y < 6], 0)
    assert _same_partition(found[y >= 6], y[y >= 6])


def test_the_labelled_half_keeps_the_id(blobs):
    x, y = blobs
    start = np.where(y < 6, 2, 0)
    labeled = np.flatnonzero(y == 6)[:1]
    probs = np.eye(2)[(y == 7).astype(int)]
    found = np.asarray(
        split_clusters(KEY, x, start, 3, labeled=labeled, class_labels=[4], probs=probs)
    )
    # The new cluster takes the id that was not in use.
    np.testing.assert_array_equal(found[y == 6], 0)
    np.testing.assert_array_equal(found[y == 7], 1)


@pytest.mark.parametrize("min_size", [1, 30, 150])
def test_no_half_is_too_small_and_no_cluster_crosses_another(min_size):
    x = np.random.default_rng(0).normal(size=(900, 5))
    start = (x[:, 0] > 0).astype(int)
    found = np.asarray(split_clusters(KEY, x, start, 20, min_size=min_size))
    sizes = np.unique(found, return_counts=True)[1]
    assert sizes.min() >= min_size
    assert 2 <= len(sizes) <= 20
    assert found.max() < 20
    assert _refines(found, start)
    if min_size == 1:
        assert len(sizes) == 20


@pytest.mark.parametrize(("levels", "clusters"), [(1, 2), (2, 4), (3, 8)])
def test_levels_bound_the_depth(levels, clusters):
    x = np.random.default_rng(0).uniform(size=(640, 5))
    found = split_clusters(KEY, x, np.zeros(640, int), 100, max_levels=levels, min_size=5)
    assert np.unique(found).size == clusters


def test_key_and_chunks():
    x = np.random.default_rng(0).normal(size=(700, 5))
    runs = [
        split_clusters(KEY, x, np.zeros(700, int), 9, chunk_size=size) for size in (100, 4096, 4096)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[1], runs[2])


def test_a_cluster_larger_than_the_smallest_padding():
    x, y = make_blobs(2500, 5, centers=2, random_state=0)
    assert _same_partition(split_clusters(KEY, x, np.zeros(2500, int), 2), y)


def test_duplicates_cannot_be_split():
    found = split_clusters(KEY, np.ones((300, 5)), np.zeros(300, int), 4)
    assert np.unique(found).size == 1


def test_enough_clusters_stay_as_they_are(blobs):
    x, y = blobs
    np.testing.assert_array_equal(split_clusters(KEY, x, y, 8), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(10, 4)}, "labels: expected labels in"),
        ({"labels": np.zeros(9, int)}, "labels: expected 10"),
        ({"labeled": [1]}, "labeled, class_labels"),
        ({"labeled": [1], "class_labels": [1, 2]}, "class_labels: expected 1"),
        ({"labeled": [1], "class_labels": [-1]}, "class_labels: expected labels in"),
        ({"probs": np.ones((9, 2))}, "probs: expected 10 rows"),
        ({"min_size": 0}, "min_size"),
        ({"max_levels": 0}, "max_levels"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_errors(change, message):
    arguments = {"x": np.eye(10, 3), "labels": np.zeros(10, int), "num_clusters": 4} | change
    with pytest.raises(ValueError, match=message):
        split_clusters(KEY, **arguments)
