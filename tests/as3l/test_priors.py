import jax
import numpy as np
import pytest

from jaxal.as3l.priors import prior_labels
from jaxal.clustering import seeded_kmeans

KEY = jax.random.key(6)


def blobs(n=200, centers=5, d=4, spread=1.5, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, centers, n)
    return rng.normal(size=(centers, d))[y] * 3 + spread * rng.normal(size=(n, d)), y


def seeded(x, rows, cluster):
    """Constrained-seed k-means without free clusters, dense and in float64: its clusters."""
    forced = np.full(len(x), -1)
    forced[rows] = cluster
    centers = np.stack([x[rows][cluster == c].mean(0) for c in range(cluster.max() + 1)])
    before = None
    while True:
        near = ((x[:, None] - centers) ** 2).sum(-1).argmin(1)
        labels = np.where(forced >= 0, forced, near)
        if before is not None and (labels == before).all():
            return labels
        centers = np.stack([x[labels == c].mean(0) for c in range(len(centers))])
        before = labels


@pytest.mark.parametrize("seeds", ["class", "sample"])
def test_without_free_clusters_it_is_dense_numpy(seeds):
    x, y = blobs()
    rows = np.random.default_rng(1).permutation(200)[:12]
    found = prior_labels(KEY, x, rows, y[rows], 7, num_runs=3, seeds=seeds, extra_clusters=0)
    owners, cluster = y[rows], np.arange(12)
    if seeds == "class":
        owners, cluster = np.unique(y[rows], return_inverse=True)
    expected = owners[seeded(x, rows, cluster)]
    np.testing.assert_array_equal(found.votes, np.tile(expected, (3, 1)))
    np.testing.assert_array_equal(found.hard, expected)
    np.testing.assert_array_equal(found.soft, np.eye(7)[expected])


@pytest.mark.parametrize("seeds", ["class", "sample"])
@pytest.mark.parametrize("extra_clusters", [None, 9])
def test_votes_are_those_of_the_runs_and_shares_those_of_the_votes(seeds, extra_clusters):
    x, y = blobs()
    rows = np.random.default_rng(1).permutation(200)[:12]
    found = prior_labels(
        KEY, x, rows, y[rows], 7, num_runs=4, seeds=seeds, extra_clusters=extra_clusters
    )
    owners, cluster = y[rows], np.arange(12)
    if seeds == "class":
        owners, cluster = np.unique(y[rows], return_inverse=True)
    for run, votes in enumerate(np.asarray(found.votes)):
        clusters = seeded_kmeans(
            jax.random.fold_in(KEY, run), x, len(owners) + (extra_clusters or 12), rows, cluster
        )
        centers = np.asarray(clusters.centers, np.float64)
        distances = ((centers[:, None] - centers[: len(owners)]) ** 2).sum(-1)
        np.testing.assert_array_equal(votes, owners[distances.argmin(1)[clusters.labels]])
    soft = np.stack([np.bincount(votes, minlength=7) / 4 for votes in np.asarray(found.votes).T])
    np.testing.assert_allclose(found.soft, soft, atol=1e-6)
    first = np.asarray(found.votes)[0]
    tied = soft[np.arange(200), first] == soft.max(1)
    np.testing.assert_array_equal(found.hard, np.where(tied, first, soft.argmax(1)))
    assert (soft.max(1) < 1).any()


def test_one_run_is_hard():
    x, y = blobs()
    found = prior_labels(KEY, x, np.arange(20), y[:20], 5, num_runs=1)
    np.testing.assert_array_equal(found.soft, np.eye(5)[found.hard])


@pytest.mark.parametrize("seeds", ["class", "sample"])
@pytest.mark.parametrize("extra_clusters", [0, 4])
def test_missing_classes_have_no_mass_and_labelled_samples_their_own(seeds, extra_clusters):
    x, y = blobs()
    rows = np.concatenate([np.flatnonzero(y == c)[:4] for c in (1, 3)])
    found = prior_labels(
        KEY, x, rows, y[rows], 6, seeds=seeds, extra_clusters=extra_clusters, num_runs=3
    )
    soft = np.asarray(found.soft)
    assert (soft[:, [0, 2, 4, 5]] == 0).all()
    np.testing.assert_array_equal(soft[rows], np.eye(6)[y[rows]])
    np.testing.assert_array_equal(np.asarray(found.hard)[rows], y[rows])


