"""The clusters' embedding: against dense references, and what it is for."""

import numpy as np
import pytest

from jaxal.embedding import cluster_embedding, diffusion_map, half_whiten


def random_graph(n, k, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(np.delete(np.arange(n), i))[:k] for i in range(n)])


def dense_diffusion(neighbors, count, time):
    """Right eigenvectors of the random walk, by the textbook."""
    n, k = neighbors.shape
    named = np.zeros((n, n))
    named[np.repeat(np.arange(n), k), neighbors.ravel()] = 1
    weights = (named + named.T) / 2
    degrees = weights.sum(1)
    values, vectors = np.linalg.eig(weights / degrees[:, None])
    values, vectors = values.real, vectors.real
    order = np.argsort(-values)[1:count]
    # of length 1 in the walk's own inner product, sum of degree times square
    vectors = vectors[:, order] / np.sqrt((degrees[:, None] * vectors[:, order] ** 2).sum(0))
    found = vectors * np.maximum(values[order], 0) ** time
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def planted_graph(groups, size):
    """Random neighbours in each sample's group, but for one of another."""
    inside = np.concatenate([random_graph(size, 4, g) + size * g for g in range(groups)])
    return np.column_stack([inside, (np.arange(groups * size) + size) % (groups * size)])


@pytest.mark.parametrize("neighbors", [random_graph(60, 5), planted_graph(20, 35)])
def test_diffusion_map_equals_the_textbook(neighbors):
    found = diffusion_map(neighbors, 20, time=2.0)
    wanted = dense_diffusion(neighbors, 20, 2.0)
    assert found.shape == (len(neighbors), 20) and found.dtype == np.float32
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-4)


@pytest.mark.parametrize("time", [0.0, 20.0, 1000.0])
@pytest.mark.parametrize(
    ("count", "size", "components"), [(60, 4, 10), (10, 40, 30), (150, 16, 30)]
)
def test_separate_groups_are_points(count, size, components, time):
    """Also with more groups than coordinates, and with as many equal eigenvalues as groups."""
    neighbors = np.concatenate([random_graph(size, 3) + size * g for g in range(count)])
    found = diffusion_map(neighbors, components, time=time)
    assert (found == diffusion_map(neighbors, components, time=time)).all()
    similar = found @ found.T
    group = np.repeat(np.arange(count), size)
    same = group[:, None] == group
    np.testing.assert_allclose(np.diag(similar), 1, atol=1e-5)
    if time > 0:
        assert similar[same].min() > 0.9
    assert similar[~same].max() < 0.95


@pytest.mark.parametrize("time", [3.0, 1000.0])
def test_crowded_eigenvalues_take_no_longer(time):
    steps = np.array([-2, -1, 1, 2])
    ring = (np.arange(2000)[:, None] + steps) % 2000
    found = diffusion_map(ring, 40, time=time)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (found * np.roll(found, 1, axis=0)).sum(1).min() > 0.9


@pytest.mark.slow
def test_many_copies():
    x = np.random.default_rng(0).normal(size=(75, 8)).repeat(20, axis=0)
    found = cluster_embedding(x)
    assert np.isfinite(found).all()


def test_half_whiten_takes_the_square_root_of_each_axis():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)) * [5, 3, 2, 1, 0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centred = unit - unit.mean(0)
    variances, axes = np.linalg.eigh(np.cov(centred.T, bias=True))
    wanted = centred @ axes[:, 1:] * variances[1:] ** -0.25
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = np.asarray(half_whiten(x, 4))
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-4)
    np.testing.assert_allclose(half_whiten(1e20 * x, 5)[:, :4], found, atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_or_equal_samples(n):
    found = cluster_embedding(np.ones((n, 3), np.float16))
    assert found.shape == (n, min(n, 100)) and np.isfinite(found).all()


def test_it_repeats_itself():
    x = np.random.default_rng(0).normal(size=(400, 8))
    assert (cluster_embedding(x) == cluster_embedding(x)).all()


def test_bad_input_is_named():
    for call, name in (
        (lambda: half_whiten(np.ones((3, 2)), 0), "num_axes"),
        (lambda: half_whiten(np.full((3, 2), np.nan), 2), "x"),
        (lambda: diffusion_map([[1], [2]], 2, time=1.0), "neighbors"),
        (lambda: diffusion_map([0, 1], 2, time=1.0), "neighbors"),
        (lambda: diffusion_map([[1], [0]], 0, time=1.0), "num_components"),
        (lambda: diffusion_map([[1], [0]], 2, time=-1.0), "time"),
        (lambda: diffusion_map([[1], [0]], 2, time="a"), "time"),
        (lambda: diffusion_map(np.zeros((0, 2), int), 2, time=1.0), "neighbors"),
        (lambda: cluster_embedding(np.ones((3, 2)), num_neighbors=0), "num_neighbors"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
