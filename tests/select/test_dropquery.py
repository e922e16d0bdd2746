import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.clustering import kmeans
from jaxal.models.heads import DenseHead
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, unlabeled
from jaxal.select.dropquery import dropout_disagreements, select_dropquery
from jaxal.train.head import TrainedHead, predict_probs

KEY = jax.random.key(3)
N, D, CLASSES = 112, 6, 4


def make_pool(seed=0, num_labeled=10, hidden=()):
    rng = np.random.default_rng(seed)
    classes = rng.integers(CLASSES, size=N)
    x = (2 * np.eye(CLASSES, D)[classes] + rng.normal(size=(N, D))).astype(np.float32)
    labeled = rng.permutation(N)[:num_labeled]
    pool = Pool(x, CLASSES, labeled, classes[labeled])
    if num_labeled == 0:
        return pool
    head = DenseHead(features=hidden, num_outputs=CLASSES, use_batch_norm=True)
    if hidden:
        variables = jax.jit(head.init)(jax.random.key(seed), x[:1])
    else:
        kernel = np.eye(D, CLASSES) + 0.3 * rng.normal(size=(D, CLASSES))
        dense = {"kernel": kernel.astype(np.float32), "bias": np.float32(rng.normal(size=CLASSES))}
        variables = {"params": {"output": dense}}
    return pool._replace(trained=TrainedHead(head, variables, jnp.zeros(1)))


