import math

import jax
import numpy as np
import pytest

from jaxal.select import Pool, bait
from jaxal.select.bait import select_bait
from jaxal.select.bait_prune import prune

KEY = jax.random.key(0)
N, D, C = 60, 4, 4


def problem(seed, num_labeled):
    rng = np.random.default_rng(seed)
    hidden, probs = 3 * rng.normal(size=(N, D)), rng.dirichlet(np.ones(C), N)
    probs[0], probs[1] = np.eye(C)[2], [0.5, 0.5, 0, 0]
    labeled = rng.permutation(N)[:num_labeled]
    return Pool(hidden, C, labeled, np.zeros(num_labeled, int), probs=probs, hidden=hidden)


def informations(pool, fisher):
    if fisher == "binary":
        top = pool.probs.max(axis=1)
        vectors = (np.sqrt(top * (1 - top))[:, None] * pool.hidden)[:, :, None]
    else:  # expected gradients, weighed by the square root of their probabilities
        vectors = np.stack(
            [
                np.kron(np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p)), h[:, None])
                for p, h in zip(pool.probs, pool.hidden, strict=True)
            ]
        )
    return vectors @ vectors.swapaxes(1, 2)


def reference(pool, batch_size, *, fisher="multiclass", ridge=1.0, weight="mean", oversample=2):
    info = informations(pool, fisher)
    mean, labeled = info.mean(axis=0), list(pool.labeled)
    total, both = len(labeled), len(labeled) + batch_size
    old, new = {
        "mean": (1 / max(total, 1), 1),
        "sum": (1, 1),
        "code": (1 / both, batch_size / both),
    }[weight]
    state = ridge * np.eye(len(mean)) + old * info[labeled].sum(axis=0)
    free, picks = sorted(set(range(len(info))) - set(labeled)), []

    def bound(matrix):
        return np.trace(np.linalg.solve(matrix, mean))

    for _ in range(min(math.ceil(oversample * batch_size), len(free))):
        open_ = [i for i in free if i not in picks]
        picks.append(open_[int(np.argmin([bound(state + new * info[i]) for i in open_]))])
        state = state + new * info[picks[-1]]
    while len(picks) > batch_size:
        costs = [bound(state - new * info[i]) for i in reversed(picks)]
        gone = picks.pop(len(picks) - 1 - int(np.argmin(costs)))
        state = state - new * info[gone]
    return picks, bound(state)


@pytest.mark.parametrize("fisher", ["multiclass", "binary"])
@pytest.mark.parametrize("weight", ["mean", "sum", "code"])
@pytest.mark.parametrize(("num_labeled", "ridge"), [(0, 1.0), (5, 0.01), (30, 1.0)])
def test_equals_dense_numpy(fisher, weight, num_labeled, ridge):
    pool = problem(num_labeled, num_labeled)
    picks, info = select_bait(
        KEY,
        pool,
        batch_size=12,
        fisher=fisher,
        ridge=ridge,
        labeled_weight=weight,
        chunk_size=25,
    )
    expected, objective = reference(pool, 12, fisher=fisher, ridge=ridge, weight=weight)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.objective, objective, rtol=1e-5)
    assert info.fisher == fisher and info.ridge == pytest.approx(ridge)
    assert (np.asarray(info.gains) > 0).all()


@pytest.mark.parametrize(("num_labeled", "batch_size"), [(3, 1), (48, 12)])
def test_one_and_all_that_is_left(num_labeled, batch_size):
    pool = problem(4, num_labeled)
    picks, info = select_bait(KEY, pool, batch_size=batch_size)
    expected, objective = reference(pool, batch_size)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.objective, objective, rtol=1e-5)


def test_many_picks_do_not_drift():
    pool = problem(7, 0)
    picks, info = select_bait(KEY, pool, batch_size=29, ridge=0.01)
    expected, objective = reference(pool, 29, ridge=0.01)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.objective, objective, rtol=1e-5)


def test_without_removals_the_forward_picks_stay():
    pool = problem(2, 5)
    picks, _ = select_bait(KEY, pool, batch_size=24, oversample=1)
    np.testing.assert_array_equal(picks, reference(pool, 24, oversample=1)[0])


def test_two_classes_have_one_row_a_sample():
    rng = np.random.default_rng(0)
    hidden, probs = rng.normal(size=(N, D)), rng.dirichlet(np.ones(2), N)
    pool = Pool(hidden, 2, [3], [0], probs=probs, hidden=hidden)
    picks, info = select_bait(KEY, pool, batch_size=12)
    np.testing.assert_array_equal(picks, reference(pool, 12)[0])
    assert info.fisher == "multiclass"


