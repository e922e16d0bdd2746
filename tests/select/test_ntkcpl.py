"""NTKCPL: against its own definition by brute force, and at the odd ends."""

import jax
import numpy as np
import pytest

from jaxal.embedding import cluster_embedding
from jaxal.pseudolabels import cluster_pseudo_labels, num_clusters
from jaxal.select import Pool, get_strategy
from jaxal.select.ntkcpl import default_target_scale, head_kernel, pool_weights, select_ntkcpl


def make_pool(n=120, d=6, num_labeled=0, seed=0, k=3):
    rng = np.random.default_rng(seed)
    classes = rng.integers(k, size=n)
    x = (3 * np.eye(k, d)[classes] + rng.normal(size=(n, d))).astype(np.float32)
    labeled = rng.permutation(n)[:num_labeled]
    return Pool(
        x,
        k,
        labeled,
        classes[labeled],
        probs=rng.dirichlet(np.ones(k), size=n).astype(np.float32),
        hidden=np.abs(rng.normal(size=(n, 4))).astype(np.float32),
        embedding=cluster_embedding(x, num_neighbors=5),
    )


KEY = jax.random.key(3)


@pytest.mark.parametrize("num_labeled", [0, 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cluster_features": "al"},
        {"cluster_features": "self", "weighting": "uniform", "target_scale": 1.0},
        {"refinement": "seeded", "merge": True},
        {"refinement": "split", "max_clusters": 5},
        {"risk": "zero_one", "max_evaluations": 16},
        {"num_candidates": 20},
        {"kernel": lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(-1))},
    ],
)
def test_picks_are_unlabelled_distinct_and_repeatable(num_labeled, options):
    pool = make_pool(num_labeled=num_labeled)
    picks, info = select_ntkcpl(KEY, pool, batch_size=9, **options)
    again, _ = select_ntkcpl(KEY, pool, batch_size=9, **options)
    assert picks.tolist() == again.tolist()
    assert len(set(picks.tolist())) == 9
    assert not set(picks.tolist()) & set(pool.labeled)
    assert np.isfinite(info.squared_risk).all() and np.isfinite(info.risk).all()
    assert 0 <= info.risk[-1] <= 1


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("target_scale", [1.5, None])
@pytest.mark.parametrize(("num_labeled", "seed"), [(0, 0), (8, 0), (8, 1)])
def test_picks_are_those_that_a_refit_likes_best(target_scale, center, num_labeled, seed):
    pool = make_pool(num_labeled=num_labeled, seed=seed)
    kernel = head_kernel(jax.random.key(0), 6)
    options = {"ridge": 0.01, "num_candidates": None, "target_scale": target_scale}
    picks, info = select_ntkcpl(KEY, pool, batch_size=3, center=center, **options)
    scale = 1 + (num_labeled + 3) / 60 if target_scale is None else target_scale
    moved = pool.features - center * pool.features.mean(axis=0)
    scaled = moved * (4 / np.linalg.norm(moved, axis=1).mean())
    gram = np.asarray(kernel(scaled, scaled), np.float64)
    clusters = cluster_pseudo_labels(
        jax.random.split(KEY)[0],
        pool.embedding,
        num_clusters(num_labeled, 3),
        labeled=pool.labeled,
        labels=pool.labels,
        num_classes=3,
        num_restarts=5,
    ).labels
    targets = np.eye(clusters.max() + 1)[clusters]
    free = np.setdiff1d(np.arange(120), pool.labeled)
    ridge = 0.01 * gram[free, free].mean()
    weights = pool_weights(pool, "uncertainty")
    known = pool.labeled.tolist()
    found_risks = np.asarray(info.squared_risk).tolist()
    for pick, found in zip(picks.tolist(), found_risks, strict=True):
        risks = {}
        for row in sorted(set(free) - set(known)):
            rows = [*known, row]
            block = gram[np.ix_(rows, rows)] + ridge * np.eye(len(rows))
            prediction = gram[:, rows] @ np.linalg.solve(block, targets[rows])
            risks[row] = (weights * ((prediction - scale * targets) ** 2).sum(1)).sum()
        assert min(risks.values()) == pytest.approx(found, rel=1e-4)
        assert risks[pick] == pytest.approx(min(risks.values()), rel=1e-4)
        known.append(pick)


@pytest.mark.parametrize(("count", "scale"), [(0, 1.0), (30, 1.5), (60, 2.0), (90, 2.0)])
def test_default_target_scale(count, scale):
    assert default_target_scale(count, 3) == scale


@pytest.mark.parametrize("offset", [1e3, 1e30])
def test_an_offset_of_all_features_changes_no_pick(offset):
    x = np.float32(2.0 ** np.random.default_rng(0).integers(-3, 3, size=(60, 4))) * np.float32(
        offset / 1e3
    )
    pool = Pool(x, 2, [3, 4], [0, 1], embedding=cluster_embedding(x))
    picks = [
        select_ntkcpl(KEY, pool._replace(features=x + shift), batch_size=6, weighting="uniform")[0]
        for shift in (0, np.float32(offset))
    ]
    assert picks[0].tolist() == picks[1].tolist()


def test_everything_left_can_be_picked():
    pool = make_pool(n=30, num_labeled=10)
    picks, _ = select_ntkcpl(KEY, pool, batch_size=20)
    assert sorted([*picks, *pool.labeled]) == list(range(30))


def test_chunk_size_changes_no_pick():
    pool = make_pool(num_labeled=6)
    whole, _ = select_ntkcpl(KEY, pool, batch_size=10)
    parts, _ = select_ntkcpl(KEY, pool, batch_size=10, chunk_size=17)
    assert whole.tolist() == parts.tolist()


