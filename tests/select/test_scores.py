import jax
import numpy as np
import pytest
from scipy.stats import entropy

from jaxal.select import Pool
from jaxal.select.entropy import select_entropy
from jaxal.select.least_confidence import select_least_confidence
from jaxal.select.margin import margins, select_margin

KEY = jax.random.key(0)
SELECT = [select_margin, select_entropy, select_least_confidence]


@pytest.fixture
def pool():
    probs = np.random.default_rng(0).dirichlet(np.ones(5), 60).astype(np.float32)
    probs[10] = probs[40]
    probs[3] = [1, 0, 0, 0, 0]
    probs[4] = [0.5, 0.5, 0, 0, 0]
    labeled = np.array([7, 4])
    return Pool(np.zeros((60, 2)), 5, labeled, np.array([0, 1]), probs=probs)


def expected(scores, pool, batch_size):
    rows = [i for i in np.argsort(scores, kind="stable") if i not in pool.labeled]
    return rows[:batch_size]


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 4096), (58, 4096), (58, 7)])
def test_margin(pool, batch_size, chunk_size):
    top = np.sort(pool.probs.astype(float), axis=1)
    scores = top[:, -1] - top[:, -2]
    picks, info = select_margin(KEY, pool, batch_size=batch_size, chunk_size=chunk_size)
    np.testing.assert_array_equal(picks, expected(scores, pool, batch_size))
    np.testing.assert_allclose(info.scores, scores[picks], atol=1e-6)


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 4096), (58, 4096), (58, 7)])
def test_entropy(pool, batch_size, chunk_size):
    scores = entropy(pool.probs.astype(float), axis=1)
    picks, info = select_entropy(KEY, pool, batch_size=batch_size, chunk_size=chunk_size)
    np.testing.assert_array_equal(picks, expected(-scores, pool, batch_size))
    np.testing.assert_allclose(info.scores, scores[picks], atol=1e-5)


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 4096), (58, 4096), (58, 7)])
def test_least_confidence(pool, batch_size, chunk_size):
    scores = pool.probs.max(axis=1)
    picks, info = select_least_confidence(KEY, pool, batch_size=batch_size, chunk_size=chunk_size)
    np.testing.assert_array_equal(picks, expected(scores, pool, batch_size))
    np.testing.assert_array_equal(info.scores, scores[np.asarray(picks)])


def test_two_equal_largest_have_no_margin_and_one_class_is_its_own():
    np.testing.assert_array_equal(margins(np.array([[0.5, 0.5, 0], [1, 0, 0]])), [0, 1])
    np.testing.assert_array_equal(margins(np.ones((3, 1))), 1)


@pytest.mark.parametrize("select", SELECT)
def test_equal_scores_go_by_index(pool, select):
    flat = pool._replace(probs=np.full((60, 5), 0.2))
    np.testing.assert_array_equal(select(KEY, flat, batch_size=6)[0], [0, 1, 2, 3, 5, 6])
    with pytest.raises(ValueError, match=r"needs pool.probs: train a head first"):
        select(KEY, pool._replace(probs=None), batch_size=1)


@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("chunk_size", [0, -1])
def test_bad_chunk_sizes_are_named(pool, select, chunk_size):
    with pytest.raises(ValueError, match="chunk_size: expected a whole number"):
        select(KEY, pool, batch_size=1, chunk_size=chunk_size)
