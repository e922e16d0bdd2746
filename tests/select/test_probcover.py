import jax
import numpy as np
import pytest

from jaxal.clustering import kmeans
from jaxal.scaling import unit_rows
from jaxal.select import Pool, get_strategy
from jaxal.select.probcover import purity_radius, select_probcover

KEY = jax.random.key(0)


def distances(x):
    x = np.float64(unit_rows(x))
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def reference(x, labeled, batch_size, delta):
    """Algorithm 1 of the paper: edges to covered samples leave the graph."""
    edges = distances(x) <= delta
    edges[:, edges[labeled].any(0)] = False
    chosen, covered = list(labeled), []
    for _ in range(batch_size):
        degrees = edges.sum(1)
        degrees[chosen] = -1
        chosen.append(int(degrees.argmax()))
        covered.append(degrees.max())
        edges[:, edges[chosen[-1]]] = False
    return chosen[len(labeled) :], covered


def purity(x, clusters, delta):
    """The share of balls, without their edge, whose samples are all of one cluster."""
    impure = (distances(x) < delta) & (clusters[:, None] != clusters)
    return 1 - impure.any(1).mean()


def make_pool(seed, num_labeled, n=200, d=5, classes=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(classes, d))[rng.integers(classes, size=n)]
    x = x + 0.6 * rng.normal(size=(n, d))
    return Pool(x, classes, rng.permutation(n)[:num_labeled], np.zeros(num_labeled, int))


@pytest.mark.parametrize(("num_labeled", "batch_size"), [(0, 1), (0, 40), (12, 40), (150, 50)])
@pytest.mark.parametrize("delta", [0.25, 0.6])
def test_equals_dense_numpy(num_labeled, batch_size, delta):
    for seed in range(3):
        pool = make_pool(seed, num_labeled)
        picks, info = select_probcover(KEY, pool, batch_size=batch_size, delta=delta, chunk_size=64)
        expected, covered = reference(pool.features, pool.labeled, batch_size, delta)
        np.testing.assert_array_equal(picks, expected)
        np.testing.assert_array_equal(info.covered, covered)
        assert info.delta == pytest.approx(delta)


@pytest.mark.parametrize("alpha", [0.5, 0.95, 1.0])
def test_delta_is_the_largest_pure_one(alpha):
    for seed in range(3):
        pool = make_pool(seed, 3)
        _, info = select_probcover(KEY, pool, batch_size=1, alpha=alpha, chunk_size=64)
        clusters = np.asarray(kmeans(KEY, unit_rows(pool.features), 4).labels)
        delta = float(info.delta)
        assert purity(pool.features, clusters, delta * (1 - 1e-5)) >= alpha
        assert purity(pool.features, clusters, delta * (1 + 1e-5)) < alpha


def test_the_found_delta_is_the_one_picked_with():
    pool = make_pool(1, 3)
    picks, info = select_probcover(KEY, pool, batch_size=20, chunk_size=64)
    expected, _ = reference(pool.features, pool.labeled, 20, float(info.delta))
    np.testing.assert_array_equal(picks, expected)


def test_one_cluster_is_one_ball():
    pool = make_pool(0, 0)._replace(num_classes=1)
    picks, info = select_probcover(KEY, pool, batch_size=3, chunk_size=64)
    np.testing.assert_array_equal(picks, [0, 1, 2])
    np.testing.assert_array_equal(info.covered, [200, 0, 0])
    assert info.delta > 2


def test_near_duplicates_in_two_clusters_leave_no_radius():
    x = unit_rows(np.ones((4, 3)))
    assert purity_radius(x, np.array([0, 1, 0, 1]), alpha=0.9) == 0


def test_chunks_change_nothing():
    pool = make_pool(1, 3)
    parts, few = select_probcover(KEY, pool, batch_size=40, chunk_size=64)
    whole, all_ = select_probcover(KEY, pool, batch_size=40)
    np.testing.assert_array_equal(parts, whole)
    assert few.delta == all_.delta


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_the_features_size_does_not_matter(scale):
    pool = make_pool(0, 3)
    expected, _ = select_probcover(KEY, pool, batch_size=20, delta=0.4, chunk_size=64)
    scaled = pool._replace(features=np.asarray(pool.features) * scale)
    picks, _ = select_probcover(KEY, scaled, batch_size=20, delta=0.4, chunk_size=64)
    np.testing.assert_array_equal(picks, expected)


@pytest.mark.parametrize("labeled", [[], [2]])
def test_constant_features_go_by_index(labeled):
    pool = Pool(np.full((6, 3), 7.0), 2, labeled, [0] * len(labeled))
    for delta in (None, 0.0):
        picks, info = select_probcover(KEY, pool, batch_size=4, delta=delta)
        np.testing.assert_array_equal(picks, [i for i in range(6) if i not in labeled][:4])
        np.testing.assert_array_equal(info.covered, [0 if labeled else 6, 0, 0, 0])


def test_single_sample():
    picks, _ = select_probcover(KEY, Pool(np.ones((1, 2)), 3, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delta": -0.1}, "delta: expected a number of 0 or more"),
        ({"delta": np.inf}, "delta"),
        ({"alpha": 0.0}, "alpha: expected a number above 0"),
        ({"alpha": 1.5}, "alpha: expected at most 1"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"batch_size": 201}, "batch_size: expected at most 200"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        select_probcover(KEY, **({"pool": make_pool(0, 0), "batch_size": 2} | given))


def test_it_starts_with_nothing_labelled():
    strategy = get_strategy("probcover")
    assert strategy.select is select_probcover
    assert strategy.cold_start and not strategy.needs
