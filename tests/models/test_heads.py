import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.kernels import apply_layers
from jaxal.models import DenseHead, frozen_apply, head_layers


def data(n=8, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("features", [(), (7,), (7, 6)])
@pytest.mark.parametrize("use_batch_norm", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_layers_give_the_same_logits(features, use_batch_norm, use_bias):
    head = DenseHead(features, 3, nn.gelu, use_bias=use_bias, use_batch_norm=use_batch_norm)
    x = data()
    variables = head.init(jax.random.key(0), x)
    if use_batch_norm and features:
        _, updates = head.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {**variables, **updates}
    logits, hidden = head.apply(variables, x)
    assert logits.shape == (8, 3)
    assert hidden.shape == (8, features[-1] if features else 5)
    np.testing.assert_allclose(
        apply_layers(head_layers(head, variables), x), logits, rtol=1e-4, atol=1e-5
    )
    output = variables["params"]["output"]
    bias = output["bias"] if use_bias else 0
    np.testing.assert_allclose(hidden @ output["kernel"] + bias, logits, rtol=1e-4, atol=1e-5)


def test_linear_head_gives_its_input_as_hidden():
    head, x = DenseHead((), 2), data()
    _, hidden = head.apply(head.init(jax.random.key(0), x), x)
    np.testing.assert_array_equal(hidden, x)


def test_batch_norm_comes_before_the_activation():
    head, x = DenseHead((6,), 2, use_batch_norm=True), data(50)
    variables = head.init(jax.random.key(0), x)
    (_, hidden), _ = head.apply(variables, x, train=True, mutable=["batch_stats"])
    dense = variables["params"]["dense_0"]
    z = x @ np.asarray(dense["kernel"]) + dense["bias"]
    z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    np.testing.assert_allclose(hidden, np.maximum(z, 0), rtol=1e-3, atol=1e-4)


def test_masked_rows_do_not_count():
    head, x = DenseHead((6, 4), 2, use_batch_norm=True, momentum=0.5), data()
    variables = head.init(jax.random.key(0), x)
    padded = np.concatenate([x, np.full((3, 5), 100, np.float32)])
    mask = jnp.arange(11) < 8
    (logits, _), stats = head.apply(variables, x, train=True, mutable=["batch_stats"])
    (found, _), found_stats = head.apply(
        variables, padded, train=True, mask=mask, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(found[:8], logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found_stats, stats
    )


def test_evaluation_looks_at_rows_alone():
    head, x = DenseHead((6,), 2, use_batch_norm=True), data()
    variables = head.init(jax.random.key(0), x)
    whole, _ = head.apply(variables, x)
    alone, _ = head.apply(variables, x[:1])
    np.testing.assert_allclose(alone, whole[:1], rtol=1e-5, atol=1e-6)


def test_frozen_apply_takes_any_module():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average):
            x = nn.BatchNorm(use_running_average=use_running_average)(x)
            return nn.Dense(3)(x)

    module, x = Plain(), data()
    variables = module.init(jax.random.key(0), x, True)
    apply, params = frozen_apply(module, variables, use_running_average=True)
    np.testing.assert_allclose(apply(params, x), module.apply(variables, x, True))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    expected = module.apply({**variables, "params": doubled}, x, True)
    np.testing.assert_allclose(jax.jit(apply)(doubled, x), expected, rtol=1e-5)


def test_frozen_apply_takes_the_first_output():
    head, x = DenseHead((4,), 2), data()
    variables = head.init(jax.random.key(0), x)
    apply, params = frozen_apply(head, variables)
    np.testing.assert_array_equal(apply(params, x), head.apply(variables, x)[0])


def test_wrong_arguments():
    head, x = DenseHead((4,), 2, use_batch_norm=True), data()
    variables = head.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="params"):
        frozen_apply(head, {})
    with pytest.raises(ValueError, match="batch_stats"):
        head_layers(head, {"params": variables["params"]})
    with pytest.raises(ValueError, match="dense_1"):
        head_layers(DenseHead((4, 4), 2, use_batch_norm=True), variables)
    with pytest.raises(ValueError, match="mask"):
        head.apply(variables, x, mask=jnp.ones(3, bool))
    with pytest.raises(ValueError, match="features and num_outputs"):
        DenseHead((0,), 2).init(jax.random.key(0), x)
