import jax
import numpy as np
import pytest

from jaxal.models.conv4 import Conv4
from jaxal.models.weights import import_weights

KEY = jax.random.key(0)


def images(n=3, size=36, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, size, size, 3)).astype(np.float32)


def state_dict(ops):
    """Names and shapes of ProtoTransfer's CNN_4Layer, of eight channels."""
    state = ops.State()
    for i in range(4):
        state.conv(f"encoder.{i}.0", 8, 8 if i else 3, 3, bias=True)
        state.norm(f"encoder.{i}.1", 8)
    return state


def reference(ops, state, x):
    x = x.transpose(0, 3, 1, 2).astype(float)
    for i in range(4):
        x = ops.conv2d(x, state, f"encoder.{i}.0", padding=1)
        x = ops.max_pool(np.maximum(ops.batch_norm(x, state, f"encoder.{i}.1"), 0), 2, 2, 0)
    return x.reshape(len(x), -1)  # channels first


def test_import_agrees_with_prototransfer(torch_ops, compiled):
    encoder, state, x = Conv4(36, 8), state_dict(torch_ops), images()
    variables, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), state)
    features = compiled.apply(encoder, variables, x)
    assert features.shape == (3, encoder.num_features) == (3, 32)
    np.testing.assert_allclose(features, reference(torch_ops, state, x), rtol=1e-4, atol=1e-5)
    assert (info.naming, info.prefix) == ("prototransfer_conv4", "encoder.")


def test_arrays_in_flax_layout_are_taken_as_they_are(torch_ops, compiled):
    encoder, x = Conv4(36, 8), images()
    variables = compiled.init(encoder, x)
    _, updated = compiled.apply(encoder, variables, x, train=True, mutable=["batch_stats"])
    variables = {**variables, **updated}
    flat = {
        f"{module}/{leaf}": np.asarray(value)
        for collection in variables.values()
        for module, leaves in collection.items()
        for leaf, value in leaves.items()
    }
    found, info = import_weights(encoder, jax.eval_shape(encoder.init, KEY, x), flat)
    assert info.naming == "flax_conv4"
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_number_of_features():
    assert Conv4().num_features == 1600
    assert Conv4(32).num_features == 256


@pytest.mark.parametrize(
    ("encoder", "x", "message"),
    [
        (Conv4(15), images(size=15), "image_size: expected at least 16, found 15"),
        (Conv4(84), images(size=32), "images: expected 84 × 84 pixels.*found shape .*32"),
    ],
)
def test_wrong_sizes(encoder, x, message, compiled):
    with pytest.raises(ValueError, match=message):
        compiled.init(encoder, x)
