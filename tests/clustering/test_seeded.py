import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs

from jaxal.clustering import kmeans, seeded, seeded_kmeans

KEY = jax.random.key(0)


def _reference(x, start, forced, iterations=300):
    """Constrained-seed k-means by the book, dense and in float64."""
    centers, before = start.copy(), None
    for _ in range(iterations):
        labels = ((x[:, None] - centers) ** 2).sum(-1).argmin(1)
        labels = np.where(forced >= 0, forced, labels)
        if before is not None and (labels == before).all():
            break
        centers = np.stack([x[labels == c].mean(0) for c in range(len(centers))])
        before = labels
    return labels, centers


def test_every_class_labelled_agrees_with_the_dense_reference():
    x, y = load_digits(return_X_y=True)
    labeled = np.random.default_rng(0).permutation(len(x))[:60]
    assert np.unique(y[labeled]).size == 10
    forced = np.full(len(x), -1)
    forced[labeled] = y[labeled]
    start = np.stack([x[labeled][y[labeled] == c].mean(0) for c in range(10)])
    labels, centers = _reference(x, start, forced)
    found = seeded_kmeans(KEY, x, 10, labeled, y[labeled])
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centers, centers, atol=1e-3)
    inertia = ((x - centers[labels]) ** 2).sum()
    np.testing.assert_allclose(found.inertia, inertia, rtol=1e-5)


def test_clusters_of_classes_carry_the_class_id_and_keep_their_samples():
    x, y = make_blobs(800, 6, centers=8, cluster_std=0.5, random_state=0)
    labeled = np.concatenate([np.flatnonzero(y == c)[:3] for c in (2, 5)])
    found = seeded_kmeans(KEY, x, 8, labeled, y[labeled], num_classes=7)
    labels = np.asarray(found.labels)
    for c in (2, 5):
        np.testing.assert_array_equal(labels[y == c], c)
    # The free clusters found the other blobs.
    assert len({(a, b) for a, b in zip(y, labels, strict=True)}) == 8


def test_a_wrong_label_still_binds():
    x, y = make_blobs(300, 4, centers=3, cluster_std=0.3, random_state=1)
    odd = int(np.flatnonzero(y == 1)[5])
    labeled = np.array([np.flatnonzero(y == 0)[0], odd])
    found = seeded_kmeans(KEY, x, 3, labeled, np.array([0, 0]))
    assert found.labels[labeled].tolist() == [0, 0]


def test_fewer_clusters_than_classes_takes_the_classes_in_order():
    x, y = make_blobs(300, 4, centers=3, cluster_std=0.3, random_state=1)
    labeled = np.array([np.flatnonzero(y == c)[0] for c in (2, 0, 1)])
    found = seeded_kmeans(KEY, x, 3, labeled, np.array([9, 4, 6]), num_classes=10)
    labels = np.asarray(found.labels)
    for blob, cluster in ((2, 2), (0, 0), (1, 1)):
        np.testing.assert_array_equal(labels[y == blob], cluster)


def test_without_labels_it_is_kmeans():
    x, _ = make_blobs(300, 4, centers=3, random_state=1)
    none = np.zeros(0, np.int64)
    found = seeded_kmeans(KEY, x, 3, none, none, tolerance=1e-4)
    plain = kmeans(KEY, x, 3)
    np.testing.assert_array_equal(found.labels, plain.labels)


def test_everything_labelled():
    x, y = make_blobs(300, 4, centers=3, random_state=1)
    found = seeded_kmeans(KEY, x, 3, np.arange(300), y)
    np.testing.assert_array_equal(found.labels, y)


def test_chunks_and_key():
    x, y = make_blobs(800, 6, centers=8, random_state=0)
    labeled = np.arange(0, 20)
    runs = [
        seeded_kmeans(KEY, x, 8, labeled, y[labeled], 8, chunk_size=c) for c in (64, 4096, 4096)
    ]
    np.testing.assert_array_equal(runs[0].labels, runs[1].labels)
    np.testing.assert_array_equal(runs[1].centers, runs[2].centers)


@pytest.mark.parametrize("scale", [1e15, 1e30, 1e-30])
def test_huge_and_tiny_features(scale):
    x, y = make_blobs(300, 4, centers=3, random_state=1)
    labeled = np.array([np.flatnonzero(y == c)[0] for c in range(3)])
    found = seeded_kmeans(KEY, x * scale, 3, labeled, y[labeled])
    plain = seeded_kmeans(KEY, x, 3, labeled, y[labeled])
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_allclose(found.centers / scale, plain.centers, rtol=1e-3)


def test_numbers_of_clusters_share_a_compiled_program():
    x, y = make_blobs(310, 4, centers=3, random_state=1)
    before = seeded._run._cache_size()
    for num_clusters in (3, 4, 9, 16):
        found = seeded_kmeans(KEY, x, num_clusters, [0, 1, 2], y[:3])
        assert found.centers.shape == (num_clusters, 4)
        assert np.unique(found.labels).tolist() == list(range(num_clusters))
    assert seeded._run._cache_size() == before + 1


def test_duplicates_leave_valid_clusters():
    x = np.repeat(np.eye(3), 10, axis=0)
    found = seeded_kmeans(KEY, x, 8, [0, 10], [0, 1])
    assert np.isfinite(found.centers).all()
    assert int(found.num_iterations) < 300
    assert float(found.inertia) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clusters": 1}, "num_clusters: expected at least 2"),
        ({"num_clusters": 11}, "num_clusters: expected at most 10"),
        ({"labeled": [0, 0]}, "labeled: expected each index once"),
        ({"labeled": [0, 10]}, "labeled: expected indices"),
        ({"labels": [0]}, "labels: expected 2"),
        ({"labels": [0, 3], "num_classes": 3}, "labels: expected labels in"),
        ({"x": np.full((10, 2), np.inf)}, "x: expected finite"),
    ],
)
def test_errors(change, message):
    arguments = {"x": np.eye(10, 3), "num_clusters": 3, "labeled": [0, 1], "labels": [0, 1]}
    with pytest.raises(ValueError, match=message):
        seeded_kmeans(KEY, **(arguments | change))
