"""Least-confidence selection: the samples whose likeliest class is the least likely."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.select.base import Pool, Strategy
from jaxal.select.scores import best_by_probs

__all__ = ["LEAST_CONFIDENCE", "LeastConfidenceInfo", "confidences", "select_least_confidence"]


class LeastConfidenceInfo(NamedTuple):
    """How confident the head was of the chosen samples."""

    scores: jax.Array  # [batch_size] float32 largest probabilities, ascending


@jax.jit
def confidences(probs: jax.Array) -> jax.Array:
    """Take each row's largest probability: ``[n, c]`` to ``[n]`` in [0, 1]."""
    return jnp.max(probs, axis=1)


def select_least_confidence(
    key: jax.Array, pool: Pool, *, batch_size: int, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[jax.Array, LeastConfidenceInfo]:
    """Choose the smallest probabilities of the likeliest class.

    Args:
      key: unused; the choice is deterministic.
      pool: with ``probs``.
      batch_size: how many.
      chunk_size: rows scored at once; changes no result.

    Returns:
      Rows ``[batch_size]`` int32, least confident first, ties to the lower index, and their largest
      probabilities.

    Raises:
      ValueError: a malformed pool or option, one without ``probs``, or more than are left.
    """
    del key
    picks, scores = best_by_probs(
        confidences,
        pool,
        "least-confidence",
        batch_size=batch_size,
        chunk_size=chunk_size,
        largest=False,
    )
    return picks, LeastConfidenceInfo(scores)


LEAST_CONFIDENCE = Strategy("least-confidence", select_least_confidence, needs=frozenset({"probs"}))
