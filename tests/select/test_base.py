import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.select import STRATEGIES, Pool, check_pool, get_strategy, unlabeled
from jaxal.select.base import first_best, rank_in_group
from jaxal.train.head import train_head

X = np.arange(12.0).reshape(6, 2)
POOL = Pool(X, 3, np.array([4, 1]), np.array([0, 2]))


def test_unlabeled_is_what_is_left():
    np.testing.assert_array_equal(unlabeled(POOL), [0, 2, 3, 5])


def test_checked_pool_is_on_the_host():
    pool = check_pool(Pool(X, 3, [4, 1], [0, 2]), 4)
    assert pool.labeled.dtype == np.int64 and pool.labels.dtype == np.int32


def test_first_best_breaks_ties_by_index():
    rows, scores = first_best([1, 9, 3, 3, 9, 1], POOL, 3, largest=True)
    np.testing.assert_array_equal(rows, [2, 3, 0])
    np.testing.assert_array_equal(scores, [3, 3, 1])
    np.testing.assert_array_equal(first_best(np.zeros(6), POOL, 4, largest=False)[0], [0, 2, 3, 5])


def test_rank_in_group_counts_in_the_order_of_the_members():
    ranks = rank_in_group(np.array([2, 0, 2, 2, 0]), 4)
    np.testing.assert_array_equal(ranks, [0, 0, 1, 2, 1])
    assert rank_in_group(np.zeros(0, int), 3).shape == (0,)


@pytest.mark.parametrize(
    ("pool", "needs", "message"),
    [
        (POOL._replace(features=X[0]), (), "pool.features: expected a matrix"),
        (POOL._replace(features=X[:0]), (), "pool.features"),
        (POOL._replace(num_classes=0), (), "pool.num_classes"),
        (POOL._replace(labeled=[1, 1]), (), "pool.labeled"),
        (POOL._replace(labeled=[1, 6]), (), "pool.labeled"),
        (POOL._replace(labels=[0, 3]), (), "pool.labels"),
        (POOL._replace(labels=[0]), (), "pool.labels: expected 2 labels, found 1"),
        (POOL._replace(features=X * np.nan), ("features",), "pool.features.*NaN"),
        (POOL, ("probs",), "margin needs pool.probs: train a head first"),
        (POOL, ("hidden",), "margin needs pool.hidden"),
        (POOL, ("embedding",), "margin needs pool.embedding"),
        (POOL._replace(embedding=np.zeros(6)), ("embedding",), "embedding: expected a matrix"),
        (POOL._replace(probs=np.ones((5, 3))), ("probs",), "expected 6 rows"),
        (POOL._replace(probs=np.ones((6, 2))), ("probs",), "expected 3 columns, found 2"),
        (POOL._replace(probs=-np.eye(6, 3)), ("probs",), "found row 0 with a smallest of -1"),
        (
            POOL._replace(probs=np.eye(6, 3)),
            ("probs",),
            "found row 3 .* a sum of 0",
        ),
        (POOL, ("trained",), "margin needs pool.trained: train a head first"),
        (POOL._replace(trained=X), ("trained",), "pool.trained: expected a TrainedHead"),
        (POOL._replace(labeled=[0, 1, 2], labels=[0, 0, 0]), (), "batch_size: expected at most 3"),
    ],
)
def test_bad_pools_are_named(pool, needs, message):
    with pytest.raises(ValueError, match=message):
        check_pool(pool, 4, needs, "margin")


def test_registry():
    for name, strategy in STRATEGIES.items():
        assert get_strategy(name) is strategy
        assert strategy.name == name
        assert strategy.needs <= {"probs", "hidden", "embedding", "trained"}
    with pytest.raises(ValueError, match=r"expected one of .*coreset.*found 'nonsense'"):
        get_strategy("nonsense")


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("batch_size", [1, 17])
def test_every_strategy_takes_one_and_all_that_is_left(name, batch_size):
    rng = np.random.default_rng(0)
    x, labeled, labels = rng.normal(size=(20, 4)), np.array([2, 19, 5]), np.array([0, 1, 1])
    pool = Pool(
        x,
        3,
        labeled,
        labels,
        probs=rng.dirichlet(np.ones(3), 20),
        hidden=rng.normal(size=(20, 5)),
        embedding=rng.normal(size=(20, 4)),
        trained=train_head(jax.random.key(0), x, labeled, labels, 3),
    )
    select = get_strategy(name).select
    if get_strategy(name).oracle:
        select = functools.partial(select, true_labels=rng.integers(3, size=20))
    picks, info = select(jax.random.key(1), pool, batch_size=batch_size)
    assert set(np.asarray(picks).tolist()) <= set(unlabeled(pool).tolist())
    assert len(np.unique(picks)) == batch_size == len(picks)
    assert all(np.shape(leaf)[:1] in ((), (batch_size,)) for leaf in jax.tree.leaves(info))
    again, _ = select(jax.random.key(1), pool, batch_size=batch_size)
    np.testing.assert_array_equal(picks, again)
    with pytest.raises(ValueError, match="batch_size: expected at most 17"):
        select(jax.random.key(1), pool, batch_size=18)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_reads_half_precision_memory_maps_and_device_arrays(name, tmp_path):
    rng = np.random.default_rng(0)
    x, hidden = (rng.normal(size=(20, d)).astype(np.float16) for d in (4, 5))
    labeled, labels = np.array([2, 19, 5]), np.array([0, 1, 1])
    trained = train_head(jax.random.key(0), x, labeled, labels, 3)
    probs = rng.dirichlet(np.ones(3), 20).astype(np.float32)
    plain = Pool(
        np.float32(x),
        3,
        labeled,
        labels,
        probs=probs,
        hidden=np.float32(hidden),
        embedding=np.float32(x),
        trained=trained,
    )
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    others = [
        plain._replace(features=mapped, hidden=hidden, embedding=mapped),
        plain._replace(
            features=jnp.asarray(x),
            hidden=jnp.asarray(hidden),
            embedding=jnp.asarray(x),
            probs=jnp.asarray(probs),
            labeled=jnp.asarray(labeled),
            labels=jnp.asarray(labels),
        ),
    ]
    select = get_strategy(name).select
    if get_strategy(name).oracle:
        select = functools.partial(select, true_labels=rng.integers(3, size=20))
    expected, _ = select(jax.random.key(1), plain, batch_size=4)
    for pool in others:
        picks, _ = select(jax.random.key(1), pool, batch_size=4)
        np.testing.assert_array_equal(picks, expected)


@pytest.mark.parametrize(
    "name",
    ["margin", "least-confidence", "entropy", "coreset", "coreset-hidden", "maxherding", "bait"],
)
def test_the_order_of_the_pool_does_not_matter_where_nothing_is_drawn(name):
    rng = np.random.default_rng(0)
    x, probs = rng.normal(size=(60, 4)), rng.dirichlet(np.ones(3), 60)
    labeled, order = np.array([2, 19, 5]), rng.permutation(60)
    pool = Pool(x, 3, labeled, [0, 1, 1], probs=probs, hidden=x)
    moved = Pool(
        x[order], 3, np.argsort(order)[labeled], [0, 1, 1], probs=probs[order], hidden=x[order]
    )
    picks, _ = get_strategy(name).select(jax.random.key(0), pool, batch_size=12)
    found, _ = get_strategy(name).select(jax.random.key(0), moved, batch_size=12)
    np.testing.assert_array_equal(order[np.asarray(found)], picks)
