import jax
import numpy as np
import pytest
from scipy.special import softmax

from jaxal.calibration import TEMPERATURES, calibration_error
from jaxal.select import Pool, get_strategy
from jaxal.select.maxherding import select_maxherding
from jaxal.select.uherding import select_uherding
from jaxal.train.head import LINEAR, predict_probs, train_head

KEY = jax.random.key(0)
SHORT = LINEAR._replace(epochs=20)


def unit(x):
    x = np.float64(x)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def uncertainties(probs, measure, temperature):
    p = np.sort(softmax(np.log(np.maximum(np.float64(probs), 1.2e-38)) / temperature, 1))
    if measure == "margin":
        return 1 - (p[:, -1] - p[:, -2])
    if measure == "entropy":
        return -(p * np.log(p)).sum(1)
    return 1 - p[:, -1]


def closest(pool):
    x = unit(pool.features)[pool.labeled]
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    return distances[distances > 1e-3].min()


def assert_greedy(pool, picks, weights, sigma):
    """Follow Algorithm 1 of the paper with the whole kernel in float64, but for rounding."""
    x = unit(pool.features)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / sigma**2)
    chosen = list(pool.labeled)
    for pick in np.asarray(picks):
        covered = kernel[:, chosen].max(1, initial=0)
        gain = weights @ np.maximum(kernel - covered[:, None], 0)
        gain[chosen] = -1
        assert gain[pick] >= gain.max() * (1 - 1e-5)
        chosen.append(pick)


