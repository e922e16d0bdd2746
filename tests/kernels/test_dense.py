from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxal.kernels import (
    BatchNormStats,
    DenseLayer,
    apply_layers,
    dense_ntk,
    init_dense_layers,
)

DERIVATIVES = {
    None: (lambda z: z, np.ones_like),
    jnp.tanh: (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    jax.nn.relu: (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    jax.nn.softplus: (lambda z: np.logaddexp(z, 0), lambda z: 1 / (1 + np.exp(-z))),
}


def random_layers(rng, sizes, activations, *, bias=True, norm=None, dtype=np.float64):
    """Layers with nothing at zero or one; norm is "plain", "affine" or None."""
    layers = []
    for (fan_in, fan_out), activation in zip(pairwise(sizes), activations, strict=True):

        def draw(*shape):
            return rng.standard_normal(shape).astype(dtype)

        stats = None
        if norm is not None:
            affine = norm == "affine"
            stats = BatchNormStats(
                mean=draw(fan_out),
                var=rng.uniform(0.5, 2, fan_out).astype(dtype),
                scale=draw(fan_out) if affine else None,
                bias=draw(fan_out) if affine else None,
                epsilon=1e-3,
            )
        kernel = draw(fan_in, fan_out) / np.sqrt(fan_in).astype(dtype)
        layers.append(DenseLayer(kernel, draw(fan_out) if bias else None, stats, activation))
    return tuple(layers)


def reference_jacobian(layers, x):
    """Differentiate one example, output by output, in NumPy; returns [o, parameters] and [o]."""
    steps = []
    for layer in layers:
        inputs = x
        z = inputs @ layer.kernel + (0 if layer.bias is None else layer.bias)
        norm, normed, gain = layer.norm, None, np.ones_like(z)
        if norm is not None:
            normed = (z - norm.mean) / np.sqrt(norm.var + norm.epsilon)
            scale = 1 if norm.scale is None else norm.scale
            gain = scale / np.sqrt(norm.var + norm.epsilon) * gain
            z = normed * scale + (0 if norm.bias is None else norm.bias)
        value, derivative = DERIVATIVES[layer.activation]
        x = value(z)
        steps.append((layer, inputs, normed, gain, derivative(z)))
    rows = []
    for o in range(x.shape[0]):
        delta, parts = np.eye(x.shape[0])[o], []
        for layer, inputs, normed, gain, slope in reversed(steps):
            delta = delta * slope
            if layer.norm is not None and layer.norm.scale is not None:
                parts += [delta * normed, delta]
            delta = delta * gain
            parts.append(np.outer(inputs, delta).ravel())
            if layer.bias is not None:
                parts.append(delta)
            delta = layer.kernel @ delta
        rows.append(np.concatenate(parts))
    return np.stack(rows), x


def reference_ntk(layers, x1, x2):
    left = np.stack([reference_jacobian(layers, x)[0] for x in np.asarray(x1, np.float64)])
    right = np.stack([reference_jacobian(layers, x)[0] for x in np.asarray(x2, np.float64)])
    return np.einsum("iap,jbp->ijab", left, right)


CASES = {
    "linear": ((5, 3), (None,), {}),
    "linear, no bias": ((5, 3), (None,), {"bias": False}),
    "one hidden": ((5, 7, 3), (jax.nn.relu, None), {}),
    "one output": ((5, 7, 1), (jnp.tanh, None), {}),
    "no bias": ((5, 7, 3), (jnp.tanh, None), {"bias": False}),
    "three hidden": ((4, 6, 5, 7, 3), (jnp.tanh, jax.nn.softplus, jax.nn.relu, None), {}),
    "more outputs than width": ((4, 6, 3, 8), (jnp.tanh, jnp.tanh, None), {}),
    "batch norm": ((4, 6, 5, 3), (jnp.tanh, jax.nn.relu, None), {"norm": "affine"}),
    "batch norm, fixed": ((4, 6, 5, 3), (jnp.tanh, jnp.tanh, None), {"norm": "plain"}),
    "deep linear": ((4, 6, 5, 3), (None, None, None), {"norm": "affine"}),
    "linear above": ((4, 6, 5, 8), (jnp.tanh, None, None), {}),
    "linear below": ((4, 6, 5, 8), (None, jnp.tanh, None), {"norm": "affine"}),
    "activated output": ((4, 6, 5, 3), (jnp.tanh, jax.nn.relu, jax.nn.softplus), {}),
    "one unit": ((1, 1, 1), (jnp.tanh, None), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_explicit_jacobians(case, x64):
    sizes, activations, options = CASES[case]
    rng = np.random.default_rng(0)
    layers = random_layers(rng, sizes, activations, **options)
    x1, x2 = rng.standard_normal((7, sizes[0])), rng.standard_normal((4, sizes[0]))
    expected = reference_ntk(layers, x1, x2)
    full = dense_ntk(layers, x1, x2, trace_outputs=False, chunk_size=3)
    traced = dense_ntk(layers, x1, x2, chunk_size=3)
    np.testing.assert_allclose(full, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        traced, np.einsum("ijaa->ij", expected) / sizes[-1], rtol=1e-10, atol=1e-12
    )


def test_any_activation_and_float32():
    rng = np.random.default_rng(1)
    layers = init_dense_layers(jax.random.key(0), (20, 32, 10), activation=jax.nn.gelu)
    x = rng.standard_normal((9, 20)).astype(np.float32)

    def jacobian(row):
        arrays = [(layer.kernel, layer.bias) for layer in layers]

        def apply(arrays):
            return apply_layers(
                [
                    DenseLayer(kernel, bias, None, layer.activation)
                    for (kernel, bias), layer in zip(arrays, layers, strict=True)
                ],
                row[None],
            )[0]

        leaves = jax.tree.leaves(jax.jacrev(apply)(arrays))
        return jnp.concatenate([leaf.reshape(10, -1) for leaf in leaves], axis=1)

    jacobians = np.asarray(jax.vmap(jacobian)(x), np.float64)
    expected = np.einsum("iop,jop->ij", jacobians, jacobians) / 10
    found = dense_ntk(layers, x)
    assert found.dtype == jnp.float32 and isinstance(found, jax.Array)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("trace_outputs", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 2, 5, 10, 11, 100])
def test_chunk_size_changes_nothing(chunk_size, trace_outputs, x64):
    rng = np.random.default_rng(2)
    layers = random_layers(rng, (3, 4, 2), (jnp.tanh, None), norm="affine")
    x1, x2 = rng.standard_normal((11, 3)), rng.standard_normal((6, 3))
    ntk = partial(dense_ntk, layers, x1, x2, trace_outputs=trace_outputs)
    np.testing.assert_allclose(ntk(chunk_size=chunk_size), ntk(), rtol=1e-12)


def test_symmetric_positive_semidefinite_and_follows_permutations(x64):
    rng = np.random.default_rng(3)
    layers = random_layers(rng, (3, 8, 2), (jax.nn.relu, None))
    x = rng.standard_normal((12, 3))
    x[5] = x[1]
    kernel = np.asarray(dense_ntk(layers, x, chunk_size=5))
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    np.testing.assert_allclose(kernel[5], kernel[1], rtol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-10
    order = rng.permutation(12)
    permuted = dense_ntk(layers, x[order], x, chunk_size=5)
    np.testing.assert_allclose(permuted, kernel[order], rtol=1e-12)


def test_memory_mapped_float16(tmp_path):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((13, 6)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    layers = init_dense_layers(jax.random.key(1), (6, 8, 3))
    found = dense_ntk(layers, mapped, mapped[:5], chunk_size=4)
    assert found.dtype == jnp.float32
    expected = dense_ntk(layers, x.astype(np.float32), x[:5].astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dtype(x64):
    x = np.random.default_rng(5).standard_normal((4, 6))
    layers = init_dense_layers(jax.random.key(1), (6, 8, 3))
    assert dense_ntk(layers, x).dtype == jnp.float32
    assert dense_ntk(layers, x, dtype=jnp.float64).dtype == jnp.float64
    half = init_dense_layers(jax.random.key(1), (6, 8, 3), dtype=jnp.bfloat16)
    assert dense_ntk(half, x).dtype == jnp.float32
    with pytest.raises(ValueError, match="dtype"):
        dense_ntk(layers, x, dtype=jnp.int32)


def test_runs_under_jit():
    layers = init_dense_layers(jax.random.key(1), (6, 8, 3))
    x = np.random.default_rng(6).standard_normal((7, 6)).astype(np.float32)
    inside = jax.jit(lambda x: dense_ntk(layers, x, chunk_size=3))(x)
    np.testing.assert_allclose(inside, dense_ntk(layers, x), rtol=1e-5)


def test_apply_layers(x64):
    rng = np.random.default_rng(7)
    layers = random_layers(
        rng, (4, 6, 5, 3), (jnp.tanh, jax.nn.relu, jax.nn.softplus), norm="affine"
    )
    x = rng.standard_normal((5, 4))
    expected = np.stack([reference_jacobian(layers, row)[1] for row in x])
    np.testing.assert_allclose(apply_layers(layers, x), expected, rtol=1e-12)


def test_init_dense_layers():
    layers = init_dense_layers(jax.random.key(0), (400, 300, 200, 5), activation=jnp.tanh)
    assert [layer.kernel.shape for layer in layers] == [(400, 300), (300, 200), (200, 5)]
    assert [layer.activation for layer in layers] == [jnp.tanh, jnp.tanh, None]
    for layer in layers:
        assert layer.norm is None and not np.any(layer.bias)
    for layer in layers[:2]:
        kernel = np.asarray(layer.kernel)
        np.testing.assert_allclose(kernel.std() * kernel.shape[0] ** 0.5, 1, atol=0.02)
        assert np.abs(kernel).max() * kernel.shape[0] ** 0.5 < 2 / 0.87
    assert init_dense_layers(jax.random.key(0), (4, 3), use_bias=False)[0].bias is None
    again = init_dense_layers(jax.random.key(0), (400, 300, 200, 5), activation=jnp.tanh)
    np.testing.assert_array_equal(layers[1].kernel, again[1].kernel)


def test_wrong_arguments():
    layers = init_dense_layers(jax.random.key(0), (6, 8, 3))
    x = np.ones((4, 6), np.float32)
    bad = x.copy()
    bad[2, 3] = np.nan
    norm = BatchNormStats(np.zeros(7), np.ones(8))
    for match, call in {
        "layers: expected one": lambda: dense_ntk((), x),
        r"layers\[1\].kernel": lambda: dense_ntk((layers[0], layers[0]), x),
        r"layers\[0\].bias": lambda: dense_ntk((layers[0]._replace(bias=np.ones(3)),), x),
        r"layers\[0\].norm.mean": lambda: dense_ntk((layers[0]._replace(norm=norm),), x),
        "x1: expected 6 columns": lambda: dense_ntk(layers, x[:, :5]),
        "x2: expected 6 columns": lambda: dense_ntk(layers, x, x[:, :5]),
        "x1: expected finite": lambda: dense_ntk(layers, bad),
        "x2: expected at least 1 rows": lambda: dense_ntk(layers, x, x[:0]),
        "chunk_size": lambda: dense_ntk(layers, x, chunk_size=0),
        "x: expected a matrix": lambda: apply_layers(layers, x[0]),
        "sizes: expected two": lambda: init_dense_layers(jax.random.key(0), (3,)),
        "sizes: expected a whole": lambda: init_dense_layers(jax.random.key(0), (3, 0)),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
