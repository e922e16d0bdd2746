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


@pytest.mark.parametrize("n", [60, 700])  # decomposed as a whole, and by Lanczos iteration
def test_diffusion_map_equals_the_textbook(n):
    neighbors = random_graph(n, 5)
    found = diffusion_map(neighbors, 20, time=2.0)
    wanted = dense_diffusion(neighbors, 20, 2.0)
    assert found.shape == (n, 20) and found.dtype == np.float32
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-4)


@pytest.mark.parametrize("size", [4, 60])
def test_separate_groups_are_points(size):
    """Also with more groups than coordinates, and with as many equal eigenvalues as groups."""
    count = 240 // size * 2
    inside = random_graph(size, 3)
    neighbors = np.concatenate([inside + size * g for g in range(count)])
    found = diffusion_map(neighbors, 30, time=20.0)
    similar = found @ found.T
    group = np.repeat(np.arange(count), size)
    same = group[:, None] == group
    assert similar[same].min() > 0.99
    assert similar[~same].max() < 0.9


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
        (lambda: cluster_embedding(np.ones((3, 2)), num_neighbors=0), "num_neighbors"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
