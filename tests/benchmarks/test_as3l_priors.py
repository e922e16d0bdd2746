import jax
import numpy as np
import pytest

from benchmarks import as3l_priors
from benchmarks.as3l_priors import PRIORS, STRATEGIES, choose, evaluate, judge_prior, propagate
from benchmarks.data import check_data
from jaxal.select import Pool

# A dozen strategies and priors, each of which compiles.
pytestmark = pytest.mark.slow
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 120)
    x = rng.normal(size=(4, 6))[y] * 4 + 0.2 * rng.normal(size=(120, 6))
    return check_data(x, y, x[:10], y[:10], 5)


@pytest.fixture(scope="module")
def pool(data):
    return Pool(data.features, 5, [], [], embedding=np.asarray(data.features, np.float32))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "random"])
def test_all_but_random_cover_separate_blobs(name, data, pool):
    rows = choose(name, KEY, pool, 4, data.labels)
    assert len(set(data.labels[rows])) >= 3
    assert len(set(rows.tolist())) == 4


@pytest.mark.parametrize("name", PRIORS)
def test_priors_of_separate_blobs_are_right(name, data, pool):
    rows = np.concatenate([np.flatnonzero(data.labels == c)[:2] for c in range(4)])
    shares = propagate(name, KEY, pool, rows, data.labels[rows])
    assert shares.shape == (120, 5)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares[:, 4] == 0).all()
    accuracy, calibration = judge_prior(shares, data.labels, rows)
    assert accuracy > 0.95 and calibration < 0.6


@pytest.mark.parametrize("name", PRIORS)
def test_priors_of_one_class(name, data, pool):
    shares = propagate(name, KEY, pool, np.array([3]), np.array([2]))
    np.testing.assert_allclose(shares, np.tile(np.eye(5)[2], (120, 1)), atol=1e-6)


def test_labelled_samples_are_not_judged():
    shares = np.eye(2)[[0, 0, 1, 1]]
    assert judge_prior(shares, np.array([1, 0, 1, 0]), np.array([0]))[0] == pytest.approx(2 / 3)
    assert np.isnan(judge_prior(shares, np.zeros(4, int), np.arange(4))[0])


def test_evaluate_and_table(data, cells):
    given = {"budgets": (4, 8), "strategies": ("random", "kmeans"), "priors": ("nearest",)}
    found = evaluate("blobs", data, seeds=(0, 1), pool_size=100, **given)
    assert len(found) == 8
    assert found == evaluate("blobs", data, seeds=(0, 1), pool_size=100, **given)
    lines = cells(as3l_priors.table(found))
    assert lines[0] == ["data, labels, strategy", "classes", "nearest"]
    assert [line[0] for line in lines[2:]][:2] == ["blobs, 4, random", "blobs, 4, kmeans"]