def make_pool(seed, num_labeled=20, n=150, d=5, classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    x = 2 * rng.normal(size=(classes, d))[truth] + rng.normal(size=(n, d))
    labeled = rng.permutation(n)[:num_labeled]
    probs = rng.dirichlet(np.full(classes, 0.5), n)
    return Pool(x, classes, labeled, truth[labeled], probs=probs)


@pytest.mark.parametrize("measure", ["margin", "entropy", "least-confidence"])
@pytest.mark.parametrize("batch_size", [1, 30, 130])
def test_equals_dense_numpy(measure, batch_size):
    for seed in range(2):
        pool = make_pool(seed)
        picks, info = select_uherding(
            KEY, pool, batch_size=batch_size, uncertainty=measure, temperature=2.5, chunk_size=64
        )
        weights = uncertainties(pool.probs, measure, 2.5)
        assert_greedy(pool, picks, weights, closest(pool))
        np.testing.assert_allclose(info.uncertainties, weights[picks], rtol=1e-4, atol=1e-6)
        assert info.sigma == pytest.approx(closest(pool), rel=1e-4)
        assert info.temperature == 2.5


def test_temperature_is_fitted_on_the_last_labels():
    pool = make_pool(3, num_labeled=50)
    # Nothing can be learnt of these labels, so that every head is overconfident.
    pool = pool._replace(labels=np.random.default_rng(0).integers(3, size=50))
    _, info = select_uherding(KEY, pool, batch_size=1, head=SHORT, chunk_size=64)
    first, last = pool.labeled[:35], pool.labeled[35:]
    head = train_head(KEY, pool.features, first, pool.labels[:35], 3, config=SHORT)
    logits = np.log(np.float64(predict_probs(head, pool.features[last])))
    errors = [calibration_error(softmax(logits / t, 1), pool.labels[35:]) for t in TEMPERATURES]
    assert info.temperature == pytest.approx(TEMPERATURES[np.argmin(errors)])
    assert info.temperature > 1.5


@pytest.mark.parametrize("temperature", [1e-6, 1e30])
def test_temperatures_of_any_size(temperature):
    pool = make_pool(4)
    # Of equal classes, and of almost all on one.
    pool.probs[:2] = [[1 / 3] * 3, [1, 1e-38, 0]]
    picks, info = select_uherding(KEY, pool, batch_size=5, temperature=temperature, chunk_size=64)
    weights = uncertainties(pool.probs, "margin", temperature)
    np.testing.assert_allclose(info.uncertainties, weights[picks], rtol=1e-4, atol=1e-6)
    assert len(np.unique(picks)) == 5 and np.isfinite(info.gains).all()


@pytest.mark.parametrize("num_labeled", [1, 3])
def test_few_labels_are_not_calibrated(num_labeled):
    pool = make_pool(0, num_labeled)
    picks, info = select_uherding(KEY, pool, batch_size=5, chunk_size=64)
    assert info.temperature == 1
    weights = uncertainties(pool.probs, "margin", 1.0)
    assert_greedy(pool, picks, weights, 1.0 if num_labeled == 1 else closest(pool))


def test_labels_of_one_class():
    pool = make_pool(0, 20)
    pool = pool._replace(labels=np.zeros(20, int))
    picks, info = select_uherding(KEY, pool, batch_size=5, head=SHORT, chunk_size=64)
    assert len(set(np.asarray(picks).tolist())) == 5 and info.temperature >= 1


def test_duplicates_among_the_labels_do_not_shrink_sigma():
    pool = make_pool(1)
    x = np.asarray(pool.features).copy()
    x[pool.labeled[3]] = 2 * x[pool.labeled[8]]
    pool = pool._replace(features=x)
    _, info = select_uherding(KEY, pool, batch_size=1, temperature=1.0, chunk_size=64)
    assert info.sigma == pytest.approx(closest(pool), rel=1e-4)
    x[pool.labeled] = 1.0
    _, info = select_uherding(KEY, pool, batch_size=1, temperature=1.0, chunk_size=64)
    assert info.sigma == 1


@pytest.mark.parametrize("certain", [False, True])
def test_without_uncertainty_it_is_maxherding(certain):
    pool = make_pool(2, 20 if certain else 0)
    expected, _ = select_maxherding(KEY, pool, batch_size=25, chunk_size=64)
    # Certain of every sample is certain of none more than of others.
    pool = pool._replace(probs=np.eye(3)[np.zeros(150, int)] if certain else None)
    picks, info = select_uherding(
        KEY, pool, batch_size=25, sigma=1.0 if certain else None, head=SHORT, chunk_size=64
    )
    np.testing.assert_array_equal(picks, expected)
    np.testing.assert_array_equal(info.uncertainties, 1)
    assert info.sigma == 1


def test_chunks_change_nothing():
    pool = make_pool(1)
    given = {"batch_size": 30, "temperature": 1.5}
    parts, _ = select_uherding(KEY, pool, chunk_size=64, **given)
    whole, _ = select_uherding(KEY, pool, **given)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("labeled", [[], [2]])
def test_constant_features_go_by_index(labeled):
    probs = np.full((6, 2), 0.5)
    pool = Pool(np.full((6, 3), 7.0), 2, labeled, [0] * len(labeled), probs=probs)
    picks, info = select_uherding(KEY, pool, batch_size=4)
    np.testing.assert_array_equal(picks, [i for i in range(6) if i not in labeled][:4])
    assert np.isfinite(info.gains).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"uncertainty": "variance"}, "uncertainty: expected one of margin, entropy"),
        ({"temperature": 0.0}, "temperature: expected a number of 1e-06 or more"),
        ({"temperature": 1e-30}, "temperature: expected a number of 1e-06 or more"),
        ({"sigma": -1.0}, "sigma: expected a number above 0"),
        ({"head": "linear"}, "head: expected a HeadConfig"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"batch_size": 131}, "batch_size: expected at most 130"),
        ({"pool": make_pool(0)._replace(probs=None)}, "uherding needs pool.probs"),
        ({"pool": make_pool(0)._replace(probs=-np.ones((150, 3)))}, "pool.probs: expected prob"),
    ],
)
def test_bad_input_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        select_uherding(KEY, **({"pool": make_pool(0), "batch_size": 2} | given))


def test_it_starts_with_nothing_labelled():
    strategy = get_strategy("uherding")
    assert strategy.select is select_uherding
    assert strategy.cold_start and strategy.needs == {"probs"}
