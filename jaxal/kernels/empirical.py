"""Empirical neural tangent kernel of any network, by way of its Jacobians.

For a dense head `jaxal.kernels.dense_ntk` gives the same kernel far faster.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxal.checks import check_choice, check_features, check_positive
from jaxal.chunking import map_rows
from jaxal.kernels._neural_tangents import load_neural_tangents, neural_tangents_ntk_fn
from jaxal.kernels.dense import working_dtype

__all__ = ["Engine", "empirical_ntk"]

Engine = Literal["neural-tangents", "jax"]
Apply = Callable[[Any, jax.Array], jax.Array]


def empirical_ntk(
    apply: Apply,
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    trace_outputs: bool = True,
    engine: Engine = "neural-tangents",
    chunk_size: int = 64,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Compute the empirical NTK of a network between two sets of examples.

    K(x, x') = Σ_θ ∂f(x)/∂θ ∂f(x')/∂θ. Rows and columns pass in chunks; held beside twice the result
    are the Jacobians of two chunks, O(chunk · o · parameters).

    Compiled code is kept for as long as ``apply`` is the same object.

    Args:
      apply: a pure ``(params, x [n, ...]) -> [n, o]`` in which examples do not influence each
        other (batch statistics fixed); `jaxal.models.frozen_apply` makes it of a Flax module. What
        it raises, as on examples of a width that it was not made for, is passed on.
      params: a pytree of floating-point arrays, all of which are differentiated by.
      x1: ``[n1, ...]`` examples; NumPy, memory-mapped or JAX.
      x2: ``[n2, ...]`` examples; None for ``x1`` itself.
      trace_outputs: give the trace over outputs divided by their number, one scalar a pair; else
        every pair of outputs.
      engine: ``"neural-tangents"``, its Jacobian contraction, or ``"jax"``, the same values from
        `jax.jacrev` alone.
      chunk_size: examples of either set held at once; changes no result beyond rounding.
      dtype: what parameters and floating-point examples are cast to; None for the parameters' own,
        at least float32.

    Returns:
      ``[n1, n2]``, or ``[n1, n2, o, o]`` without ``trace_outputs``.

    Raises:
      ValueError: examples that are none, of two shapes or not finite, parameters that are not
        floating-point or come with other Flax collections, outputs that are not ``[n, o]``, or an
        unknown engine.
      ImportError: the engine is neural-tangents and it cannot be imported with this JAX.
    """
    check_choice(engine, "engine", Engine)
    check_positive(chunk_size, "chunk_size")
    left = _check_examples(x1, "x1")
    right = left if x2 is None else _check_examples(x2, "x2")
    if left.shape[1:] != right.shape[1:]:
        raise ValueError(f"x2: expected shape [n, *{left.shape[1:]}] as x1, found {right.shape}")
    _check_params(params)
    dtype = working_dtype(params, dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    _check_outputs(apply, params, left, dtype)

    if engine == "neural-tangents":
        load_neural_tangents()
    rows_fn, block_fn = _contraction if engine == "jax" else _neural_tangents
    static = (apply, trace_outputs)

    def rows_against_all(rows: jax.Array) -> jax.Array:
        held = rows_fn(apply, params, rows)
        block = map_rows(
            lambda columns: block_fn(*static, params, held, columns),
            right,
            chunk_size=chunk_size,
            dtype=dtype,
        )
        return jnp.swapaxes(block, 0, 1)

    # Kernels are inverted later: the reduced precision that accelerators default to is not enough.
    with jax.default_matmul_precision("highest"):
        return map_rows(rows_against_all, left, chunk_size=chunk_size, dtype=dtype)


@partial(jax.jit, static_argnames="apply")
def _jacobians(apply: Apply, params: Any, x: jax.Array) -> Any:
    """Differentiate example by example: params' leaves, each ``[n, o, ...]``."""
    return jax.vmap(lambda row: jax.jacrev(lambda p: apply(p, row[None])[0])(params))(x)


@partial(jax.jit, static_argnames=("apply", "trace_outputs"))
def _contract(
    apply: Apply, trace_outputs: bool, params: Any, rows: Any, columns: jax.Array
) -> jax.Array:
    """Contract held Jacobians of rows with the columns', leaf by leaf: ``[columns, rows, ...]``."""

    def leaf(left: jax.Array, right: jax.Array) -> jax.Array:
        left = left.reshape(*left.shape[:2], -1)
        right = right.reshape(*right.shape[:2], -1)
        if trace_outputs:
            return jnp.einsum("jop,iop->ji", right, left) / left.shape[1]
        return jnp.einsum("jbp,iap->jiab", right, left)

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, rows, _jacobians(apply, params, columns)))


def _rows_themselves(apply: Apply, params: Any, rows: jax.Array) -> jax.Array:
    return rows


@partial(jax.jit, static_argnames=("apply", "trace_outputs"))
def _neural_tangents_block(
    apply: Apply, trace_outputs: bool, params: Any, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    kernel_fn = neural_tangents_ntk_fn(apply, trace_outputs=trace_outputs)
    return jnp.swapaxes(kernel_fn(rows, columns, params), 0, 1)


# What to hold of a chunk of rows, and how to set it against a chunk of columns.
_contraction = (_jacobians, _contract)
_neural_tangents = (_rows_themselves, _neural_tangents_block)


def _check_examples(x: Any, name: str) -> Any:
    x = x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"{name}: expected examples [n, ...], found shape {x.shape}")
    # A view: memory-mapped rows are still read chunk by chunk.
    check_features(x.reshape(x.shape[0], int(np.prod(x.shape[1:]))), name)
    return x


def _check_params(params: Any) -> None:
    others = [name for name in params if name != "params"] if isinstance(params, Mapping) else []
    if others and "params" in params:
        raise ValueError(
            f"params: expected parameters alone, found Flax collections params and {others}, which "
            "would be differentiated by too; jaxal.models.frozen_apply holds these fixed"
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params: expected one array or more, found none")
    for path, leaf in leaves:
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"params{where}: expected floating-point numbers, found dtype {dtype}")


def _check_outputs(apply: Apply, params: Any, x: Any, dtype: np.dtype) -> None:
    kind = jnp.asarray(x[:1]).dtype
    kind = dtype if jnp.issubdtype(kind, jnp.floating) else kind
    out = jax.eval_shape(apply, params, jax.ShapeDtypeStruct((2, *x.shape[1:]), kind))
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 2:
        found = type(out).__name__ if shape is None else f"shape {shape} for n = 2"
        raise ValueError(f"apply: expected outputs [n, o], found {found}")
