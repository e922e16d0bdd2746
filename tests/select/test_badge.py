import jax
import numpy as np
import pytest

from jaxal.select.badge import gradient_factors, select_badge
from jaxal.select.base import Pool

KEY = jax.random.key(5)


def make_pool(seed=0, n=150, num_labeled=20, classes=4, width=6):
    rng = np.random.default_rng(seed)
    labeled = rng.permutation(n)[:num_labeled]
    probs = rng.dirichlet(np.full(classes, 0.7), n).astype(np.float32)
    hidden = np.maximum(rng.normal(size=(n, width)), 0).astype(np.float32)
    labels = np.zeros(num_labeled, int)
    return Pool(np.zeros((n, 1)), classes, labeled, labels, probs=probs, hidden=hidden)


def gradients(pool):
    """All of ``[n, c * h]`` in float64: equation 1 of the paper."""
    probs, hidden = np.float64(pool.probs), np.float64(pool.hidden)
    factors = probs - np.eye(probs.shape[1])[probs.argmax(axis=1)]
    return (factors[:, :, None] * hidden[:, None]).reshape(len(probs), -1)


def draw_by_mass(key, mass):
    """A group of 512 rows by its mass, then one of its rows, with the same random numbers."""
    groups = np.pad(mass, (0, -len(mass) % 512)).reshape(-1, 512)
    noise = np.float64(jax.random.gumbel(key, (len(groups) + 512,), np.float32, mode="high"))
    with np.errstate(divide="ignore"):
        group = np.argmax(np.log(groups.sum(axis=1)) + noise[512:])
        return group * 512 + np.argmax(np.log(groups[group]) + noise[:512])


def reference(key, pool, batch_size, first="largest"):
    """k-means++ sampling of the unlabelled gradients, with the same random numbers."""
    g = gradients(pool)
    free = np.ones(len(g), bool)
    free[pool.labeled] = False
    closest, picks, distances = None, [], []
    for i in range(batch_size):
        if i == 0 and first == "largest":
            row = np.argmax(np.where(free, (g**2).sum(1), -1))
        else:
            mass = np.where(free, 1.0 if closest is None else closest, 0)
            mass = mass if mass.any() else free.astype(float)
            row = draw_by_mass(jax.random.fold_in(key, i), mass)
        distances.append(np.linalg.norm(g[row]) if closest is None else closest[row] ** 0.5)
        picks.append(int(row))
        free[row] = False
        squared = ((g - g[row]) ** 2).sum(1)
        closest = squared if closest is None else np.minimum(closest, squared)
    return picks, np.linalg.norm(g, axis=1)[picks], distances


@pytest.mark.parametrize(
    ("first", "batch_size"), [("largest", 1), ("largest", 30), ("largest", 130), ("uniform", 30)]
)
def test_equals_the_gradients_in_dense_numpy(first, batch_size):
    for seed in range(3):
        key, pool = jax.random.key(seed), make_pool(seed, n=1100 if batch_size == 30 else 150)
        picks, info = select_badge(key, pool, batch_size=batch_size, first=first)
        expected, norms, distances = reference(key, pool, batch_size, first)
        np.testing.assert_array_equal(picks, expected)
        np.testing.assert_allclose(info.norms, norms, rtol=1e-4)
        np.testing.assert_allclose(info.distances, distances, rtol=1e-3, atol=1e-4)


def test_labelled_samples_are_no_centres():
    pool = make_pool(num_labeled=0)
    longest = int(select_badge(KEY, pool, batch_size=1)[0][0])
    # A copy of the longest gradient is labelled: that makes nothing near it.
    twin = (longest + 1) % 150
    for field in (pool.probs, pool.hidden):
        field[twin] = field[longest]
    pool = pool._replace(labeled=np.array([twin]), labels=np.array([0]))
    assert int(select_badge(KEY, pool, batch_size=1)[0][0]) == longest


def test_chunk_size_changes_no_pick():
    whole, _ = select_badge(KEY, make_pool(), batch_size=30)
    parts, _ = select_badge(KEY, make_pool(), batch_size=30, chunk_size=7)
    np.testing.assert_array_equal(whole, parts)


