import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.models.projectors import MLP, Projected


class Pixels(nn.Module):
    """An encoder whose features are the pixels."""

    @nn.compact
    def __call__(self, images, *, train=False, mask=None):
        return images.reshape(len(images), -1)


def forward(mlp, variables, x):
    """Run the layers in float64, normalising by the batch."""
    x = np.float64(x)
    for i, _ in enumerate(mlp.widths):
        layer = variables["params"][f"dense_{i}"]
        x = x @ np.float64(layer["kernel"]) + np.float64(layer.get("bias", 0))
        if f"norm_{i}" in variables["params"]:
            norm = variables["params"][f"norm_{i}"]
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
            x = x * np.float64(norm["scale"]) + np.float64(norm["bias"])
        if i < len(mlp.widths) - 1:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("normalize_output", [False, True])
def test_layers_in_training(normalize_output):
    mlp = MLP((7, 5, 3), normalize_output=normalize_output)
    x = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    variables = mlp.init(jax.random.key(0), x)
    assert ("bias" in variables["params"]["dense_2"]) is not normalize_output
    assert "bias" not in variables["params"]["dense_0"]
    found, updated = mlp.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, forward(mlp, variables, x), atol=2e-5)
    before = jax.tree.leaves(variables["batch_stats"])
    assert any(np.any(a != b) for a, b in zip(before, jax.tree.leaves(updated), strict=True))


def test_padding_changes_no_statistics():
    mlp = MLP((6, 2), normalize_output=True)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    padded = np.concatenate([x, 100 * np.ones((3, 4), np.float32)])
    variables = mlp.init(jax.random.key(0), x)
    plain, stats = mlp.apply(variables, x, train=True, mutable=["batch_stats"])
    masked, other = mlp.apply(
        variables, padded, train=True, mask=np.arange(12) < 9, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(masked[:9], plain, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, other)


def test_projected_gives_features_projections_and_predictions():
    images = np.random.default_rng(0).normal(size=(5, 2, 2, 3)).astype(np.float32)
    model = Projected(Pixels(), MLP((8, 6), normalize_output=True), MLP((4, 6)))
    variables = model.init(jax.random.key(0), images)
    assert set(variables["params"]) == {"projector", "predictor"}
    features, projections, predictions = model.apply(variables, images)
    np.testing.assert_array_equal(features, images.reshape(5, 12))
    assert projections.shape == predictions.shape == (5, 6)
    alone = Projected(Pixels(), MLP((8, 6)))
    assert alone.apply(alone.init(jax.random.key(0), images), images)[2] is None


def test_half_precision_keeps_float32_parameters():
    mlp = MLP((7, 3), dtype=jnp.bfloat16)
    x = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    variables = mlp.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    found = mlp.apply(variables, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, MLP((7, 3)).apply(variables, x), atol=0.05)


def test_bad_width_is_named():
    with pytest.raises(ValueError, match="widths"):
        MLP((4, 0)).init(jax.random.key(0), np.ones((2, 3), np.float32))
