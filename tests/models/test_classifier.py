import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.classifier import Classifier
from jaxal.models.heads import DenseHead
from jaxal.models.resnet import ResNet

KEY = jax.random.key(0)
ENCODER = ResNet((1,), width=6, stem="cifar")


def images(n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_logits_are_the_heads_on_the_encoders_features(hidden, compiled):
    head, x = DenseHead(hidden, 3, use_batch_norm=True), images()
    model = Classifier(ENCODER, head)
    variables = compiled.init(model, x)
    assert set(variables["params"]) == {"encoder", "head"}
    logits, features = compiled.apply(model, variables, x)
    parts = [
        {name: collection[part] for name, collection in variables.items() if part in collection}
        for part in ("encoder", "head")
    ]
    np.testing.assert_allclose(features, compiled.apply(ENCODER, parts[0], x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        logits, compiled.apply(head, parts[1], features)[0], rtol=1e-5, atol=1e-6
    )


def test_mask_reaches_both_parts(compiled):
    model, x = Classifier(ENCODER, DenseHead((5,), 3, use_batch_norm=True)), images()
    variables = compiled.init(model, x)
    padded = np.concatenate([x, np.full((2, 8, 8, 3), 30, np.float32)])
    mask = jnp.arange(8) < 6
    whole, stats = compiled.apply(model, variables, x, train=True, mutable=["batch_stats"])
    found, found_stats = compiled.apply(
        model, variables, padded, train=True, mask=mask, mutable=["batch_stats"]
    )
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_allclose(a[:6], b, rtol=1e-3, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found_stats, stats
    )


def test_frozen_statistics_are_used_and_kept_while_the_head_trains(compiled):
    model, x = Classifier(ENCODER, DenseHead((5,), 3, use_batch_norm=True)), images()
    variables = compiled.init(model, x)
    # A step first, so that running statistics are no longer the trivial ones.
    _, updated = compiled.apply(model, variables, x, train=True, mutable=["batch_stats"])
    variables = {**variables, **updated}
    (_, features), stats = compiled.apply(
        model, variables, x, train=True, freeze_stats=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(
        features, compiled.apply(model, variables, x)[1], rtol=1e-5, atol=1e-6
    )
    before, after = variables["batch_stats"], stats["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, before["encoder"], after["encoder"])
    assert np.abs(after["head"]["norm_0"]["mean"] - before["head"]["norm_0"]["mean"]).max() > 0
    (_, thawed), stats = compiled.apply(model, variables, x, train=True, mutable=["batch_stats"])
    assert np.abs(thawed - features).max() > 0.01
    moved = stats["batch_stats"]["encoder"]["bn1"]["mean"] - before["encoder"]["bn1"]["mean"]
    assert np.abs(moved).max() > 0


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_a_head_for_other_features_is_refused(hidden, compiled):
    model, x = Classifier(ENCODER, DenseHead(hidden, 3)), images()
    shapes = jax.eval_shape(model.init, KEY, x)
    shapes["params"]["head"] = jax.eval_shape(model.head.init, KEY, np.zeros((1, 7)))["params"]
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    with pytest.raises(ValueError, match=r"expected a head on the 6 features .*found one on 7"):
        compiled.apply(model, variables, x)


class Scaled(nn.Module):
    """A head that gives logits alone and names one of the two options."""

    @nn.compact
    def __call__(self, x, train=False):
        logits = nn.Dense(3, name="output")(x)
        return 2 * logits if train else logits


def test_heads_may_give_logits_alone(compiled):
    x = images()
    model = Classifier(ENCODER, nn.Dense(3))
    variables = compiled.init(model, x)
    logits, features = compiled.apply(model, variables, x, mask=jnp.ones(6, bool))
    head = variables["params"]["head"]
    expected = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    variables["params"]["head"] = {"output": head}
    for train, factor in ((False, 1), (True, 2)):
        found, _ = compiled.apply(
            Classifier(ENCODER, Scaled()), variables, x, train=train, freeze_stats=True
        )
        np.testing.assert_allclose(found, factor * expected, rtol=1e-4, atol=1e-5)
