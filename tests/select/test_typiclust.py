import jax
import numpy as np
import pytest

from jaxal.clustering import kmeans
from jaxal.select import Pool
from jaxal.select.typiclust import select_typiclust

KEY = jax.random.key(3)


def check_picks(x, labeled, picks, max_clusters=500):
    """Follow picks by the method in dense float64, on the clusters of the library's k-means.

    Typicalities that are equal but for float32's rounding may go either way.
    """
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    k = min(len(labeled) + len(picks), max_clusters)
    clusters = np.asarray(kmeans(KEY, x.astype(np.float32), k).labels)
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    taken = list(labeled)
    for pick in np.asarray(picks).tolist():
        choices = []
        for c in range(k):
            rows = np.flatnonzero(clusters == c)
            used = np.isin(rows, taken).sum()
            if used < len(rows):
                choices.append((len(rows) <= 5, used, -len(rows), c))
        assert clusters[pick] == min(choices)[-1]
        assert pick not in taken
        rows = np.flatnonzero(clusters == clusters[pick])
        neighbors = min(20, len(rows) // 2)
        near = np.sort(distances[np.ix_(rows, rows)], axis=1)[:, :neighbors]
        typicality = 1 / (near.mean(axis=1) + 1e-5) if neighbors else np.zeros(len(rows))
        typicality[np.isin(rows, taken)] = -np.inf
        assert typicality[rows == pick] >= typicality.max() * (1 - 1e-4)
        taken.append(pick)
    return clusters


@pytest.mark.parametrize(
    ("num_labeled", "batch_size"), [(0, 1), (0, 6), (5, 1), (5, 20), (30, 270)]
)
def test_follows_dense_numpy(num_labeled, batch_size):
    rng = np.random.default_rng(num_labeled)
    means = rng.normal(size=(8, 6)) * 3
    x = means[rng.integers(0, 8, 300)] + rng.normal(size=(300, 6))
    labeled = rng.permutation(300)[:num_labeled]
    pool = Pool(x, 2, labeled, np.zeros(num_labeled, int))
    picks, info = select_typiclust(KEY, pool, batch_size=batch_size, chunk_size=64)
    clusters = check_picks(x, labeled, picks)
    assert len(picks) == batch_size
    np.testing.assert_array_equal(info.clusters, clusters[picks])


def test_one_pick_among_duplicates_of_several_groups():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(12, 5)), 10, axis=0) + np.repeat(
        1e-3 * rng.normal(size=(60, 5)), 2, axis=0
    )
    for labeled in ([], [3, 40]):
        pool = Pool(x, 2, labeled, [0] * len(labeled))
        picks, _ = select_typiclust(KEY, pool, batch_size=1, max_clusters=8)
        check_picks(x, labeled, picks, max_clusters=8)


@pytest.mark.parametrize(("num_labeled", "batch_size"), [(0, 6), (5, 20), (30, 60)])
def test_the_codes_variant_follows_it(num_labeled, batch_size):
    rng = np.random.default_rng(num_labeled)
    x = rng.normal(size=(8, 6))[rng.integers(0, 8, 200)] * 3 + rng.normal(size=(200, 6))
    labeled = rng.permutation(200)[:num_labeled]
    pool = Pool(x, 2, labeled, np.zeros(num_labeled, int))
    given = {"batch_size": batch_size, "max_clusters": 15, "variant": "code"}
    picks, _ = select_typiclust(KEY, pool, **given)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    k = min(num_labeled + batch_size, 15)
    clusters = np.asarray(kmeans(KEY, unit.astype(np.float32), k).labels)
    squared = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    sizes = np.bincount(clusters, minlength=k)
    counts = np.bincount(clusters[labeled], minlength=k)
    large = [c for c in np.lexsort((-sizes, counts)) if sizes[c] > 5]
    left = set(range(200)) - set(labeled.tolist())
    done = 0
    while done < batch_size:
        for c in large:
            rows = [row for row in np.flatnonzero(clusters == c) if row in left]
            if not rows or done == batch_size:
                continue
            near = np.sort(squared[np.ix_(rows, rows)], axis=1)[:, 1 : 1 + min(20, len(rows) // 2)]
            score = 1 / (near.mean(axis=1) + 1e-5) if near.size else np.zeros(len(rows))
            pick = int(picks[done])
            assert pick in rows and score[rows.index(pick)] >= score.max() * (1 - 1e-4)
            left.remove(pick)
            done += 1


def test_more_picks_than_clusters_go_round_again():
    x = np.random.default_rng(0).normal(size=(120, 5))
    pool = Pool(x, 2, np.array([0, 50]), np.array([0, 1]))
    picks, info = select_typiclust(KEY, pool, batch_size=40, max_clusters=4)
    check_picks(x, [0, 50], picks, max_clusters=4)
    assert np.ptp(np.bincount(info.clusters)) <= 3


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(scale):
    x = np.random.default_rng(0).normal(size=(60, 4))
    pools = [Pool(x, 2, [], []), Pool(x * scale, 2, [], [])]
    plain, found = (np.asarray(select_typiclust(KEY, p, batch_size=9)[0]) for p in pools)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_duplicates_go_by_index(scale):
    pool = Pool(np.full((12, 3), scale), 2, np.array([1]), np.array([0]))
    picks, info = select_typiclust(KEY, pool, batch_size=4, max_clusters=1)
    np.testing.assert_array_equal(picks, [0, 2, 3, 4])
    assert np.isfinite(info.typicality).all()


def test_single_sample():
    picks, _ = select_typiclust(KEY, Pool(np.ones((1, 2)), 1, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize(
    "option", ["max_clusters", "min_cluster_size", "num_neighbors", "chunk_size"]
)
def test_bad_options_are_named(option):
    with pytest.raises(ValueError, match=option):
        select_typiclust(KEY, Pool(np.ones((9, 2)), 1, [], []), batch_size=1, **{option: 0})


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="variant: expected one of paper, code, found 'x'"):
        select_typiclust(KEY, Pool(np.ones((9, 2)), 1, [], []), batch_size=1, variant="x")
