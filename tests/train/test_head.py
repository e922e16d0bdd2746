import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxal.train import head as module
from jaxal.train.head import (
    LINEAR,
    PROXY,
    HeadConfig,
    make_head,
    predict_head,
    predict_probs,
    train_head,
)

KEY = jax.random.key(0)
SMALL = HeadConfig(hidden=(8,), epochs=3, train_batch_size=32)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32), y[order]


def accuracy(trained, x, y):
    return float(np.mean(np.argmax(predict_probs(trained, x), axis=1) == y))


def test_linear_head_comes_close_to_logistic_regression(digits):
    x, y = digits
    rows = np.arange(600)
    trained = train_head(KEY, x, rows, y[rows], 10, config=LINEAR)
    judge = LogisticRegression(max_iter=1000).fit(x[:600], y[:600]).score(x[600:], y[600:])
    assert accuracy(trained, x[600:], y[600:]) > judge - 0.02


def test_proxy_learns(digits):
    x, y = digits
    rows = np.arange(100, 400)
    trained = train_head(KEY, x, rows, y[rows], 10, config=PROXY)
    assert accuracy(trained, x[600:], y[600:]) > 0.92
    assert trained.losses.shape == (100,)
    assert trained.losses[-1] < 0.1 * trained.losses[0]


def test_growing_labels_do_not_recompile(digits):
    x, y = digits
    train_head(KEY, x, np.arange(5), y[:5], 10, config=SMALL)
    compiled = module._fit._cache_size()
    for count in (1, 31, 32, 33, 200, 1024):
        train_head(KEY, x, np.arange(count), y[:count], 10, config=SMALL)
        faster = SMALL._replace(learning_rate=0.05, momentum=0.5, weight_decay=1e-4)
        train_head(KEY, jnp.asarray(x), np.arange(count), y[:count], 10, config=faster)
    assert module._fit._cache_size() == compiled
    train_head(KEY, x, np.arange(1025), y[:1025], 10, config=SMALL)
    assert module._fit._cache_size() == compiled + 1


