"""Entropy selection: the samples whose predicted class is the most uncertain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.select.base import Pool, Strategy
from jaxal.select.scores import best_by_probs

__all__ = ["ENTROPY", "EntropyInfo", "entropies", "select_entropy"]


class EntropyInfo(NamedTuple):
    """How uncertain the chosen samples were."""

    scores: jax.Array  # [batch_size] float32 entropies in nats, descending


@jax.jit
def entropies(probs: jax.Array) -> jax.Array:
    """Compute ``−Σ p ln p`` of each row of ``probs [n, c]``: ``[n]`` nats."""
    return jnp.sum(entr(probs), axis=1)


def select_entropy(
    key: jax.Array, pool: Pool, *, batch_size: int, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> tuple[jax.Array, EntropyInfo]:
    """Choose the largest entropies of the predicted class.

    Args:
      key: unused; the choice is deterministic.
      pool: with ``probs``.
      batch_size: how many.
      chunk_size: rows scored at once; changes no result.

    Returns:
      Rows ``[batch_size]`` int32, largest entropy first, ties to the lower index, and the
      entropies.

    Raises:
      ValueError: a malformed pool or option, one without ``probs``, or more than are left.
    """
    del key
    picks, scores = best_by_probs(
        entropies, pool, "entropy", batch_size=batch_size, chunk_size=chunk_size, largest=True
    )
    return picks, EntropyInfo(scores)


ENTROPY = Strategy("entropy", select_entropy, needs=frozenset({"probs"}))