def test_auto_says_what_it_was(monkeypatch):
    pool = problem(0, 5)
    assert select_bait(KEY, pool, batch_size=12)[1].fisher == "multiclass"
    for limit, value in (("_MOST_ROWS", (C - 1) * D - 1), ("_MOST_ENTRIES", N * (C - 1) ** 2 - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(bait, limit, value)
            picks, info = select_bait(KEY, pool, batch_size=12)
        assert info.fisher == "binary"
        np.testing.assert_array_equal(picks, reference(pool, 12, fisher="binary")[0])


def test_float64_enabled_changes_no_pick(x64):
    pool = problem(0, 6)
    assert np.asarray(select_bait(KEY, pool, batch_size=7)[0]).tolist() == reference(pool, 7)[0]
    one = pool._replace(num_classes=1, probs=np.ones((N, 1)))
    assert len(select_bait(KEY, one, batch_size=3)[0]) == 3


def test_candidates_are_drawn_by_key():
    pool = problem(0, 5)
    found = {
        seed: set(
            np.asarray(
                select_bait(jax.random.key(seed), pool, batch_size=12, num_candidates=4)[0]
            ).tolist()
        )
        for seed in (0, 1)
    }
    assert found[0] != found[1]
    assert all(len(picks) == 12 and not picks & set(pool.labeled) for picks in found.values())


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_activations(scale):
    pool = problem(1, 5)
    picks, info = select_bait(KEY, pool._replace(hidden=pool.hidden * scale), batch_size=12)
    # Far under the information, λ counts as a part of it; far above, it is all of M.
    ridge = info.ridge / scale**2
    assert ridge < 1e-2 if scale > 1 else ridge > 1e50
    np.testing.assert_array_equal(picks, reference(pool, 12, ridge=min(ridge, 1e8))[0])
    assert np.isfinite(info.objective)


@pytest.mark.parametrize("fisher", ["multiclass", "binary"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_duplicates_and_zeros_go_by_index(fisher, value):
    hidden, probs = np.full((N, D), value), np.full((N, C), 1 / C)
    pool = Pool(hidden, C, [1], [0], probs=probs, hidden=hidden)
    picks, info = select_bait(KEY, pool, batch_size=12, fisher=fisher)
    np.testing.assert_array_equal(picks, [0, *range(2, 13)])
    assert np.isfinite(info.objective)


def test_single_sample_and_class():
    pool = Pool(np.ones((1, 2)), 1, [], [], probs=np.ones((1, 1)), hidden=np.ones((1, 2)))
    picks, info = select_bait(KEY, pool, batch_size=1)
    np.testing.assert_array_equal(picks, [0])
    assert info.objective == 0


def test_removals_equal_dense_numpy_beyond_a_fold():
    rng = np.random.default_rng(0)
    hidden, root = rng.normal(size=(220, 5)), rng.normal(size=(220, 2, 2))
    vectors = np.stack([np.kron(r, h[:, None]) for r, h in zip(root, hidden, strict=True)])
    info = vectors @ vectors.swapaxes(1, 2)
    state, mean, kept = np.eye(10) + info.sum(axis=0), info.mean(axis=0), list(range(220))
    while len(kept) > 60:
        costs = [np.trace(np.linalg.solve(state - info[i], mean)) for i in kept]
        state = state - info[kept.pop(int(np.argmin(costs)))]
    found, objective = prune(np.eye(10), mean, hidden, root, 60)
    np.testing.assert_array_equal(found, kept)
    np.testing.assert_allclose(objective, np.trace(np.linalg.solve(state, mean)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fisher", "full"),
        ("labeled_weight", "none"),
        ("ridge", 0),
        ("oversample", 0.5),
        ("num_candidates", 0),
        ("chunk_size", 0),
    ],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        select_bait(KEY, problem(0, 1), batch_size=1, **{option: value})


@pytest.mark.parametrize("bad", [-0.1, 0.0])
def test_bad_probabilities_are_named(bad):
    pool = problem(0, 1)
    pool.probs[5] = [bad, 0, 0, 0]
    with pytest.raises(ValueError, match=r"pool.probs: .* row 5"):
        select_bait(KEY, pool, batch_size=1)
