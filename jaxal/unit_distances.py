"""Distances between L2-normalised rows, a tile of pairs at a time."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["NOISE", "as_tiles", "fold_distances", "unit_lengths", "unit_squared_distances"]

T = TypeVar("T")

# Squared distances of unit rows below this are rounding: duplicates, and a row from itself.
NOISE = 2.0**-19


def unit_squared_distances(
    a: jax.Array, b: jax.Array, lengths: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """Square the distances between rows of length one or zero.

    Args:
      a: ``[n, d]`` float32, as of `jaxal.scaling.unit_rows`.
      b: ``[m, d]`` likewise.
      lengths: of `unit_lengths`, ``[n]`` and ``[m]``, where they are known already.

    Returns:
      ``[n, m]`` in 0..4. What is below 2e-6, a distance of 1.4e-3, is within the rounding of
      products and given as 0, so that duplicates are at distance 0.
    """
    of_a, of_b = (unit_lengths(a), unit_lengths(b)) if lengths is None else lengths
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    squared = of_a[:, None] + of_b - 2 * products
    return jnp.where(squared < NOISE, 0, squared)


def unit_lengths(rows: jax.Array) -> jax.Array:
    """Tell rows of length one, 1, from rows of zeros, 0: ``[n]``."""
    return jnp.any(rows != 0, axis=1).astype(rows.dtype)


def as_tiles(rows: jax.Array, size: int) -> jax.Array:
    """Cut ``[n, ...]`` into ``[tiles, size, ...]``, zeros at the end; one tile where n is less."""
    size = min(size, len(rows))
    padding = [(0, -len(rows) % size)] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, padding).reshape(-1, size, *rows.shape[1:])


def fold_distances(
    fold: Callable[[jax.Array, jax.Array, jax.Array, T], T], x: jax.Array, start: T
) -> T:
    """Go through the squared distances of all pairs of rows, a square tile at a time.

    Args:
      fold: takes the numbers of two tiles a <= b, the distances ``[tile, tile]`` from the rows of a
        to those of b, and what it returned last. With a = b each pair stands there twice.
      x: ``[tiles, tile, d]`` of `as_tiles`, rows of length one or zero.
      start: what ``fold`` is first given.

    Returns:
      What ``fold`` returned last. Distances are symmetric: half of them are computed.
    """
    first, second = (jnp.asarray(index) for index in np.triu_indices(len(x)))

    def body(i: jax.Array, carry: T) -> T:
        a, b = first[i], second[i]
        return fold(a, b, unit_squared_distances(x[a], x[b]), carry)

    return jax.lax.fori_loop(0, len(first), body, start)