def test_free_clusters_have_the_label_of_the_nearest_seeded_one():
    # Blobs at 0, 3, 10 and 14 on a line, labels at 0 and 14.
    at = np.repeat([0.0, 3.0, 10.0, 14.0], 10)
    x = at[:, None] + 0.01 * np.random.default_rng(0).normal(size=(40, 1))
    found = prior_labels(KEY, x, [0, 39], [1, 0], 2, extra_clusters=2, num_runs=2)
    np.testing.assert_array_equal(found.hard, at < 7)


@pytest.mark.slow
def test_names_of_classes_make_no_difference():
    x, y = blobs()
    rows = np.arange(30)
    new = np.array([3, 0, 4, 1, 2])
    plain = prior_labels(KEY, x, rows, y[rows], 5, seeds="sample")
    found = prior_labels(KEY, x, rows, new[y[rows]], 5, seeds="sample")
    np.testing.assert_array_equal(found.votes, new[np.asarray(plain.votes)])
    np.testing.assert_array_equal(np.asarray(found.soft)[:, new], plain.soft)


@pytest.mark.parametrize("seeds", ["class", "sample"])
def test_labels_that_disagree_within_one_cluster(seeds):
    # Two equal samples of different classes, and one whose label is not that of its blob.
    x, y = blobs(spread=0.2)
    x[1] = x[0]
    rows = np.array([0, 1, *np.flatnonzero(y == (y[0] + 1) % 5)[:2]])
    labels = np.array([0, 1, 2, 2])
    found = prior_labels(KEY, x, rows, labels, 5, seeds=seeds)
    np.testing.assert_array_equal(np.asarray(found.hard)[rows], labels)
    assert np.isfinite(found.soft).all()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["class", "sample"])
def test_equal_samples_and_all_labelled(seeds):
    found = prior_labels(KEY, np.ones((10, 2)), [4, 7], [2, 1], 3, seeds=seeds)
    expected = np.full(10, 2 if seeds == "sample" else 1)
    expected[[4, 7]] = [2, 1]
    np.testing.assert_array_equal(found.hard, expected)
    x, y = blobs(30)
    found = prior_labels(KEY, x, np.arange(30), y, 5, seeds=seeds)
    np.testing.assert_array_equal(found.hard, y)
    one = prior_labels(KEY, x, [3], [4], 5, seeds=seeds)
    np.testing.assert_array_equal(one.hard, 4)


def test_one_key_one_result_whatever_the_chunks():
    x, y = blobs()
    found = [
        prior_labels(KEY, x, np.arange(15), y[:15], 5, extra_clusters=3, chunk_size=size).votes
        for size in (4096, 4096, 33)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_huge_and_tiny_features(scale):
    x, y = blobs()
    plain, found = (prior_labels(KEY, z, np.arange(15), y[:15], 5).votes for z in (x, x * scale))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.full((9, 2), np.nan)}, "x: expected finite"),
        ({"labeled": [], "labels": []}, "labeled: expected at least one"),
        ({"labeled": [0, 0]}, "labeled: expected each index once"),
        ({"labeled": [0, 9]}, "labeled: expected indices in 0..8"),
        ({"labels": [0, 2]}, "labels: expected labels in 0..1"),
        ({"labels": [0]}, "labels: expected 2 labels"),
        ({"num_runs": 0}, "num_runs"),
        ({"seeds": "all"}, "seeds: expected one of sample, class"),
        ({"extra_clusters": -1}, "extra_clusters"),
        ({"extra_clusters": 8}, "extra_clusters: expected at most 7, the unlabelled"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_errors(change, message):
    given = {"x": np.ones((9, 2)), "labeled": [0, 5], "labels": [0, 1], "num_classes": 2}
    with pytest.raises(ValueError, match=message):
        prior_labels(KEY, **(given | change))
