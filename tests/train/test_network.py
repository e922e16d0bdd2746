import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxal.checks import NotFiniteError
from jaxal.data.arrays import from_arrays
from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.train import network as module
from jaxal.train.epochs import DivergedError
from jaxal.train.finetune import finetune, lp_ft
from jaxal.train.head import predict_head
from jaxal.train.network import METHODS, ImageNetwork, head_of
from jaxal.train.recipes import FT_SMALL, LpftConfig

KEY = jax.random.key(0)
FT = FT_SMALL._replace(epochs=2, train_batch_size=16)
LPFT = LpftConfig(FT._replace(encoder=None), FT)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.Conv(6, (3, 3), strides=2)(images)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        x = nn.relu(norm(x, mask=None if mask is None else mask[:, None, None, None]))
        return x.reshape(len(x), -1)


def shifted(images, *, by):
    return images - by


prepare = functools.partial(shifted, by=0.5)


@pytest.fixture(scope="module")
def pool():
    x, y = load_digits(return_X_y=True)
    return from_arrays(np.uint8(x[:60].reshape(-1, 8, 8, 1) * (255 / 16)), y[:60])


@pytest.fixture(scope="module")
def network(pool):
    encoder = Encoder()
    variables = encoder.init(KEY, jnp.zeros((1, 8, 8, 1)))
    return ImageNetwork(
        encoder, variables, pool, 10, prepare, ft=FT, lpft=LPFT, chunk_size=32, checkpoints=False
    )


def alike(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), a, b)


@pytest.mark.parametrize("method", METHODS)
def test_trains_from_the_pretrained_weights_as_the_functions_do(method, network, pool):
    rows = np.array([30, 2, 17, 40, 41, 5])
    before = jax.tree.map(np.array, network.variables)
    found = network.train(KEY, rows, pool.labels[rows], method)
    alike(network.variables, before)
    head_key, train_key = jax.random.split(KEY)
    head = DenseHead((), 10).init(head_key, jnp.zeros((1, 96)))
    start = {name: {"encoder": tree} for name, tree in network.variables.items()}
    start["params"]["head"] = head["params"]
    classifier = Classifier(network.encoder, DenseHead((), 10))
    given = (train_key, classifier, start, pool.load(rows), pool.labels[rows])
    if method == "lpft":
        wanted = lp_ft(*given, config=LPFT, prepare=prepare)[1]
    else:
        config = FT if method == "ft" else LPFT.probe
        wanted = finetune(*given, config=config, prepare=prepare)
    alike(found, wanted.variables)
    moved = not np.array_equal(
        found["params"]["encoder"]["Conv_0"]["kernel"], before["params"]["Conv_0"]["kernel"]
    )
    assert moved == (method != "lp")


def test_embeds_by_the_pretrained_or_the_trained_encoder(network, pool, tmp_path):
    images = prepare(pool.load(np.arange(60)).astype(np.float32) / 255)
    before = network.embed(None, tmp_path / "a.npy")
    np.testing.assert_allclose(
        before, network.encoder.apply(network.variables, images), rtol=1e-5, atol=1e-5
    )
    trained = network.train(KEY, np.arange(20), pool.labels[:20], "ft")
    after = network.embed(trained, tmp_path / "b.npy")
    own = {name: tree["encoder"] for name, tree in trained.items()}
    np.testing.assert_allclose(after, network.encoder.apply(own, images), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="variables"):
        network.embed(trained, tmp_path / "a.npy")


def test_the_head_reads_the_features(network, pool, tmp_path):
    trained = network.train(KEY, np.arange(20), pool.labels[:20], "ft")
    features = network.embed(trained, tmp_path / "x.npy")
    probs, hidden = predict_head(head_of(trained, 10), features)
    classifier = Classifier(network.encoder, DenseHead((), 10))
    images = prepare(pool.load(np.arange(60)).astype(np.float32) / 255)
    logits, _ = classifier.apply(trained, images)
    np.testing.assert_allclose(probs, jax.nn.softmax(logits), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(hidden, features)
    found = network.evaluate(trained, pool, pool.labels)
    assert found.accuracy == np.mean(np.argmax(logits, axis=1) == pool.labels)


def test_images_too_many_to_keep_are_loaded(network, pool, monkeypatch):
    rows = np.arange(30)[::-1]
    kept = network.train(KEY, rows, pool.labels[rows], "ft")
    monkeypatch.setattr(module, "_RESIDENT", 0)
    alike(network.train(KEY, rows, pool.labels[rows], "ft"), kept)


def test_saves_where_it_is_told_to(network, pool, tmp_path):
    rows, labels = np.arange(20), pool.labels[:20]
    plain = network.train(KEY, rows, labels, "ft", folder=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    saving = dataclasses.replace(network, checkpoints=True)
    alike(saving.train(KEY, rows, labels, "ft", folder=tmp_path / "b"), plain)
    assert (tmp_path / "b" / "settings.json").exists()
    # From what is saved; with other labels it is another training.
    alike(saving.train(KEY, rows, labels, "ft", folder=tmp_path / "b"), plain)
    with pytest.raises(ValueError, match="labels"):
        saving.train(KEY, rows, labels[::-1], "ft", folder=tmp_path / "b")


def test_what_it_depends_on_tells_networks_apart(network):
    other = jax.tree.map(lambda x: x + 1, network.variables)
    described = [
        network.describe(),
        dataclasses.replace(network, variables=other).describe(),
        dataclasses.replace(network, ft=FT._replace(epochs=3)).describe(),
        dataclasses.replace(network, prepare=functools.partial(shifted, by=0.4)).describe(),
    ]
    assert all(a != b for i, a in enumerate(described) for b in described[:i])
    assert described[0] == dataclasses.replace(network, chunk_size=8, checkpoints=True).describe()


def test_bad_arguments(network, pool):
    with pytest.raises(ValueError, match="method"):
        network.train(KEY, [0], [0], "other")
    with pytest.raises(ValueError, match="rows"):
        network.train(KEY, [0, 60], [0, 1], "ft")
    with pytest.raises(ValueError, match="labels"):
        network.train(KEY, [0, 1], [0, 10], "ft")
    with pytest.raises(ValueError, match="labels"):
        network.train(KEY, [0, 1], [0], "ft")


def test_what_a_trained_network_gives_that_is_not_finite_has_diverged(network, pool, tmp_path):
    def spoilt(variables):
        return jax.tree.map(lambda x: np.full_like(x, np.inf), variables)

    trained = spoilt(network.train(KEY, [0, 1], [0, 1], "lp"))
    with pytest.raises(DivergedError, match="row 0"):
        network.embed(trained, tmp_path / "a.npy")
    with pytest.raises(DivergedError, match="logits"):
        network.evaluate(trained, pool, pool.labels)
    # Of the pre-trained weights it is no training that is to blame.
    bad = dataclasses.replace(network, variables=spoilt(network.variables))
    with pytest.raises(NotFiniteError) as raised:
        bad.embed(None, tmp_path / "b.npy")
    assert not isinstance(raised.value, DivergedError)