def draw(pool, batch_size, first):
    keys = [jax.random.key(seed) for seed in range(300)]
    return np.array([select_badge(k, pool, batch_size=batch_size, first=first)[0] for k in keys])


def test_the_second_pick_is_drawn_by_squared_distance():
    pool = make_pool(3, n=8, num_labeled=2)
    picks = draw(pool, 2, "largest")
    assert (picks[:, 0] == picks[0, 0]).all()
    g = gradients(pool)
    expected = ((g - g[picks[0, 0]]) ** 2).sum(1)
    expected[pool.labeled] = 0
    expected *= 300 / expected.sum()
    counts = np.bincount(picks[:, 1], minlength=8)
    assert (counts[expected == 0] == 0).all()
    assert (abs(counts - expected) <= 4.5 * np.sqrt(expected)).all()


def test_a_uniform_first_pick_is_uniform():
    pool = make_pool(3, n=8, num_labeled=2)
    counts = np.bincount(draw(pool, 2, "uniform")[:, 0], minlength=8)
    # Six free samples: 50 each, standard deviation 6.5.
    assert counts[pool.labeled].sum() == 0
    assert abs(np.delete(counts, pool.labeled) - 50).max() < 29


def test_copies_are_drawn_for_want_of_others_only():
    pool = make_pool()
    copies = np.repeat(np.arange(6), 25)
    pool = pool._replace(probs=pool.probs[copies], hidden=1e3 * pool.hidden[copies])
    picks, info = select_badge(KEY, pool, batch_size=130)
    assert len(np.unique(picks)) == 130
    assert len(np.unique(copies[np.asarray(picks)[:6]])) == 6
    np.testing.assert_array_equal(info.distances[6:], 0)


def test_no_gradients_at_all_leave_a_random_choice():
    pool = make_pool()
    pool = pool._replace(probs=np.eye(4)[np.arange(150) % 4])
    picks, info = select_badge(KEY, pool, batch_size=130)
    assert int(picks[0]) == np.setdiff1d(np.arange(150), pool.labeled)[0]
    assert not set(np.asarray(picks).tolist()) & set(pool.labeled.tolist())
    assert len(np.unique(picks)) == 130
    assert (np.diff(picks) < 0).any()
    np.testing.assert_array_equal(info.distances, 0)


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_activations(scale):
    pool = make_pool()
    plain, before = select_badge(KEY, pool, batch_size=30)
    picks, info = select_badge(KEY, pool._replace(hidden=pool.hidden * scale), batch_size=30)
    np.testing.assert_array_equal(picks, plain)
    np.testing.assert_allclose(info.distances / np.float32(scale), before.distances, rtol=1e-5)


def test_a_head_that_is_all_but_certain():
    pool = make_pool()
    sure = np.eye(4)[pool.probs.argmax(axis=1)]
    tiny = np.float32(1e-20) * pool.probs
    picks, info = select_badge(KEY, pool._replace(probs=tiny + sure * (1 - tiny)), batch_size=30)
    assert len(np.unique(picks)) == 30
    assert (np.asarray(info.norms) > 0).all()
    assert np.isfinite(info.distances).all()


def test_the_first_of_equal_classes_is_the_hypothesised_label():
    np.testing.assert_array_equal(gradient_factors(np.array([[0.5, 0.5]])), [[-0.5, 0.5]])


def test_single_sample():
    pool = Pool(np.ones((1, 2)), 1, [], [], probs=np.ones((1, 1)), hidden=np.ones((1, 2)))
    np.testing.assert_array_equal(select_badge(KEY, pool, batch_size=1)[0], [0])


def test_bad_input_is_named():
    pool = make_pool()
    for field in ("probs", "hidden"):
        with pytest.raises(ValueError, match=f"badge needs pool.{field}: train a head first"):
            select_badge(KEY, pool._replace(**{field: None}), batch_size=1)
        with pytest.raises(ValueError, match=f"pool.{field}.*NaN"):
            select_badge(KEY, pool._replace(**{field: getattr(pool, field) * np.nan}), batch_size=1)
    with pytest.raises(ValueError, match="first: expected one of largest, uniform"):
        select_badge(KEY, pool, batch_size=1, first="random")
    with pytest.raises(ValueError, match="chunk_size"):
        select_badge(KEY, pool, batch_size=1, chunk_size=0)
