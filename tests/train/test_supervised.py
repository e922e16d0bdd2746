import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.train.optimizers import OptimizerConfig
from jaxal.train.recipes import FinetuneConfig
from jaxal.train.schedules import ScheduleConfig
from jaxal.train.step import init_state
from jaxal.train.supervised import compiled_step, compiled_view, config_optimizer, make_loss

KEY = jax.random.key(0)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        x = nn.Dense(5)(images.reshape(len(images), -1))
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        return nn.relu(norm(x, mask=None if mask is None else mask[:, None]))


NET = Classifier(Encoder(), DenseHead(features=(), num_outputs=3))


@pytest.fixture
def variables():
    return jax.jit(NET.init)(KEY, jnp.zeros((1, 2, 2, 1)))


def batch(n=6):
    rng = np.random.default_rng(0)
    return {
        "images": rng.normal(size=(n, 2, 2, 1)).astype(np.float32),
        "labels": np.arange(n) % 3,
        "mask": np.ones(n, bool),
    }


def evaluate(variables, given, **options):
    loss_fn = jax.jit(make_loss(NET, **options))
    return loss_fn(variables["params"], variables["batch_stats"], given, KEY)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_is_the_mean_cross_entropy_of_smoothed_labels(variables, smoothing):
    given = batch()
    apply = functools.partial(NET.apply, train=True, mutable=["batch_stats"])
    (logits, _), _ = jax.jit(apply)(variables, given["images"])
    logits = np.asarray(logits, float)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = (1 - smoothing) * np.eye(3)[given["labels"]] + smoothing / 3
    loss, aux = evaluate(variables, given, label_smoothing=smoothing)
    np.testing.assert_allclose(loss, -(targets * log_probs).sum(1).mean(), rtol=1e-5)
    accuracy = np.mean(logits.argmax(1) == given["labels"])
    np.testing.assert_allclose(aux.metrics["accuracy"], accuracy, rtol=1e-6)


def test_padding_enters_neither_loss_nor_statistics(variables):
    given = batch()
    padded = {name: np.concatenate([x, 9 * x[:2]]) for name, x in given.items()}
    padded["labels"], padded["mask"] = np.arange(8) % 3, np.arange(8) < 6
    loss, aux = evaluate(variables, given)
    found, found_aux = evaluate(variables, padded)
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (found_aux, aux)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    nothing, _ = evaluate(variables, {**given, "mask": np.zeros(6, bool)}, freeze_stats=True)
    assert nothing == 0


def test_frozen_parts_stay(variables):
    loss_fn = make_loss(NET, freeze_encoder=True, freeze_stats=True)
    grads, aux = jax.jit(jax.grad(loss_fn, has_aux=True))(
        variables["params"], variables["batch_stats"], batch(), KEY
    )
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["encoder"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads["head"]))
    jax.tree.map(np.testing.assert_array_equal, aux.batch_stats, variables["batch_stats"])
    _, moved = evaluate(variables, batch(), freeze_encoder=True)
    leaves = zip(*map(jax.tree.leaves, (moved.batch_stats, variables["batch_stats"])), strict=True)
    assert all((a != b).any() for a, b in leaves)


def test_steps_are_shared_by_trainings_at_other_rates_and_of_other_lengths(variables):
    config = FinetuneConfig(epochs=2, schedule=ScheduleConfig("cosine"))
    step = compiled_step(NET, config, None)
    longer = config._replace(epochs=9, train_batch_size=7, validation_fraction=0.5, patience=2)
    slower = longer._replace(head=OptimizerConfig(learning_rate=1e-3), encoder=OptimizerConfig())
    assert compiled_step(NET, longer, None) is step
    assert compiled_step(NET, slower, None) is step
    assert compiled_step(NET, config._replace(label_smoothing=0.1), None) is not step
    assert compiled_step(NET, config._replace(encoder=None), None) is not step
    moved = []
    for given in (config, slower):
        state = init_state(variables, config_optimizer(given, steps_per_epoch=3))
        rates = state.opt_state.inner_states["head"].inner_state[-1]
        assert rates.total_steps == 3 * given.epochs
        state, _ = step(state, batch(), KEY)
        start = variables["params"]["head"]["output"]["bias"]
        moved.append(np.asarray(state.params["head"]["output"]["bias"] - start))
    np.testing.assert_allclose(moved[1], moved[0] / 100, rtol=1e-4)


def test_view_scales_augments_and_prepares():
    def augment(key, image):
        return image + jax.random.uniform(key)

    def prepare(images):
        return 2 * images

    stored = {"images": np.full((4, 2, 2, 1), 51, np.uint8), "labels": np.arange(4)}
    plain = compiled_view(None, None, None)(KEY, stored)
    np.testing.assert_allclose(plain["images"], 0.2, rtol=1e-6)
    np.testing.assert_array_equal(plain["labels"], stored["labels"])
    seen = np.asarray(compiled_view(augment, prepare, None)(KEY, stored)["images"])
    assert len(np.unique(seen)) == 4
    assert (seen > 0.4).all() and (seen < 2.4).all()
    short = {name: x[:3] for name, x in stored.items()}
    again = compiled_view(augment, prepare, None)(KEY, short)["images"]
    np.testing.assert_array_equal(again, seen[:3])
