from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxal
from jaxal.kernels import dense_ntk, empirical_ntk
from jaxal.models import DenseHead, frozen_apply, head_layers

ENGINES = ("neural-tangents", "jax")


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Conv(5, (3, 3))(x)
        x = nn.tanh(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3)(x.mean(axis=(1, 2))), x


def shaken(variables, seed=0):
    """Move every variable off its start, so that no scale is one and no bias zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + rng.uniform(0.1, 0.5, leaf.shape), variables)


def conv_net(dtype):
    x = np.random.default_rng(0).standard_normal((7, 6, 6, 2)).astype(dtype)
    module = ConvNet()
    variables = shaken(jax.jit(partial(module.init, train=False))(jax.random.key(0), x))
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    return *frozen_apply(module, variables, train=False), x


@pytest.mark.parametrize(
    "trace_outputs, dtype, rtol",
    [(True, np.float32, 1e-5), (True, np.float64, 1e-10), (False, np.float64, 1e-10)],
)
def test_engines_agree_on_a_convolutional_network(trace_outputs, dtype, rtol, x64):
    apply, params, x = conv_net(dtype)
    first, second = (
        empirical_ntk(
            apply,
            params,
            x,
            x[:5],
            trace_outputs=trace_outputs,
            engine=engine,
            chunk_size=4,
        )
        for engine in ENGINES
    )
    assert first.shape == ((7, 5) if trace_outputs else (7, 5, 3, 3))
    assert first.dtype == second.dtype == dtype
    scale = np.abs(first).max()
    np.testing.assert_allclose(first, second, rtol=rtol, atol=rtol * scale)


def test_convolutional_network_against_finite_differences(x64):
    apply, params, x = conv_net(np.float64)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    outputs = jax.jit(lambda flat: apply(unravel(flat), x[:2]))
    step = 1e-5
    jacobian = np.stack(
        [
            (np.asarray(outputs(flat.at[i].add(step))) - outputs(flat.at[i].add(-step)))
            / (2 * step)
            for i in range(flat.size)
        ],
        axis=-1,
    )
    expected = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    found = empirical_ntk(apply, params, x[:2], trace_outputs=False, engine="jax")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "trace_outputs, dtype, rtol",
    [(True, np.float32, 1e-5), (True, np.float64, 1e-10), (False, np.float64, 1e-10)],
)
def test_equals_dense_ntk(engine, trace_outputs, dtype, rtol, x64):
    rng = np.random.default_rng(1)
    head = DenseHead(features=(8,), num_outputs=3, activation=nn.tanh, use_batch_norm=True)
    x = rng.standard_normal((6, 5)).astype(dtype)
    variables = shaken(jax.jit(head.init)(jax.random.key(0), x))
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    apply, params = frozen_apply(head, variables)
    expected = dense_ntk(head_layers(head, variables), x, x[:4], trace_outputs=trace_outputs)
    found = empirical_ntk(
        apply, params, x, x[:4], trace_outputs=trace_outputs, engine=engine, chunk_size=4
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("engine", ENGINES)
def test_chunk_size_changes_nothing(engine, x64):
    rng = np.random.default_rng(2)
    head = DenseHead(features=(4,), num_outputs=2)
    x = rng.standard_normal((5, 3))
    apply, params = frozen_apply(head, head.init(jax.random.key(0), x))
    whole = empirical_ntk(apply, params, x, engine=engine, dtype=jnp.float64)
    for chunk_size in (1, 2):
        chunked = empirical_ntk(
            apply, params, x, engine=engine, chunk_size=chunk_size, dtype=jnp.float64
        )
        np.testing.assert_allclose(chunked, whole, rtol=1e-12)
    np.testing.assert_allclose(whole, whole.T, rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_half_precision_and_integer_examples(engine):
    def apply(params, x):
        return jnp.tanh(x.astype(params["w"].dtype) @ params["w"])

    params = {"w": np.random.default_rng(3).standard_normal((4, 2)).astype(np.float32)}
    x = np.random.default_rng(4).integers(0, 3, (5, 4))
    found = empirical_ntk(apply, params, x.astype(np.float16), engine=engine)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        empirical_ntk(apply, params, x, engine=engine), found, rtol=1e-5, atol=1e-6
    )


def test_frozen_apply_fits_as_it_is():
    x = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)
    head = DenseHead(features=(6,), num_outputs=2, use_batch_norm=True)
    variables = shaken(head.init(jax.random.key(0), x))
    found = jaxal.empirical_ntk(*frozen_apply(head, variables), x, engine="jax")
    np.testing.assert_allclose(found, dense_ntk(head_layers(head, variables), x), rtol=1e-4)
    # Running statistics are no parameters.
    with pytest.raises(ValueError, match=r"params and \['batch_stats'\].*frozen_apply"):
        empirical_ntk(lambda v, x: head.apply(v, x)[0], variables, x, engine="jax")
    plain = DenseHead(features=(6,), num_outputs=2)
    variables = plain.init(jax.random.key(0), x)
    found = empirical_ntk(lambda v, x: plain.apply(v, x)[0], variables, x, engine="jax")
    np.testing.assert_allclose(found, dense_ntk(head_layers(plain, variables), x), rtol=1e-4)


def test_wrong_arguments():
    def apply(params, x):
        return x @ params

    params, x = np.ones((3, 2), np.float32), np.ones((4, 3), np.float32)
    bad = x.copy()
    bad[1] = np.inf
    for match, call in {
        "engine": lambda: empirical_ntk(apply, params, x, engine="torch"),
        "chunk_size": lambda: empirical_ntk(apply, params, x, chunk_size=0),
        "x1: expected examples": lambda: empirical_ntk(apply, params, x[0]),
        "x1: expected finite": lambda: empirical_ntk(apply, params, bad),
        "x1: expected at least 1": lambda: empirical_ntk(apply, params, x[:0]),
        "x2: expected shape": lambda: empirical_ntk(apply, params, x, x[:, :2]),
        "params: expected one array": lambda: empirical_ntk(apply, {}, x),
        "params.*floating": lambda: empirical_ntk(apply, {"w": np.ones(3, np.int32)}, x),
        "apply: expected outputs": lambda: empirical_ntk(lambda p, x: (x @ p)[:, 0], params, x),
        "found tuple": lambda: empirical_ntk(lambda p, x: (x @ p, x), params, x),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