def test_first_picks_cover_the_classes():
    pool = make_pool(n=300, k=5, d=8)
    picks, _ = select_ntkcpl(KEY, pool, batch_size=5)
    assert len(set(np.argmax(pool.features[picks][:, :5], axis=1))) == 5


def test_a_thousand_duplicates_are_picked_once_at_most():
    pool = make_pool(n=200)
    x = np.concatenate([np.repeat(pool.features[:1], 1000, axis=0), pool.features])
    pool = Pool(x, 3, np.zeros(0, int), np.zeros(0, int), embedding=cluster_embedding(x))
    picks, info = select_ntkcpl(KEY, pool, batch_size=10)
    assert (picks < 1001).sum() <= 1
    assert np.isfinite(info.squared_risk).all()


@pytest.mark.parametrize("labeled", [[], [4]])
def test_copies_are_picked_only_for_want_of_others(labeled):
    others = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    x = np.concatenate([np.ones((100, 6), np.float32), others])
    embedding = cluster_embedding(x)
    pool = Pool(x, 2, labeled, [0] * len(labeled), embedding=embedding)
    picks, info = select_ntkcpl(KEY, pool, batch_size=12, weighting="uniform")
    assert set(range(100, 108)) <= set(picks.tolist())
    assert len(set(picks.tolist())) == 12
    assert np.isfinite(info.squared_risk).all()


def test_no_group_is_left_out_where_there_are_more_clusters_than_groups():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 16))
    x = (centers[:, None] + 0.1 * rng.normal(size=(20, 50, 16))).reshape(-1, 16)
    pool = Pool(x, 5, [], [], embedding=cluster_embedding(x))
    picks, info = select_ntkcpl(KEY, pool, batch_size=60)
    assert info.num_clusters == 60
    assert len(set((picks // 50).tolist())) == 20


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_and_constant_features(dtype):
    x = np.ones((20, 3), dtype)
    pool = Pool(x, 2, np.zeros(0, int), np.zeros(0, int), embedding=cluster_embedding(x))
    picks, info = select_ntkcpl(KEY, pool, batch_size=3)
    assert len(set(picks.tolist())) == 3
    assert np.isfinite(info.squared_risk).all()


def test_one_class_is_no_error():
    pool = make_pool(num_labeled=4, k=1)
    picks, info = select_ntkcpl(KEY, pool, batch_size=3)
    assert len(set(picks.tolist())) == 3
    assert np.isfinite(info.squared_risk).all()


def test_uncertain_samples_weigh_more():
    pool = make_pool(num_labeled=4)
    probs = np.tile(np.float32([1, 0, 0]), (120, 1))
    probs[7] = [0.5, 0.5, 0]
    weights = pool_weights(pool._replace(probs=probs), "uncertainty")
    assert weights[7] == pytest.approx(20 * weights[0])
    assert weights.sum() == pytest.approx(1)


def test_bad_input_is_named():
    pool = make_pool(num_labeled=5)
    with pytest.raises(ValueError, match="embedding"):
        select_ntkcpl(KEY, pool._replace(embedding=None), batch_size=1)
    with pytest.raises(ValueError, match="probs"):
        select_ntkcpl(KEY, pool._replace(probs=None), batch_size=1)
    with pytest.raises(ValueError, match="hidden"):
        select_ntkcpl(KEY, pool._replace(hidden=None), batch_size=1, cluster_features="al")
    with pytest.raises(ValueError, match="batch_size"):
        select_ntkcpl(KEY, pool, batch_size=116)
    with pytest.raises(ValueError, match="NaN"):
        select_ntkcpl(KEY, pool._replace(features=pool.features * np.nan), batch_size=1)
    with pytest.raises(ValueError, match=r"pool\.num_classes"):
        select_ntkcpl(KEY, pool._replace(num_classes=0), batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        select_ntkcpl(KEY, pool, batch_size="2")
    with pytest.raises(ValueError, match="num_classes"):
        default_target_scale(5, 0)


@pytest.mark.parametrize(
    "option",
    [
        {"ridge": 0.0},
        {"ridge": "a"},
        {"feature_scale": np.inf},
        {"target_scale": 0.5},
        {"target_scale": "a"},
        {"target_scale": True},
        {"max_clusters": "a"},
        {"max_clusters": 3.5},
        {"kernel_width": 0},
        {"num_candidates": 0},
        {"weighting": "best"},
        {"cluster_features": "raw"},
        {"refinement": "bogus"},
        {"merge": "no"},
        {"center": 1},
        {"kernel": 5},
        {"kernel": lambda a, b: (a @ b.T)[:, :1]},
        {"kernel": lambda a, b: a @ b.T * np.nan},
        {"max_clusters": 0},
        {"num_restarts": 0},
        {"max_evaluations": 0},
    ],
)
def test_options_are_checked_before_the_first_label_is_paid_for(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        select_ntkcpl(KEY, make_pool(), batch_size=2, **option)


def test_the_kernel_may_be_as_wide_as_the_features():
    pool = make_pool()
    width = np.shape(pool.features)[1]
    found, wanted = (
        select_ntkcpl(KEY, pool, batch_size=3, kernel_width=own)[0] for own in (None, width)
    )
    np.testing.assert_array_equal(found, wanted)


def test_it_is_registered():
    assert get_strategy("ntkcpl").cold_start
    for space, needs in (("self", {"probs"}), ("al", {"probs", "hidden"})):
        assert get_strategy("ntkcpl").needs_with({"cluster_features": space}) == needs
