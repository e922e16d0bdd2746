import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import load_digits

from jaxal.clustering.lloyd import as_rows, lloyd, plus_plus


def _rows(x, chunk_size=256, weights=None):
    weights = np.ones(len(x)) if weights is None else weights
    return as_rows(x, jnp.asarray(weights, jnp.float32), chunk_size=chunk_size)


def test_rows_are_centred_padded_and_even():
    x = np.random.default_rng(0).normal(3, 2, size=(101, 4))
    rows = _rows(x, 50)
    assert rows.x.shape == (3, 34, 4)
    flat = np.asarray(rows.x).reshape(-1, 4)
    np.testing.assert_allclose(flat[:101] + rows.offset, x, rtol=1e-5)
    np.testing.assert_allclose(flat[:101].mean(0), 0, atol=1e-5)
    np.testing.assert_array_equal(flat[101:], 0)
    np.testing.assert_allclose(rows.variance, x.var(0).mean(), rtol=1e-5)


def test_from_the_same_start_as_scikit_learn():
    x = load_digits().data
    start = x[:25]
    theirs = SklearnKMeans(25, init=start, n_init=1, tol=0).fit(x)
    rows = _rows(x)
    ours = lloyd(rows, jnp.float32(start) - rows.offset, max_iterations=300, tolerance=0.0)
    # Pixels are integers: which of two equally near centres is taken is left to rounding, and a
    # sample or two may stay elsewhere for it.
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-4)
    labels = np.asarray(ours.labels)
    assert np.mean(labels == theirs.labels_) > 0.99
    means = [x[labels == cluster].mean(axis=0) for cluster in range(25)]
    np.testing.assert_allclose(ours.centers + rows.offset, means, atol=1e-3)


def test_plus_plus_potential_is_scikit_learns():
    x = load_digits().data
    rows = _rows(x)
    start = jnp.zeros((50, 64))
    choose = jax.jit(lambda key: plus_plus(key, rows, start, 0, rows.weights))

    def potential(centers):
        return ((x[:, None] - np.asarray(centers)) ** 2).sum(-1).min(1).sum()

    ours = [potential(choose(jax.random.key(seed)) + rows.offset) for seed in range(10)]
    theirs = [potential(kmeans_plusplus(x, 50, random_state=seed)[0]) for seed in range(10)]
    np.testing.assert_allclose(np.mean(ours), np.mean(theirs), rtol=0.02)


def test_plus_plus_keeps_the_given_and_draws_by_weight():
    x = np.random.default_rng(0).normal(size=(60, 3))
    rows = _rows(x)
    allowed = np.arange(60) % 3 == 0
    given = rows.x.reshape(-1, 3)[:2]
    start = jnp.zeros((10, 3)).at[:2].set(given)
    found = plus_plus(jax.random.key(0), rows, start, 2, jnp.float32(allowed))
    np.testing.assert_array_equal(found[:2], given)
    centers = np.asarray(found[2:] + rows.offset)
    index = ((x[:, None] - centers) ** 2).sum(-1).argmin(0)
    assert allowed[index].all()
    assert np.unique(index).size == 8


def test_a_start_with_useless_centres_is_repaired():
    x = load_digits().data[:300]
    rows = _rows(x, 64)
    # All centres but one are so far away that no sample goes there.
    start = jnp.full((6, 64), 1e4).at[0].set(0)
    found = lloyd(rows, start, max_iterations=300, tolerance=0.0)
    assert np.unique(found.labels).size == 6
    best = SklearnKMeans(6, n_init=1, random_state=0).fit(x).inertia_
    assert float(found.inertia) < 1.15 * best
