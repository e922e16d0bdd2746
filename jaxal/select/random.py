"""Random selection: the baseline that every strategy has to beat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.select.base import Pool, Strategy, check_pool

__all__ = ["RANDOM", "RandomInfo", "select_random"]


class RandomInfo(NamedTuple):
    """Nothing is to be told about a random choice."""


def select_random(key: jax.Array, pool: Pool, *, batch_size: int) -> tuple[jax.Array, RandomInfo]:
    """Choose uniformly, without replacement, among the unlabelled samples.

    Args:
      key: decides the choice.
      pool: only its size and labelled rows are read.
      batch_size: how many.

    Returns:
      Rows ``[batch_size]`` int32 in random order, and an empty Info.

    Raises:
      ValueError: a malformed pool, or more samples than are left.
    """
    pool = check_pool(pool, batch_size, name="random")
    n = np.shape(pool.features)[0]
    # The whole pool is shuffled, so that one compiled program serves every round.
    order = np.asarray(jax.random.permutation(key, n))
    free = ~np.isin(order, pool.labeled)
    return jnp.asarray(order[free][:batch_size], jnp.int32), RandomInfo()


RANDOM = Strategy("random", select_random, cold_start=True)
