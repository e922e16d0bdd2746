"""Cluster pseudo-labels."""

import jax
import numpy as np
import pytest

from jaxal.pseudolabels import cluster_pseudo_labels, estimate_purity, num_clusters


def blobs(n=300, k=3, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.integers(k, size=n)
    x = 6 * np.eye(k, 8)[classes] + rng.normal(size=(n, 8))
    return x.astype(np.float32), classes


def same_partition(a, b):
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len(set(np.asarray(a).tolist())) == len(set(np.asarray(b).tolist()))


@pytest.mark.parametrize(
    ("labeled", "batch", "expected"), [(0, 10, 10), (10, 11, 10), (500, 500, 100), (0, 1, 2)]
)
def test_number_of_clusters_is_the_papers(labeled, batch, expected):
    assert num_clusters(labeled, batch) == expected


def test_first_round_clusters_are_found():
    x, classes = blobs()
    found = cluster_pseudo_labels(jax.random.key(0), x, 3, num_restarts=3)
    assert found.num_clusters == 3
    assert same_partition(found.labels, classes)
    assert np.isnan(found.purity)


@pytest.mark.parametrize("refinement", ["none", "seeded", "split"])
def test_every_refinement_numbers_without_gaps_and_sees_no_unpaid_label(refinement):
    x, classes = blobs()
    labeled = np.arange(0, 300, 25)
    found = cluster_pseudo_labels(
        jax.random.key(1),
        x,
        5,
        labeled=labeled,
        labels=classes[labeled],
        num_classes=3,
        probs=np.full((300, 3), 1 / 3, np.float32),
        refinement=refinement,
        min_size=10,
    )
    assert sorted(set(found.labels.tolist())) == list(range(found.num_clusters))
    assert 3 <= found.num_clusters <= 5
    assert found.purity > 0.9


@pytest.mark.parametrize("refinement", ["seeded", "split"])
def test_more_labelled_classes_than_clusters_wanted(refinement):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    labeled = np.arange(20)
    found = cluster_pseudo_labels(
        jax.random.key(0),
        x,
        num_clusters(20, 1),
        labeled=labeled,
        labels=labeled,
        num_classes=20,
        refinement=refinement,
    )
    assert found.num_clusters == 20
    assert found.purity == 1


@pytest.mark.parametrize("num_labeled", [25, 29, 30])
def test_seeds_and_what_is_unlabelled_bound_the_clusters(num_labeled):
    x, classes = blobs(n=30, k=2)
    labeled = np.arange(num_labeled)
    found = cluster_pseudo_labels(
        jax.random.key(0),
        x,
        15,
        labeled=labeled,
        labels=classes[labeled],
        num_classes=2,
        refinement="seeded",
    )
    assert found.num_clusters == 2 + 30 - num_labeled


@pytest.mark.parametrize("max_clusters", [1, 0, -5])
def test_a_cap_below_two_is_refused(max_clusters):
    with pytest.raises(ValueError, match="max_clusters: expected at least 2"):
        num_clusters(10, 10, max_clusters=max_clusters)


def test_merge_joins_clusters_that_share_one_class():
    x, classes = blobs()
    labeled = np.arange(300)
    found = cluster_pseudo_labels(
        jax.random.key(1), x, 9, labeled=labeled, labels=classes, num_classes=3, merge=True
    )
    assert found.num_clusters == 3
    assert same_partition(found.labels, classes)


def test_purity_counts_the_majority():
    clusters = np.array([0, 0, 0, 1, 1])
    assert estimate_purity(clusters, np.arange(5), np.array([0, 0, 1, 1, 1])) == pytest.approx(0.8)


@pytest.mark.parametrize("n", [2, 5])
def test_more_clusters_than_samples(n):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    found = cluster_pseudo_labels(jax.random.key(0), x, 50)
    assert found.num_clusters <= n


def test_constant_features_make_valid_clusters():
    found = cluster_pseudo_labels(jax.random.key(0), np.ones((20, 3), np.float32), 4)
    assert found.labels.shape == (20,)
    assert sorted(set(found.labels.tolist())) == list(range(found.num_clusters))


def test_bad_input_is_named():
    x, _ = blobs()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="refinement"):
        cluster_pseudo_labels(key, x, 3, labeled=[0], labels=[0], refinement="best")  # type: ignore
    with pytest.raises(ValueError, match="refinement"):
        cluster_pseudo_labels(key, x, 3, refinement="best")  # type: ignore
    with pytest.raises(ValueError, match="num_clusters"):
        cluster_pseudo_labels(key, x, 0)
    with pytest.raises(ValueError, match="labels"):
        cluster_pseudo_labels(key, x, 3, labeled=[0], labels=[4], num_classes=3)
    with pytest.raises(ValueError, match="features"):
        cluster_pseudo_labels(key, np.full((4, 2), np.nan), 3)