@functools.partial(jax.jit, static_argnames="rate")
def kept(key, rate):
    """What one prediction keeps, ``[n, d]``: the random numbers that the library draws."""

    bits = 8 if 256 * rate == int(256 * rate) else 16

    def keep(row):
        words = jax.random.bits(jax.random.fold_in(key, row), (-(-D * bits // 32),), jnp.uint32)
        whole = [words >> first & (2**bits - 1) for first in range(0, 32, bits)]
        return jnp.stack(whole, axis=1).reshape(-1)[:D] < round((1 - rate) * 2**bits)

    return jax.vmap(keep)(jnp.arange(N))


def masks(key, num_predictions, rate):
    keys = jax.random.split(key, num_predictions)
    return np.stack([kept(key, rate) for key in keys])


def reference_counts(key, pool, num_predictions, rate):
    dense = pool.trained.variables["params"]["output"]
    kernel, bias = np.float64(dense["kernel"]), np.float64(dense["bias"])
    plain = (pool.features @ kernel + bias).argmax(axis=1)
    found = masks(key, num_predictions, rate)
    return sum((pool.features * m / (1 - rate) @ kernel + bias).argmax(1) != plain for m in found)


def check_picks(pool, picks, info, counts, threshold, normalize=True, key=KEY):
    """Follow picks by the method in dense float64, on the clusters of the library's k-means."""
    batch_size, free = len(picks), unlabeled(pool)
    while (counts[free] >= threshold).sum() < batch_size:
        threshold -= 1
    rows = free[counts[free] >= threshold]
    assert (int(info.threshold), int(info.num_candidates)) == (threshold, len(rows))
    x = np.float64(pool.features)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x
    padded = np.append(rows, np.full(N - len(rows), rows[0]))
    found = kmeans(
        jax.random.split(key)[1],
        unit_rows(pool.features[padded]) if normalize else pool.features[padded],
        batch_size,
        weights=np.arange(N) < len(rows),
    )
    clusters = np.asarray(found.labels)[: len(rows)]
    assert len(np.unique(clusters)) == batch_size
    for cluster, pick in enumerate(np.asarray(picks)):
        members = rows[clusters == cluster]
        assert pick in members
        distances = np.linalg.norm(x[members] - np.asarray(found.centers)[cluster], axis=1)
        assert distances[members == pick] <= distances.min() * (1 + 1e-4) + 1e-6
    np.testing.assert_array_equal(info.clusters, np.arange(batch_size))
    np.testing.assert_array_equal(info.disagreements, counts[np.asarray(picks)])


@pytest.mark.parametrize(
    ("num_predictions", "rate", "chunk_size"), [(3, 0.75, 32), (3, 0.2, 32), (4, 0.5, 4096)]
)
def test_disagreements_equal_dense_numpy(num_predictions, rate, chunk_size):
    pool = make_pool()
    found = dropout_disagreements(
        KEY,
        pool.trained,
        pool.features,
        num_predictions=num_predictions,
        dropout_rate=rate,
        chunk_size=chunk_size,
    )
    expected = reference_counts(KEY, pool, num_predictions, rate)
    np.testing.assert_array_equal(found, expected)
    assert expected.max() == num_predictions and expected.min() == 0


def test_disagreements_of_a_head_with_hidden_layers():
    pool = make_pool(hidden=(5,))
    found = dropout_disagreements(KEY, pool.trained, pool.features)
    plain = np.argmax(predict_probs(pool.trained, pool.features), axis=1)
    dropped = [pool.features * m * 4 for m in masks(KEY, 3, 0.75)]
    expected = sum(np.argmax(predict_probs(pool.trained, x), axis=1) != plain for x in dropped)
    np.testing.assert_array_equal(found, expected)


def test_dropout_keeps_a_quarter_of_the_features():
    found = masks(KEY, 3, 0.75)
    # 2016 features: 504 kept, standard deviation 19.
    assert abs(found.sum() - 504) < 90
    assert len(np.unique(found.reshape(3 * N, D), axis=0)) > 40


@pytest.mark.parametrize("batch_size", [1, 12, 102])
def test_follows_dense_numpy(batch_size):
    for seed in range(3):
        pool = make_pool(seed)
        picks, info = select_dropquery(KEY, pool, batch_size=batch_size)
        counts = reference_counts(jax.random.split(KEY)[0], pool, 3, 0.75)
        check_picks(pool, picks, info, counts, 2)
        assert set(np.asarray(picks).tolist()) <= set(unlabeled(pool).tolist())


def test_raw_features_and_more_predictions():
    pool = make_pool()
    options = {"num_predictions": 4, "dropout_rate": 0.5, "normalize": False}
    picks, info = select_dropquery(KEY, pool, batch_size=12, **options)
    counts = reference_counts(jax.random.split(KEY)[0], pool, 4, 0.5)
    check_picks(pool, picks, info, counts, 3, normalize=False)


@pytest.mark.parametrize("batch_size", [12, 112])
def test_cold_start_takes_the_centres_of_the_whole_pool(batch_size):
    pool = make_pool(num_labeled=0)
    picks, info = select_dropquery(KEY, pool, batch_size=batch_size)
    check_picks(pool, picks, info, np.zeros(N, int), 0)
    assert int(info.num_candidates) == N


def test_too_few_candidates_ask_for_fewer_disagreements():
    pool = make_pool()
    counts = reference_counts(jax.random.split(KEY)[0], pool, 3, 0.1)
    enough = int((counts[unlabeled(pool)] >= 2).sum())
    assert 1 < enough < 12
    _, info = select_dropquery(KEY, pool, batch_size=enough, dropout_rate=0.1)
    assert (int(info.threshold), int(info.num_candidates)) == (2, enough)
    picks, info = select_dropquery(KEY, pool, batch_size=enough + 1, dropout_rate=0.1)
    assert int(info.threshold) == 1
    check_picks(pool, picks, info, counts, 2)
    _, info = select_dropquery(KEY, pool, batch_size=12, dropout_rate=0)
    assert (int(info.threshold), int(info.num_candidates)) == (0, 102)


def test_chunk_size_changes_no_pick():
    pool = make_pool()
    whole, _ = select_dropquery(KEY, pool, batch_size=12)
    parts, _ = select_dropquery(KEY, pool, batch_size=12, chunk_size=32)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(normalize, scale):
    pool = make_pool(num_labeled=0)
    scaled = pool._replace(features=pool.features * np.float32(scale))
    plain, found = (
        select_dropquery(KEY, p, batch_size=12, normalize=normalize)[0] for p in (pool, scaled)
    )
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("num_labeled", [0, 10])
def test_copies_are_picked_once_each(num_labeled):
    pool = make_pool(num_labeled=num_labeled)
    pool = pool._replace(features=pool.features[np.arange(N) // 24])
    picks, info = select_dropquery(KEY, pool, batch_size=12)
    assert len(np.unique(picks)) == 12
    if num_labeled == 0:
        # Five groups: the first of each, then the second of each, and so on.
        np.testing.assert_array_equal(np.sort(np.asarray(picks)[:5]), np.arange(5) * 24)
        np.testing.assert_array_equal(np.sort(np.asarray(picks)[5:10]), np.arange(5) * 24 + 1)
        assert len(np.unique(info.clusters)) == 5


def test_constant_features_go_by_index():
    pool = make_pool()
    pool = pool._replace(features=np.zeros((N, D), np.float32))
    picks, _ = select_dropquery(KEY, pool, batch_size=12)
    np.testing.assert_array_equal(picks, unlabeled(pool)[:12])


def test_single_sample():
    picks, _ = select_dropquery(KEY, Pool(np.ones((1, 2)), 1, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_predictions": 0}, "num_predictions: expected a whole number"),
        ({"dropout_rate": 1.0}, "dropout_rate: expected a number below 1"),
        ({"dropout_rate": -0.1}, "dropout_rate: expected a number of 0 or more"),
        ({"dropout_rate": np.nan}, "dropout_rate"),
        ({"normalize": "yes"}, "normalize: expected True or False"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
@pytest.mark.parametrize("num_labeled", [0, 10])
def test_bad_options_are_named(options, message, num_labeled):
    with pytest.raises(ValueError, match=message):
        select_dropquery(KEY, make_pool(num_labeled=num_labeled), batch_size=1, **options)


def test_bad_pools_are_named():
    pool = make_pool()
    with pytest.raises(ValueError, match=r"dropquery needs pool.trained: train a head first"):
        select_dropquery(KEY, pool._replace(trained=None), batch_size=1)
    with pytest.raises(ValueError, match=r"features: expected 6 columns.*found 5"):
        select_dropquery(KEY, pool._replace(features=pool.features[:, :5]), batch_size=1)
    with pytest.raises(ValueError, match=r"pool.features.*NaN"):
        select_dropquery(KEY, pool._replace(features=pool.features * np.nan), batch_size=1)
    with pytest.raises(ValueError, match=r"features: expected a matrix \[n, d\], found shape"):
        dropout_disagreements(KEY, pool.trained, pool.features[0])
