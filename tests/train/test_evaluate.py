import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score

from jaxal.calibration import calibration_error
from jaxal.data.arrays import from_arrays
from jaxal.sharding import data_mesh
from jaxal.train.evaluate import evaluate, evaluate_logits, make_apply


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 4], 200)
    logits = rng.normal(size=(200, 5)) + 2 * np.eye(5)[labels]
    return logits.astype(np.float32), labels


def test_numbers_are_those_of_scikit_learn(predictions):
    logits, labels = predictions
    found = evaluate_logits(logits, labels, 5)
    probs = np.exp(logits.astype(float))
    probs /= probs.sum(1, keepdims=True)
    predicted = logits.argmax(1)
    assert found.accuracy == accuracy_score(labels, predicted)
    np.testing.assert_array_equal(
        found.confusion, confusion_matrix(labels, predicted, labels=range(5))
    )
    recalls = recall_score(labels, predicted, labels=range(5), average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.per_class_accuracy, recalls)
    np.testing.assert_allclose(found.loss, log_loss(labels, probs, labels=range(5)), rtol=1e-6)
    np.testing.assert_allclose(found.calibration_error, calibration_error(probs, labels))


def test_classes_without_samples_are_named(predictions):
    logits, labels = predictions
    found = evaluate_logits(logits, labels, 5)
    np.testing.assert_array_equal(np.isnan(found.per_class_accuracy), np.arange(5) == 2)
    assert found.missing == (2,)
    named = evaluate_logits(logits, labels, 5, class_names=["a", "b", "c", "d", "e"])
    assert named.missing == ("c",)
    alone = evaluate_logits(logits[:1], labels[:1], 5)
    assert len(alone.missing) == 4


def test_large_logits_stay_finite():
    found = evaluate_logits([[1e4, -1e4], [0.0, 0.0]], [1, 0], 2)
    assert found.loss == pytest.approx((2e4 + np.log(2)) / 2)
    assert found.accuracy == 0.5


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(3)(images.reshape(len(images), -1))
        return x, images


@pytest.fixture
def network():
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1), np.uint8)
    net = Net()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    return net, variables, images, np.arange(23) % 3


def prepare(images):
    return (images - 0.5) / 0.25


def test_images_are_scaled_prepared_and_chunked(network):
    net, variables, images, labels = network
    dense = {name: np.asarray(w, float) for name, w in variables["params"]["Dense_0"].items()}
    x = (images.reshape(23, -1) / 255 - 0.5) / 0.25
    expected = evaluate_logits(x @ dense["kernel"] + dense["bias"], labels, 3)
    apply = make_apply(net, variables, prepare=prepare)
    source = from_arrays(images, labels, class_names=("a", "b", "c"))
    for found in (
        evaluate(apply, images, labels, 3),
        evaluate(apply, images, labels, 3, chunk_size=1),
        evaluate(apply, images, labels, 3, chunk_size=5),
        evaluate(apply, images, labels, 3, chunk_size=5, mesh=data_mesh()),
        evaluate(apply, source, None, 3, chunk_size=4),
    ):
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)
        np.testing.assert_allclose(found.calibration_error, expected.calibration_error, atol=1e-5)
    part = evaluate(apply, from_arrays(images, 0 * labels, class_names=("a", "b", "c")), None, 3)
    assert part.missing == ("b", "c")


def test_images_go_as_they_are_without_preparation(network):
    net, variables, images, _ = network
    apply = make_apply(net, variables)
    expected, _ = net.apply(variables, images.astype(np.float32) / 255)
    np.testing.assert_allclose(apply(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "labels: expected 23 labels"),
        ({"labels": None}, "labels: expected some"),
        ({"labels": np.full(23, 3)}, "labels: expected labels in 0..2"),
        ({"images": np.zeros((0, 4, 4, 1), np.uint8)}, "images: expected one image"),
        ({"images": np.zeros((23, 4, 4, 1))}, "images: expected uint8"),
        ({"num_classes": 4}, "logits: expected 4 columns, found 3"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"class_names": ["a"]}, "class_names: expected 3 names"),
        ({"apply": lambda x: jnp.full((len(x), 3), jnp.nan)}, "logits: .*NaN"),
        ({"apply": lambda x: jnp.float32(0)}, r"apply: expected logits \[23, c\], .* \(\)"),
        ({"apply": lambda x: jnp.zeros(len(x))}, r"apply: expected logits .* shape \(23,\)"),
        ({"apply": lambda x: jnp.zeros((1, 3))}, r"apply: expected logits .* shape \(1, 3\)"),
    ],
)
def test_bad_input_is_named(network, change, message):
    net, variables, images, labels = network
    given = {"apply": make_apply(net, variables), "images": images, "labels": labels}
    given |= {"num_classes": 3} | change
    with pytest.raises(ValueError, match=message):
        evaluate(**given)


def test_logits_of_no_matrix_are_named():
    with pytest.raises(ValueError, match=r"logits: expected a matrix \[n, d\], found shape \(\)"):
        evaluate_logits(0.5, [0], 1)
