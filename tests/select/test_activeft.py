import jax
import numpy as np
import pytest

from jaxal.select import Pool
from jaxal.select.activeft import select_activeft

KEY = jax.random.key(2)
TAU = 0.07


def logsumexp(scores, axis):
    largest = scores.max(axis=axis, keepdims=True)
    return (np.log(np.exp(scores - largest).sum(axis=axis, keepdims=True)) + largest).squeeze(axis)


def normalised(x):
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def paper(theta, fixed, x, balance):
    """Loss and gradient with the labelled samples as further centroids, b of them free."""
    b, rows = len(theta), np.concatenate([theta, fixed])
    own = (x @ rows.T).argmax(axis=1)
    gradient = np.zeros_like(theta)
    loss = -(x * rows[own]).sum(axis=1).mean() / TAU
    for j in range(b):
        gradient[j] -= x[own == j].sum(axis=0) / len(x) / TAU
    if len(rows) > 1:
        scores = rows @ rows.T / TAU
        np.fill_diagonal(scores, -np.inf)
        loss += balance * logsumexp(scores, 1).mean()
        share = np.exp(scores - logsumexp(scores, 1)[:, None]) / len(rows)
        gradient += balance * ((share + share.T) @ rows / TAU)[:b]
    return loss, gradient


def code(theta, fixed, x, balance):
    length = np.linalg.norm(theta, axis=1, keepdims=True)
    unit = theta / length
    rows = np.concatenate([unit, fixed])
    scores = x @ rows.T / TAU
    own = scores.argmax(axis=1)
    among = rows @ rows.T / TAU
    negative = np.exp(among).sum(axis=1) * balance
    positive = np.exp(scores.max(axis=1))
    loss = -np.log(positive / (positive + negative[own])).mean()
    weight = negative[own] / (positive + negative[own]) / len(x)
    gradient = np.zeros_like(theta)
    for j in range(len(theta)):
        gradient[j] -= weight[own == j] @ x[own == j] / TAU
        share = np.exp(among[j] - logsumexp(among[j], 0))
        gradient[j] += weight[own == j].sum() * share @ rows / TAU
    gradient -= (gradient * unit).sum(axis=1, keepdims=True) * unit
    return loss, gradient / length


def reference(x, labeled, batch_size, *, variant="paper", steps=300, balance=1.0):
    x = normalised(x)
    free = np.setdiff1d(np.arange(len(x)), labeled)
    theta = x[free[np.asarray(jax.random.permutation(KEY, len(free)))[:batch_size]]]
    fixed = x[np.asarray(labeled, int)]
    first, second, losses = np.zeros_like(theta), np.zeros_like(theta), []
    for t in range(1, steps + 1):
        loss, gradient = {"paper": paper, "code": code}[variant](theta, fixed, x, balance)
        losses.append(loss)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        theta = theta - 1e-3 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        if variant == "paper":
            theta = normalised(theta)
    picks, taken = [], set(np.asarray(labeled).tolist())
    for row in normalised(theta) @ x.T:
        picks.append(next(i for i in np.argsort(-row, kind="stable").tolist() if i not in taken))
        taken.add(picks[-1])
    return picks, losses


def clustered(seed, n=120, d=6):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=(5, d))[rng.integers(0, 5, n)] + rng.normal(size=(n, d))


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize(("num_labeled", "balance"), [(0, 1.0), (7, 1.0), (7, 0.3)])
def test_equals_dense_numpy(variant, num_labeled, balance):
    x = clustered(num_labeled)
    labeled = np.random.default_rng(1).permutation(120)[:num_labeled]
    pool = Pool(x, 2, labeled, np.zeros(num_labeled, int))
    picks, info = select_activeft(
        KEY, pool, batch_size=12, variant=variant, balance=balance, chunk_size=50
    )
    expected, losses = reference(x, labeled, 12, variant=variant, balance=balance)
    np.testing.assert_allclose(info.losses, losses, rtol=1e-3, atol=1e-3)
    assert info.losses[-1] < info.losses[0]
    np.testing.assert_array_equal(picks, expected)


@pytest.mark.parametrize(
    ("num_labeled", "batch_size", "variant"), [(0, 1, "paper"), (7, 1, "code"), (108, 12, "paper")]
)
def test_one_and_all_that_is_left(num_labeled, batch_size, variant):
    x, labeled = clustered(3), np.arange(num_labeled)
    pool = Pool(x, 2, labeled, np.zeros(num_labeled, int))
    picks, info = select_activeft(KEY, pool, batch_size=batch_size, variant=variant, chunk_size=50)
    expected, losses = reference(x, labeled, batch_size, variant=variant)
    np.testing.assert_allclose(info.losses, losses, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(picks, expected)


def test_whole_equals_chunked():
    pool = Pool(clustered(5), 2, [], [])
    found = [select_activeft(KEY, pool, batch_size=12, chunk_size=size) for size in (50, 200)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1].losses, found[1][1].losses, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_huge_and_tiny_features(scale):
    x = clustered(1)
    pools = [Pool(x, 2, [], []), Pool(x * scale, 2, [], [])]
    plain, found = (select_activeft(KEY, p, batch_size=12, chunk_size=50)[0] for p in pools)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_duplicates_go_by_index(variant, value):
    pool = Pool(np.full((120, 6), value), 2, [], [])
    picks, info = select_activeft(KEY, pool, batch_size=12, variant=variant, chunk_size=50)
    np.testing.assert_array_equal(picks, np.arange(12))
    assert np.isfinite(info.losses).all()


def test_single_sample():
    picks, info = select_activeft(KEY, Pool(np.ones((1, 2)), 1, [], []), batch_size=1)
    np.testing.assert_array_equal(picks, [0])
    np.testing.assert_allclose(info.losses, -1 / TAU, rtol=1e-5)
    np.testing.assert_allclose(info.similarity, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 0),
        ("num_steps", 0),
        ("learning_rate", float("nan")),
        ("balance", -1),
        ("variant", "other"),
        ("chunk_size", 0),
    ],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        select_activeft(KEY, Pool(np.ones((9, 2)), 1, [], []), batch_size=1, **{option: value})


def test_losses_beyond_float32_are_refused():
    pool = Pool(np.eye(9), 1, [], [])
    with pytest.raises(ValueError, match=r"temperature 1e-39.*expected finite losses"):
        select_activeft(KEY, pool, batch_size=3, temperature=1e-39)
