"""Empirical neural tangent kernel of a dense head, in closed form.

A head is a tuple of `DenseLayer`. With A the inputs of a layer and D what is back-propagated to its
output, the layer's weights add (A Aᵀ) ∘ (D Dᵀ) to the kernel and its bias adds D Dᵀ, so that no
Jacobian is ever held. Batch normalisation is in evaluation mode: a fixed affine map per unit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxal.checks import check_features, check_positive

__all__ = [
    "BatchNormStats",
    "DenseLayer",
    "apply_layers",
    "dense_ntk",
    "init_dense_layers",
]

Activation = Callable[[jax.Array], jax.Array]

_CHUNK_SIZE = 512  # blocks [chunk, n2] that mostly stay in cache
# Kernels are inverted later: the reduced precision that accelerators use by default is not enough.
_PRECISION = jax.lax.Precision.HIGHEST


class BatchNormStats(NamedTuple):
    """Batch normalisation in evaluation mode, (z - mean) / sqrt(var + epsilon) * scale + bias."""

    mean: ArrayLike  # [out]
    var: ArrayLike  # [out]
    scale: ArrayLike | None = None  # [out], a parameter; None: fixed at 1
    bias: ArrayLike | None = None  # [out], a parameter; None: fixed at 0
    epsilon: ArrayLike = 1e-5  # []


class DenseLayer(NamedTuple):
    """One layer: dense, then batch normalisation, then an elementwise activation."""

    kernel: ArrayLike  # [in, out]
    bias: ArrayLike | None = None  # [out]
    norm: BatchNormStats | None = None
    activation: Activation | None = None  # None: the identity


class _Term(NamedTuple):
    """A summand of the kernel: (inputs inputsᵀ + offset) ∘ (deltas deltasᵀ)."""

    inputs: jax.Array | None  # [n, in]; None: the first factor is 1
    offset: jax.Array | None  # [], 1 where the layer has a bias
    deltas: jax.Array  # traced [n, f], full [n, o, f]; one row where all examples share it


class _Step(NamedTuple):
    """What the backward pass needs of one layer's forward pass."""

    inputs: jax.Array  # [n, in]
    normed: jax.Array | None  # [n, out], before scale and bias
    slope: jax.Array  # [n, out], derivative of the activation; [1, out] without one
    gain: jax.Array  # [1, out], derivative of the normalisation


def dense_ntk(
    layers: Sequence[DenseLayer],
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    trace_outputs: bool = True,
    chunk_size: int = _CHUNK_SIZE,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Compute the empirical NTK of a dense head between two sets of rows.

    K(x, x') = Σ_θ ∂f(x)/∂θ ∂f(x')/∂θ over every parameter: kernels, biases, and scale and bias of
    each batch normalisation, whose statistics stay fixed.

    The rows of ``x1`` pass in chunks. Held beside the result: the factors of ``x2``, O(n2 · width)
    for the last hidden layer and, traced or not, O(n2 · width · o) for each one below it; the same
    for one chunk; and a few blocks ``[chunk, n2]``.

    Args:
      layers: the head, first layer first.
      x1: ``[n1, d]`` features; NumPy, memory-mapped (any floating dtype) or JAX.
      x2: ``[n2, d]`` features; None for ``x1`` itself.
      trace_outputs: give the trace over outputs divided by their number, one scalar a pair; else
        every pair of outputs.
      chunk_size: rows of ``x1`` held at once; changes no result beyond rounding.
      dtype: what to compute in; None for the parameters' own, at least float32.

    Returns:
      ``[n1, n2]``, or ``[n1, n2, o, o]`` without ``trace_outputs``.

    Raises:
      ValueError: layers that do not chain, features of another width, not finite, or empty.
    """
    layers = _check_layers(layers)
    check_positive(chunk_size, "chunk_size")
    width = np.shape(layers[0].kernel)[0]
    left = _check_width(check_features(x1, "x1"), width, "x1")
    right = left if x2 is None else _check_width(check_features(x2, "x2"), width, "x2")
    arrays, activations = _split(layers)
    dtype = working_dtype(arrays, dtype)
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), arrays)

    columns = _factors(arrays, jnp.asarray(right).astype(dtype), activations, trace_outputs)
    # Chunks of equal size: the last one slides back over a few rows instead of being padded.
    count = -(-left.shape[0] // chunk_size)
    size = -(-left.shape[0] // count)
    starts = [min(i * size, left.shape[0] - size) for i in range(count)]
    outputs = () if trace_outputs else (np.shape(layers[-1].kernel)[1],) * 2
    out = jnp.zeros((left.shape[0], right.shape[0], *outputs), dtype)
    rows = jnp.asarray(left[starts[0] : starts[0] + size])
    for i, start in enumerate(starts):
        out = _fill_rows(out, start, rows, columns, arrays, activations, trace_outputs)
        if i + 1 < count:
            # Read the next chunk while this one is computed, and never more than one ahead.
            rows = jnp.asarray(left[starts[i + 1] : starts[i + 1] + size])
            jax.block_until_ready(out)
    return out


def init_dense_layers(
    key: jax.Array,
    sizes: Sequence[int],
    *,
    activation: Activation | None = jax.nn.relu,
    use_bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> tuple[DenseLayer, ...]:
    """Draw a random head: LeCun-normal kernels (truncated, as Flax draws them) and zero biases.

    Args:
      key: a PRNG key.
      sizes: widths ``(d, hidden..., o)``, two or more.
      activation: what follows every layer but the last.
      use_bias: whether layers have a bias, which the kernel then counts as a parameter.
      dtype: of the parameters.

    Returns:
      ``len(sizes) - 1`` layers.

    Raises:
      ValueError: fewer than two sizes, or a size below one.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected two or more widths (d, hidden..., o), found {sizes!r}")
    for size in sizes:
        check_positive(size, "sizes")
    draw = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(
        DenseLayer(
            kernel=draw(layer_key, (fan_in, fan_out), dtype),
            bias=jnp.zeros(fan_out, dtype) if use_bias else None,
            activation=activation if i < len(sizes) - 2 else None,
        )
        for i, (layer_key, (fan_in, fan_out)) in enumerate(zip(keys, pairwise(sizes), strict=True))
    )


def apply_layers(layers: Sequence[DenseLayer], x: ArrayLike) -> jax.Array:
    """Compute the head's outputs.

    Args:
      layers: the head, first layer first.
      x: ``[n, d]`` features.

    Returns:
      ``[n, o]``, in the parameters' dtype, at least float32.

    Raises:
      ValueError: layers that do not chain, or features of another width.
    """
    layers = _check_layers(layers)
    if np.ndim(x) != 2:
        raise ValueError(f"x: expected a matrix [n, d], found shape {np.shape(x)}")
    _check_width(x, np.shape(layers[0].kernel)[0], "x")
    arrays, activations = _split(layers)
    dtype = working_dtype(arrays, None)
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), arrays)
    return _forward(arrays, jnp.asarray(x).astype(dtype), activations)[1]


