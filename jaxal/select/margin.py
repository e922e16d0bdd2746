"""Margin selection: the samples whose two likeliest classes are closest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.select.base import Pool, Strategy
from jaxal.select.scores import best_by_probs

__all__ = ["MARGIN", "MarginInfo", "margins", "select_margin"]


class MarginInfo(NamedTuple):
    """How close the chosen samples were."""

    scores: jax.Array  # [batch_size] float32 margins, ascending


@jax.jit
def margins(probs: jax.Array) -> jax.Array:
    """Subtract each row's second largest probability from its largest.

    Args:
      probs: ``[n, c]``; with one class the second largest counts as 0.

    Returns:
      ``[n]`` in [0, 1].
    """
    top = jnp.argmax(probs, axis=1, keepdims=True)
    others = jnp.where(jnp.arange(probs.shape[1]) == top, 0, probs)
    return jnp.max(probs, axis=1) - jnp.max(others, axis=1)


def select_margin(
    key: jax.Array, pool: Pool, *, batch_size: int, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[jax.Array, MarginInfo]:
    """Choose the smallest margins between the two likeliest classes.

    Args:
      key: unused; the choice is deterministic.
      pool: with ``probs``.
      batch_size: how many.
      chunk_size: rows scored at once; changes no result.

    Returns:
      Rows ``[batch_size]`` int32, smallest margin first, ties to the lower index, and the margins.

    Raises:
      ValueError: a malformed pool or option, one without ``probs``, or more than are left.
    """
    del key
    picks, scores = best_by_probs(
        margins, pool, "margin", batch_size=batch_size, chunk_size=chunk_size, largest=False
    )
    return picks, MarginInfo(scores)


MARGIN = Strategy("margin", select_margin, needs=frozenset({"probs"}))
