"""What the losses on two views of a batch share."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["unit_rows", "valid_rows"]

_EPSILON = 1e-12


def unit_rows(x: jax.Array) -> jax.Array:
    """Scale rows to length 1, with a gradient that is finite everywhere.

    `jaxal.scaling.unit_rows` takes rows of any size, but has no gradient at zero.

    Args:
      x: ``[n, d]`` floating point; rows shorter than 1e-6 stay shorter than 1.

    Returns:
      ``[n, d]`` of at least float32.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=1, keepdims=True), _EPSILON))


def valid_rows(mask: ArrayLike | None, n: int) -> jax.Array:
    """Check which rows of a batch count.

    Args:
      mask: ``[n]`` bool, False for padding; None where all count.
      n: rows of the batch.

    Returns:
      ``[n]`` bool.

    Raises:
      ValueError: a mask of another shape.
    """
    valid = jnp.ones(n, bool) if mask is None else jnp.asarray(mask, bool)
    if valid.shape != (n,):
        raise ValueError(f"mask: expected shape ({n},), found {valid.shape}")
    return valid