def working_dtype(params: Any, dtype: DTypeLike | None) -> np.dtype:
    """Choose what a kernel is computed in: ``dtype``, else the parameters' own, at least float32.

    Raises:
      ValueError: ``dtype`` is not a floating-point type.
    """
    if dtype is None:
        leaves = [leaf for leaf in jax.tree.leaves(params) if not isinstance(leaf, float)]
        return np.dtype(jnp.result_type(jnp.float32, *leaves))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: expected a floating-point type, found {dtype!r}")
    return jnp.zeros(0, dtype).dtype  # float32 in place of float64 where JAX has that disabled


@partial(jax.jit, static_argnames=("activations", "trace_outputs"), donate_argnames=("out",))
def _fill_rows(
    out: jax.Array,
    start: ArrayLike,
    x: jax.Array,
    columns: tuple[_Term, ...],
    layers: tuple[DenseLayer, ...],
    activations: tuple[Activation | None, ...],
    trace_outputs: bool,
) -> jax.Array:
    """Write the kernel's rows ``start : start + len(x)`` into ``out``, in place."""
    rows = _factors(layers, x.astype(out.dtype), activations, trace_outputs)
    block = jnp.zeros((), out.dtype)
    for row, column in zip(rows, columns, strict=True):
        spec = "if,jf->ij" if trace_outputs else "iaf,jbf->ijab"
        summand = jnp.einsum(spec, row.deltas, column.deltas, precision=_PRECISION)
        if row.inputs is not None and column.inputs is not None:
            gram = jnp.matmul(row.inputs, column.inputs.T, precision=_PRECISION)
            gram = gram if row.offset is None else gram + row.offset
            summand = summand * (gram if trace_outputs else gram[:, :, None, None])
        block = block + summand
    block = jnp.broadcast_to(block, (x.shape[0], *out.shape[1:]))
    return jax.lax.dynamic_update_slice_in_dim(out, block, start, 0)