def test_full_batch_equals_plain_numpy_sgd():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 3, 9)
    config = HeadConfig(hidden=(), epochs=7, learning_rate=0.3, weight_decay=0.01)
    trained = train_head(KEY, x, np.arange(9), y, 3, config=config)
    start = make_head(config, 4, 3).init(jax.random.split(KEY)[0], jnp.asarray(x[:1]))
    weights = {name: np.asarray(v, float) for name, v in start["params"]["output"].items()}
    trace = {name: np.zeros_like(v) for name, v in weights.items()}
    losses = []
    for t in range(7):
        logits = x @ weights["kernel"] + weights["bias"]
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(probs[np.arange(9), y]).mean())
        delta = (probs - np.eye(3)[y]) / 9
        grads = {"kernel": x.T @ delta, "bias": delta.sum(0)}
        rate = 0.3 * np.cos(7 * np.pi / 16 * t / 7)
        for name, g in grads.items():
            g = g + 0.01 * weights[name]
            trace[name] = 0.9 * trace[name] + g
            weights[name] = weights[name] - rate * (g + 0.9 * trace[name])
    np.testing.assert_allclose(trained.losses, losses, rtol=1e-4)
    for name, expected in weights.items():
        np.testing.assert_allclose(
            trained.variables["params"]["output"][name], expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("count", [1, 2, 10, 33, 64, 65])
def test_batches_are_even_and_cover_every_row(count):
    steps = -(-count // 32)
    order = module._shuffled(KEY, jnp.asarray(count), 128, 32)
    seen, sizes = [], []
    for i in range(steps):
        rows, valid = module._batch(
            order, jnp.asarray(i), jnp.asarray(count), jnp.asarray(steps), 32
        )
        seen += np.asarray(rows)[np.asarray(valid)].tolist()
        sizes.append(int(valid.sum()))
    assert sorted(seen) == list(range(count))
    assert max(sizes) - min(sizes) <= 1


def test_padding_changes_nothing(digits):
    x, y = digits
    small = train_head(KEY, x, np.arange(20), y[:20], 10, config=SMALL, capacity=40)
    large = train_head(KEY, x, np.arange(20), y[:20], 10, config=SMALL)
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-3)
    for a, b in zip(*map(jax.tree.leaves, (small.variables, large.variables)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_only_labelled_rows_are_read(digits):
    x, y = digits
    spoiled = np.where(np.arange(len(x))[:, None] < 20, x, np.nan)
    a = train_head(KEY, x, np.arange(20), y[:20], 10, config=SMALL)
    b = train_head(KEY, spoiled, np.arange(20), y[:20], 10, config=SMALL)
    np.testing.assert_array_equal(a.losses, b.losses)


def test_float16_memmap_and_jax_features_agree(digits, tmp_path):
    x, y = digits
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a = train_head(KEY, mapped, np.arange(20), y[:20], 10, config=SMALL)
    b = train_head(KEY, jnp.asarray(mapped), np.arange(20), y[:20], 10, config=SMALL)
    np.testing.assert_array_equal(a.losses, b.losses)
    probs, hidden = predict_head(a, mapped)
    assert probs.dtype == hidden.dtype == jnp.float32


def test_predictions_do_not_depend_on_chunks(digits):
    x, y = digits
    trained = train_head(KEY, x, np.arange(20), y[:20], 10, config=SMALL)
    probs, hidden = predict_head(trained, x[:101])
    assert probs.shape == (101, 10) and hidden.shape == (101, 8)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    again, again_hidden = predict_head(trained, x[:101], chunk_size=30)
    np.testing.assert_allclose(probs, again, atol=1e-6)
    np.testing.assert_allclose(hidden, again_hidden, atol=1e-5)
    np.testing.assert_allclose(probs, predict_probs(trained, x[:101]), atol=1e-6)


def test_linear_head_hidden_are_the_features(digits):
    x, y = digits
    trained = train_head(KEY, x, np.arange(3), y[:3], 10, config=LINEAR)
    np.testing.assert_array_equal(predict_head(trained, x[:7])[1], x[:7])


def test_one_label_one_class_stays_finite(digits):
    x, _ = digits
    trained = train_head(KEY, x, [3], [0], 1, config=SMALL)
    np.testing.assert_array_equal(predict_probs(trained, x[:9]), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labeled": []}, "at least one labelled row"),
        ({"labeled": [0, 0]}, "labeled: expected each index once"),
        ({"labeled": [0, 99]}, "labeled: expected indices in 0..9"),
        ({"labels": [0, 3]}, "labels: expected labels in 0..2"),
        ({"labels": [0]}, "expected 2 labels, found 1"),
        ({"capacity": 1}, "capacity: expected at least 2, found 1"),
        ({"features": np.zeros(10)}, "features: expected a matrix"),
        ({"features": np.full((10, 4), np.nan)}, "NaN"),
        ({"config": "linear"}, "config: .* jaxal.LINEAR or jaxal.PROXY, found 'linear'"),
        ({"config": HeadConfig(epochs=0)}, "epochs"),
        ({"config": HeadConfig(hidden=(0,))}, "hidden"),
        ({"config": HeadConfig(hidden="wide")}, "hidden"),
        ({"config": HeadConfig(train_batch_size=0)}, "train_batch_size"),
        ({"config": HeadConfig(learning_rate=0)}, "learning_rate"),
        ({"config": HeadConfig(momentum=1)}, "momentum"),
        ({"config": HeadConfig(weight_decay=-1)}, "weight_decay"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"features": np.zeros((10, 4)), "labeled": [0, 1], "labels": [0, 1]} | change
    if arguments["labeled"] == []:
        arguments["labels"] = []
    with pytest.raises(ValueError, match=message):
        train_head(KEY, num_classes=3, **arguments)


def test_feature_norm_makes_the_head_blind_to_one_factor():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    probs = [
        predict_head(
            train_head(jax.random.key(0), factor * x, np.arange(20), labels[:20], 2, config=LINEAR),
            factor * x,
        )[0]
        for factor in (1.0, 1e-3)
    ]
    np.testing.assert_allclose(probs[0], probs[1], atol=1e-5)
    constant = train_head(jax.random.key(0), 0 * x, np.arange(4), labels[:4], 2, config=LINEAR)
    assert np.isfinite(predict_head(constant, 0 * x)[0]).all()


def test_divergence_is_noticed():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    x = 1000 * (np.eye(3, 5)[y] * 3 + rng.normal(size=(40, 5)))
    raw = HeadConfig(hidden=(64,), use_batch_norm=False)
    with pytest.raises(ValueError, match=r"diverged, with learning_rate 0.1 .*feature_norm"):
        train_head(KEY, x, np.arange(40), y, 3, config=raw)
    for config in (raw._replace(feature_norm=4.0), raw._replace(learning_rate=1e-9)):
        trained = train_head(KEY, x, np.arange(40), y, 3, config=config)
        assert np.isfinite(predict_probs(trained, x)).all()


@pytest.mark.parametrize("config", [SMALL, LINEAR])
@pytest.mark.parametrize("width", [63, 65])
def test_other_widths_are_refused(digits, config, width):
    x, y = digits
    trained = train_head(KEY, x, np.arange(20), y[:20], 10, config=config)
    with pytest.raises(ValueError, match=f"features: expected 64 columns.*, found {width}"):
        predict_head(trained, np.zeros((5, width)))
