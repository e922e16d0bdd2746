import jax
import numpy as np
import pytest

from jaxal.select import Pool, get_strategy
from jaxal.select.coreset import select_coreset

KEY = jax.random.key(0)


def reference(x, labeled, batch_size):
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    chosen, radii = list(labeled), []
    if not chosen:
        to_mean = np.linalg.norm(x - x.mean(axis=0), axis=1)
        chosen.append(int(to_mean.argmin()))
        radii.append(to_mean.min())
    while len(chosen) < len(labeled) + batch_size:
        nearest = distances[:, chosen].min(axis=1)
        nearest[chosen] = -np.inf
        chosen.append(int(nearest.argmax()))
        radii.append(nearest.max())
    return chosen[len(labeled) :], radii


@pytest.mark.parametrize(
    ("num_labeled", "batch_size"), [(0, 1), (0, 50), (1, 50), (40, 1), (40, 50), (300, 100)]
)
def test_equals_dense_numpy(num_labeled, batch_size):
    rng = np.random.default_rng(num_labeled)
    x = rng.normal(size=(400, 6)) + 20
    labeled = rng.permutation(400)[:num_labeled]
    pool = Pool(x, 2, labeled, np.zeros(num_labeled, int))
    picks, info = select_coreset(KEY, pool, batch_size=batch_size, chunk_size=64)
    expected, radii = reference(x, labeled, batch_size)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.distances, radii, rtol=1e-4)


@pytest.mark.parametrize("labeled", [[], [3, 8]])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_huge_and_tiny_features(labeled, scale):
    x = np.random.default_rng(0).normal(size=(50, 4))
    pool = Pool(x * scale, 2, labeled, [0] * len(labeled))
    picks, info = select_coreset(KEY, pool, batch_size=12)
    expected, radii = reference(x, labeled, 12)
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.distances / scale, radii, rtol=1e-4)


def test_hidden_space():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 3))
    pool = Pool(np.zeros((50, 1)), 2, np.array([4]), np.array([0]), hidden=hidden)
    strategy = get_strategy("coreset-hidden")
    picks, _ = strategy.select(KEY, pool, batch_size=9)
    np.testing.assert_array_equal(picks, reference(hidden, [4], 9)[0])
    with pytest.raises(ValueError, match=r"coreset needs pool.hidden"):
        strategy.select(KEY, pool._replace(hidden=None), batch_size=9)
    with pytest.raises(ValueError, match="space"):
        select_coreset(KEY, pool, batch_size=1, space="logits")


@pytest.mark.parametrize("labeled", [[], [2]])
def test_constant_features_go_by_index(labeled):
    pool = Pool(np.full((6, 3), 7.0), 2, labeled, [0] * len(labeled))
    picks, info = select_coreset(KEY, pool, batch_size=4)
    np.testing.assert_array_equal(picks, [i for i in range(6) if i not in labeled][:4])
    np.testing.assert_array_equal(info.distances, 0)


def test_single_sample():
    picks, _ = select_coreset(KEY, Pool(np.ones((1, 2)), 1, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])


@pytest.mark.parametrize("labeled", [[], [7, 290]])
def test_copies_go_by_index(labeled):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))[rng.integers(30, size=300)]
    pool = Pool(x, 2, labeled, [0] * len(labeled))
    picks, info = select_coreset(KEY, pool, batch_size=300 - len(labeled))
    expected, radii = reference(x, labeled, 300 - len(labeled))
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_allclose(info.distances, radii, rtol=1e-4)