@partial(jax.jit, static_argnames=("activations", "trace_outputs"))
def _factors(
    layers: tuple[DenseLayer, ...],
    x: jax.Array,
    activations: tuple[Activation | None, ...],
    trace_outputs: bool,
) -> tuple[_Term, ...]:
    """Compute each summand's factors for rows ``[n, d]``, last layer first."""
    steps, _ = _forward(layers, x, activations)
    num_outputs = np.shape(layers[-1].kernel)[1]
    # Derivative of the outputs by this layer's, [n, out, o]; one row as long as it is the same for
    # all examples, which the output layer's weights are: there the sum over outputs needs no o.
    grad = jnp.eye(num_outputs, dtype=x.dtype)[None]
    terms = []
    for i in reversed(range(len(layers))):
        layer, step = layers[i], steps[i]

        def deltas(scale: jax.Array, grad: jax.Array = grad) -> jax.Array:
            return _flatten(scale, grad, num_outputs, trace_outputs)

        if step.normed is not None and layer.norm is not None and layer.norm.scale is not None:
            terms.append(_Term(None, None, deltas(step.slope * step.normed)))
        if layer.norm is not None and layer.norm.bias is not None:
            terms.append(_Term(None, None, deltas(step.slope)))
        inner = step.slope * step.gain
        offset = None if layer.bias is None else jnp.ones((), x.dtype)
        terms.append(_Term(step.inputs, offset, deltas(inner)))
        if i > 0:
            if trace_outputs:
                grad = _fewest_outputs(grad)
            kernel = jnp.asarray(layer.kernel)
            grad = jnp.einsum("kj,njo->nko", kernel, inner[:, :, None] * grad, precision=_PRECISION)
    return tuple(terms)


def _flatten(scale: jax.Array, grad: jax.Array, num_outputs: int, trace_outputs: bool) -> jax.Array:
    """Turn scale ``[n, w]`` times grad ``[n, w, o]`` into rows whose inner products sum over w."""
    if not trace_outputs:
        return jnp.swapaxes(scale[:, :, None] * grad, 1, 2)
    if grad.shape[0] == 1:
        return scale * jnp.sqrt(jnp.sum(grad**2, axis=2) / num_outputs)
    return (scale[:, :, None] * grad).reshape(grad.shape[0], -1) / num_outputs**0.5


def _fewest_outputs(grad: jax.Array) -> jax.Array:
    """Replace shared weights ``[1, w, o]`` by ``[1, w, w]`` of equal W Wᵀ where ``w < o``."""
    if grad.shape[0] > 1 or grad.shape[1] >= grad.shape[2]:
        return grad
    return jnp.linalg.qr(grad[0].T, mode="r").T[None]


def _forward(
    layers: tuple[DenseLayer, ...], x: jax.Array, activations: tuple[Activation | None, ...]
) -> tuple[list[_Step], jax.Array]:
    steps = []
    for layer, activation in zip(layers, activations, strict=True):
        inputs = x
        x = jnp.matmul(inputs, jnp.asarray(layer.kernel), precision=_PRECISION)
        if layer.bias is not None:
            x = x + layer.bias
        one = jnp.ones((1, x.shape[1]), x.dtype)
        normed, gain, slope = None, one, one
        if layer.norm is not None:
            inverse = jax.lax.rsqrt(layer.norm.var + layer.norm.epsilon)
            x = normed = (x - layer.norm.mean) * inverse
            gain = gain * inverse
            if layer.norm.scale is not None:
                x, gain = x * layer.norm.scale, gain * layer.norm.scale
            if layer.norm.bias is not None:
                x = x + layer.norm.bias
        if activation is not None:
            x, slope = jax.jvp(activation, (x,), (jnp.ones_like(x),))
        steps.append(_Step(inputs, normed, slope, gain))
    return steps, x


def _split(
    layers: tuple[DenseLayer, ...],
) -> tuple[tuple[DenseLayer, ...], tuple[Activation | None, ...]]:
    """Part what is traced from what is compiled in."""
    arrays = tuple(layer._replace(activation=None) for layer in layers)
    return arrays, tuple(layer.activation for layer in layers)


def _check_layers(layers: Sequence[DenseLayer]) -> tuple[DenseLayer, ...]:
    if len(layers) == 0:
        raise ValueError("layers: expected one layer or more, found none")
    width = None
    for i, layer in enumerate(layers):
        shape = np.shape(layer.kernel)
        if len(shape) != 2 or 0 in shape or (width is not None and shape[0] != width):
            expected = "in" if width is None else width
            raise ValueError(f"layers[{i}].kernel: expected shape [{expected}, out], found {shape}")
        width = shape[1]
        vectors: dict[str, Any] = {"bias": layer.bias}
        if layer.norm is not None:
            norm = layer.norm._asdict()
            vectors |= {f"norm.{k}": norm[k] for k in ("mean", "var", "scale", "bias")}
        for name, vector in vectors.items():
            optional = name in ("bias", "norm.scale", "norm.bias") and vector is None
            if not optional and np.shape(vector) != (width,):
                raise ValueError(
                    f"layers[{i}].{name}: expected shape ({width},), found {np.shape(vector)}"
                )
    return tuple(layers)


def _check_width(x: Any, width: int, name: str) -> Any:
    if np.shape(x)[1] != width:
        raise ValueError(
            f"{name}: expected {width} columns, the first layer's inputs, found shape {np.shape(x)}"
        )
    return x
