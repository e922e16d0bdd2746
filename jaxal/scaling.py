"""Bring features to a length, or to a range, whose squares float32 can hold."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["range_scale", "unit_rows"]

# Entries up to 2^24, and down to 2^-24, are squared and added up with room to spare.
_SAFE = 24


@jax.jit
def unit_rows(x: ArrayLike) -> jax.Array:
    """Scale rows to length 1.

    Args:
      x: ``[n, d]`` features of any real dtype and size.

    Returns:
      ``[n, d]`` float32; zero rows stay zero.
    """
    x = jnp.asarray(x, jnp.float32)
    # Scaling by the largest entry first keeps the squares of tiny and huge rows in range.
    largest = jnp.abs(x).max(1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt((x**2).sum(1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)


@jax.jit
def range_scale(*arrays: ArrayLike) -> jax.Array:
    """Choose what to multiply arrays by before they are squared.

    Args:
      *arrays: of any shape.

    Returns:
      A power of two, which rounds nothing: 1 where float32 holds the squares as it is, else what
      brings the largest entry of all to about 1. float32, a scalar.
    """
    entries = [jnp.abs(jnp.asarray(x, jnp.float32)).max() for x in arrays]
    exponent = jnp.frexp(jnp.stack(entries).max())[1]
    # The scale's inverse has to be a normal number too.
    shift = jnp.where(jnp.abs(exponent) > _SAFE, jnp.clip(-exponent, -100, 100), 0)
    return jnp.ldexp(jnp.float32(1), shift)
