import jax
import numpy as np
import pytest

from jaxal.clustering import kmeans
from jaxal.clustering.groups import find_groups, order_groups, repeat_kmeans

KEY = jax.random.key(5)


def together(labels):
    """Which samples share all clusters, by comparing every pair."""
    return (labels[:, :, None] == labels[:, None, :]).all(0)


@pytest.mark.parametrize(("runs", "k"), [(1, 1), (1, 7), (6, 3), (6, 40)])
def test_groups_are_those_of_brute_force(runs, k):
    labels = np.random.default_rng(k).integers(0, k, (runs, 120))
    labels[:, 30:60] = labels[:, :30]
    found = find_groups(labels)
    np.testing.assert_array_equal(found.labels[:, None] == found.labels, together(labels))
    np.testing.assert_array_equal(found.sizes, np.bincount(found.labels))
    np.testing.assert_array_equal(found.clusters[found.labels], labels.T)


def test_the_largest_group_is_first_and_equal_ones_go_by_their_first_sample():
    found = find_groups([[2, 1, 1, 0, 2, 3]])
    np.testing.assert_array_equal(found.labels, [0, 1, 1, 2, 0, 3])
    np.testing.assert_array_equal(found.sizes, [2, 2, 1, 1])


def test_names_of_clusters_make_no_difference():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 80))
    renamed = np.stack([rng.permutation(4)[run] for run in labels])
    np.testing.assert_array_equal(find_groups(labels).labels, find_groups(renamed).labels)


def test_many_runs_and_large_ids_do_not_overflow():
    labels = np.random.default_rng(0).integers(0, 2**31, (40, 50))
    assert len(find_groups(labels).sizes) == 50


@pytest.mark.parametrize(
    "labels", [[0, 1], np.zeros((2, 0), int), [[0.0, 1.0]], [[0, -1]]], ids=str
)
def test_labels_that_are_none(labels):
    with pytest.raises(ValueError, match="labels: expected"):
        find_groups(labels)


def brute_order(clusters, num, consensus, labeled):
    """Take groups by the rule, one pair at a time."""
    runs = clusters.shape[1]
    taken, order = list(labeled), []
    for _ in range(num):
        best = None
        for g in range(len(clusters)):
            if g in [group for group, _ in order]:
                continue
            shares = [int((clusters[g] == clusters[t]).sum()) for t in taken]
            firsts = [int(clusters[g, 0] == clusters[t, 0]) for t in taken]
            most = max(shares, default=0)
            level = {
                "majority": most if 2 * most > runs else 0,
                "any": most,
                "first": max(firsts, default=0),
                "none": 0,
            }[consensus]
            entry = (g in labeled, level, g)
            if best is None or entry < best[0]:
                best = entry, g, most
        order.append((best[1], best[2]))
        taken.append(best[1])
    return np.array(order).T


@pytest.mark.parametrize("consensus", ["majority", "any", "first", "none"])
@pytest.mark.parametrize("labeled", [[], [0, 3]])
def test_order_is_that_of_brute_force(consensus, labeled):
    groups = find_groups(np.random.default_rng(1).integers(0, 3, (5, 60)))
    total = len(groups.sizes)
    order, shared = order_groups(groups, total, consensus=consensus, labeled=labeled)
    expected, most = brute_order(groups.clusters, total, consensus, labeled)
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(shared, most)
    few, _ = order_groups(groups, 4, consensus=consensus, labeled=labeled)
    np.testing.assert_array_equal(few, expected[:4])


def test_one_group_of_each_cluster_comes_first():
    # Groups of 5, 4 and 3 samples in cluster 0, which one run of three parts; 2 in cluster 1.
    sizes = [5, 4, 3, 2]
    clusters = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 1, 3]])
    groups = find_groups(np.repeat(clusters, sizes, axis=0).T)
    for consensus, expected in (("majority", [0, 3, 1, 2]), ("none", [0, 1, 2, 3])):
        order, _ = order_groups(groups, 4, consensus=consensus)
        np.testing.assert_array_equal(order, expected)


def test_errors_of_the_order():
    groups = find_groups([[0, 1]])
    with pytest.raises(ValueError, match="num_groups: expected at most 2, found 3"):
        order_groups(groups, 3, consensus="none")
    with pytest.raises(ValueError, match=r"labeled: expected indices in 0\.\.1, found 2"):
        order_groups(groups, 1, consensus="none", labeled=[2])
    with pytest.raises(ValueError, match="consensus: expected one of"):
        order_groups(groups, 1, consensus="all")


def test_runs_are_those_of_kmeans():
    x = np.random.default_rng(0).normal(size=(90, 4))
    found = repeat_kmeans(KEY, x, 5, num_runs=3)
    assert found.centers.shape == (3, 5, 4)
    for run in range(3):
        alone = kmeans(jax.random.fold_in(KEY, run), x, 5)
        np.testing.assert_array_equal(found.labels[run], alone.labels)
    with pytest.raises(ValueError, match="num_runs"):
        repeat_kmeans(KEY, x, 5, num_runs=0)
