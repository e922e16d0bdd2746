"""What the strategies share that score every sample by its predicted probabilities."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxal.chunking import map_rows
from jaxal.select.base import Pool, check_pool, first_best

__all__ = ["best_by_probs"]


def best_by_probs(
    score: Callable[[jax.Array], jax.Array],
    pool: Pool,
    name: str,
    *,
    batch_size: int,
    chunk_size: int,
    largest: bool,
) -> tuple[jax.Array, jax.Array]:
    """Score the probabilities row by row and take the best unlabelled rows.

    Args:
      score: maps ``[chunk, c]`` probabilities to ``[chunk]`` scores; jit it.
      pool: with ``probs``.
      name: the strategy's name, for errors.
      batch_size: how many.
      chunk_size: rows scored at once; changes no result.
      largest: whether a large score is a good one.

    Returns:
      Rows ``[batch_size]`` int32, best first, ties to the lower index, and their scores float32.

    Raises:
      ValueError: a malformed pool or option, one without ``probs``, or more than are left.
    """
    pool = check_pool(pool, batch_size, ("probs",), name)
    scores = map_rows(score, pool.probs, chunk_size=chunk_size, dtype=jnp.float32)  # type: ignore[arg-type]
    picks, found = first_best(scores, pool, batch_size, largest=largest)
    return jnp.asarray(picks, jnp.int32), jnp.asarray(found)
