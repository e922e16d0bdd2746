"""Entropy selection: the samples whose predicted class is the most uncertain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows
from jaxal.select.base import Pool, Strategy, check_pool, first_best

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
    pool = check_pool(pool, batch_size, ("probs",), "entropy")
    scores = map_rows(entropies, pool.probs, chunk_size=chunk_size)  # type: ignore[arg-type]
    picks, found = first_best(scores, pool, batch_size, largest=True)
    return jnp.asarray(picks, jnp.int32), EntropyInfo(jnp.asarray(found))


ENTROPY = Strategy("entropy", select_entropy, needs=frozenset({"probs"}))
