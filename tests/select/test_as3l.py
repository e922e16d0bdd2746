import functools

import jax
import numpy as np
import pytest

from jaxal.as3l import AS3L, fine_tune_features, select_as3l
from jaxal.clustering.groups import find_groups, order_groups, repeat_kmeans
from jaxal.select import Pool, check_options

KEY = jax.random.key(4)
# The paper's, on fine-tuned features.
fine = functools.partial(select_as3l, space="fine")
NONE = np.zeros(0, int)


def blobs(n=240, centers=6, d=5, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, centers, n)
    return rng.normal(size=(centers, d))[y] * 3 + spread * rng.normal(size=(n, d)), y


def medoid(x, rows, metric):
    x = np.asarray(x, np.float64)[rows]
    if metric == "cosine":
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (1 - unit @ unit.T).mean(1)
    squared = ((x[:, None] - x) ** 2).sum(-1)
    return (squared if metric == "squared" else np.sqrt(squared)).mean(1)


@pytest.mark.parametrize("metric", ["squared", "euclidean", "cosine"])
@pytest.mark.parametrize("labeled", [[], [0, 7, 100]])
def test_picks_are_the_medoids_of_the_groups_in_order(metric, labeled):
    x, _ = blobs(spread=2.0)
    pool = Pool(x, 3, labeled, np.zeros(len(labeled), int), embedding=x)
    picks, info = select_as3l(
        KEY, pool, batch_size=8, space="embedding", num_clusters=5, num_runs=4, medoid=metric
    )
    runs = repeat_kmeans(jax.random.split(KEY)[1], x, 5, num_runs=4)
    groups = find_groups(runs.labels)
    order, shared = order_groups(groups, 8, consensus="majority", labeled=groups.labels[labeled])
    np.testing.assert_array_equal(info.groups, order)
    np.testing.assert_array_equal(info.shared, shared)
    np.testing.assert_array_equal(info.sizes, groups.sizes[order])
    np.testing.assert_array_equal(info.ranks, 0)
    assert info.num_groups == len(groups.sizes)
    for pick, group in zip(np.asarray(picks), order, strict=True):
        rows = np.flatnonzero(groups.labels == group)
        cost = medoid(x, rows, metric)
        assert pick in rows and pick not in labeled
        free = ~np.isin(rows, labeled)
        assert cost[rows == pick] <= cost[free].min() * (1 + 1e-9)


def test_separate_blobs_get_one_pick_each():
    x, y = blobs()
    picks, info = fine(KEY, Pool(x, 6, NONE, NONE), batch_size=6)
    assert sorted(y[np.asarray(picks)]) == list(range(6))
    more, _ = fine(KEY, Pool(x, 6, picks[:4], [0] * 4), batch_size=2)
    assert sorted(y[np.concatenate([picks[:4], more])]) == list(range(6))
    assert (info.sizes > 0).all()


