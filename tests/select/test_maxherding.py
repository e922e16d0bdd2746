import jax
import numpy as np
import pytest

from jaxal.select import Pool, get_strategy
from jaxal.select.maxherding import select_maxherding

KEY = jax.random.key(0)


def unit(x):
    x = np.float64(x)
    x = x / np.abs(x).max(1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def assert_greedy(pool, picks, gains, sigma=1.0):
    """Follow Algorithm 1 of the paper with the whole kernel in float64.

    Two samples that are each other's only gain are equally good, so that even float64 decides
    between them by rounding: a pick has to be the best but for that.
    """
    x = unit(pool.features)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / sigma**2)
    chosen = list(pool.labeled)
    for pick, found in zip(np.asarray(picks), gains, strict=True):
        covered = kernel[:, chosen].max(1, initial=0)
        gain = np.maximum(kernel - covered[:, None], 0).sum(0)
        gain[chosen] = -1
        assert gain[pick] >= gain.max() * (1 - 1e-6)
        np.testing.assert_allclose(found, gain[pick], rtol=2e-5, atol=2e-5)
        chosen.append(pick)


def make_pool(seed, num_labeled, n=200, d=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, d))[rng.integers(4, size=n)] + 0.8 * rng.normal(size=(n, d))
    return Pool(x, 2, rng.permutation(n)[:num_labeled], np.zeros(num_labeled, int))


@pytest.mark.parametrize(("num_labeled", "batch_size"), [(0, 1), (0, 40), (12, 40), (150, 50)])
def test_equals_dense_numpy(num_labeled, batch_size):
    for seed in range(3):
        pool = make_pool(seed, num_labeled)
        picks, info = select_maxherding(KEY, pool, batch_size=batch_size, chunk_size=64)
        assert_greedy(pool, picks, info.gains)


def test_everything_is_alike_to_a_huge_sigma():
    pool = Pool(np.random.default_rng(0).normal(size=(9, 3)), 2, [], [])
    picks, info = select_maxherding(KEY, pool, batch_size=2, sigma=1e200)
    np.testing.assert_array_equal(picks, [0, 1])
    np.testing.assert_array_equal(info.gains, [9, 0])


@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_sigma(sigma):
    pool = make_pool(4, 6)
    picks, info = select_maxherding(KEY, pool, batch_size=20, sigma=sigma, chunk_size=64)
    assert_greedy(pool, picks, info.gains, sigma)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_the_features_size_does_not_matter(scale):
    pool = make_pool(0, 3)
    expected, _ = select_maxherding(KEY, pool, batch_size=20, chunk_size=64)
    scaled = pool._replace(features=np.asarray(pool.features) * scale)
    picks, _ = select_maxherding(KEY, scaled, batch_size=20, chunk_size=64)
    np.testing.assert_array_equal(picks, expected)


def test_chunks_change_nothing():
    pool = make_pool(1, 3)
    parts, _ = select_maxherding(KEY, pool, batch_size=40, chunk_size=64)
    whole, _ = select_maxherding(KEY, pool, batch_size=40)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("labeled", [[], [2]])
def test_constant_features_go_by_index(labeled):
    pool = Pool(np.full((6, 3), 7.0), 2, labeled, [0] * len(labeled))
    picks, info = select_maxherding(KEY, pool, batch_size=4)
    np.testing.assert_array_equal(picks, [i for i in range(6) if i not in labeled][:4])
    np.testing.assert_array_equal(info.gains, [0 if labeled else 6, 0, 0, 0])


def test_single_sample():
    picks, _ = select_maxherding(KEY, Pool(np.ones((1, 2)), 1, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected a number above 0"),
        ({"sigma": np.nan}, "sigma"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"batch_size": 201}, "batch_size: expected at most 200"),
        ({"pool": make_pool(0, 0)._replace(features=np.full((3, 2), np.nan))}, "features.*NaN"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        select_maxherding(KEY, **({"pool": make_pool(0, 0), "batch_size": 2} | given))


def test_it_starts_with_nothing_labelled():
    strategy = get_strategy("maxherding")
    assert strategy.select is select_maxherding
    assert strategy.cold_start and not strategy.needs