def test_labels_are_not_looked_at():
    x, _ = blobs(spread=2.0)
    labeled = [3, 90, 5, 41]
    found = [
        fine(KEY, Pool(x, 4, labeled, labels), batch_size=7)[0]
        for labels in ([0, 1, 2, 3], [3, 1, 0, 2], [0, 0, 0, 0])
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_one_key_one_choice_whatever_the_chunks():
    x, _ = blobs()
    pool = Pool(x, 6, NONE, NONE)
    runs = [fine(KEY, pool, batch_size=6, chunk_size=size)[0] for size in (4096, 4096, 50)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_features_tuned_before_are_the_embedding():
    x, _ = blobs(spread=1.0)
    tune_key, _ = jax.random.split(KEY)
    tuned = fine_tune_features(tune_key, x, 9).features
    pool = Pool(x, 6, NONE, NONE, embedding=tuned)
    inside, _ = fine(KEY, pool, batch_size=9)
    outside, _ = select_as3l(KEY, pool, batch_size=9)
    np.testing.assert_array_equal(inside, outside)


def test_more_picks_than_groups_go_round_in_order_of_the_distance():
    x, _ = blobs(60, centers=3, spread=0.1)
    pool = Pool(x, 3, NONE, NONE, embedding=x)
    picks, info = select_as3l(KEY, pool, batch_size=8, space="embedding", num_clusters=3)
    assert info.num_groups == 3
    np.testing.assert_array_equal(info.groups, [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(info.ranks, [0, 0, 0, 1, 1, 1, 2, 2])
    groups = find_groups(repeat_kmeans(jax.random.split(KEY)[1], x, 3, num_runs=6).labels).labels
    for group in range(3):
        rows = np.flatnonzero(groups == group)
        nearest = rows[np.argsort(medoid(x, rows, "squared"))]
        mine = np.asarray(picks)[info.groups == group]
        np.testing.assert_array_equal(mine, nearest[: len(mine)])


@pytest.mark.parametrize("space", ["fine", "features"])
def test_equal_samples_go_by_index(space):
    pool = Pool(np.ones((12, 3)), 2, [1], [0])
    picks, _ = select_as3l(KEY, pool, batch_size=4, space=space)
    assert len(set(np.asarray(picks).tolist()) - {1}) == 4
    if space == "features":
        np.testing.assert_array_equal(picks, [0, 2, 3, 4])


@pytest.mark.slow
def test_all_that_is_left_and_groups_that_are_wholly_labelled():
    x, _ = blobs(40, spread=2.0)
    labeled = np.random.default_rng(0).permutation(40)[:25]
    pool = Pool(x, 1, labeled, [0] * 25, embedding=x)
    picks, _ = select_as3l(KEY, pool, batch_size=15, space="embedding", num_clusters=12)
    assert sorted(np.concatenate([picks, labeled]).tolist()) == list(range(40))
    few, info = select_as3l(KEY, pool, batch_size=3, space="embedding", num_clusters=30)
    assert len(set(np.asarray(few)) - set(labeled)) == 3
    np.testing.assert_array_equal(info.ranks, 0)


def test_a_first_batch_of_one_is_the_medoid_of_all():
    x, _ = blobs(50)
    picks, info = fine(KEY, Pool(x, 6, NONE, NONE), batch_size=1, medoid="cosine")
    np.testing.assert_array_equal(picks, [medoid(x, np.arange(50), "cosine").argmin()])
    assert info.num_groups == 1
    alone, _ = fine(KEY, Pool(np.ones((1, 2)), 1, NONE, NONE), batch_size=1)
    np.testing.assert_array_equal(alone, [0])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(scale):
    x, _ = blobs(80)
    plain, found = (fine(KEY, Pool(z, 6, NONE, NONE), batch_size=5)[0] for z in (x, x * scale))
    np.testing.assert_array_equal(found, plain)


def test_the_strategy():
    assert AS3L.name == "as3l" and AS3L.cold_start
    assert AS3L.needs_with({}) == {"embedding"}
    assert AS3L.needs_with({"space": "fine", "num_runs": 2}) == frozenset()
    assert check_options(AS3L, {"num_runs": 2, "consensus": "any"})
    with pytest.raises(ValueError, match="space: expected one of"):
        AS3L.needs_with({"space": "all"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 10}, "batch_size: expected at most 9, the samples left"),
        ({"batch_size": 0}, "batch_size"),
        ({"space": "embedding"}, "as3l needs pool.embedding"),
        ({"space": "tuned"}, "space: expected one of embedding, fine, features"),
        ({"num_clusters": 10}, "num_clusters: expected at most 9"),
        ({"num_clusters": 0}, "num_clusters"),
        ({"num_runs": 0}, "num_runs"),
        ({"consensus": "all"}, "consensus: expected one of"),
        ({"medoid": "mean"}, "metric|medoid: expected one of"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"pool": Pool(np.full((9, 2), np.nan), 1, [], [])}, "pool.features: expected finite"),
    ],
)
def test_errors(change, message):
    given = {"pool": Pool(np.ones((9, 2)), 1, [], []), "batch_size": 2, "space": "fine"}
    with pytest.raises(ValueError, match=message):
        select_as3l(KEY, **(given | change))
