"""Class-balanced random selection, for oracle studies only: it sees labels nobody paid for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_labels
from jaxal.select.base import Pool, Strategy, check_pool, free_mask, rank_in_group

__all__ = ["CLASS_BALANCED", "ClassBalancedInfo", "select_class_balanced"]


class ClassBalancedInfo(NamedTuple):
    """Which classes the chosen samples are of."""

    classes: jax.Array  # [batch_size] int32, of true_labels


def select_class_balanced(
    key: jax.Array, pool: Pool, *, batch_size: int, true_labels: ArrayLike | None = None
) -> tuple[jax.Array, ClassBalancedInfo]:
    """Choose at random so that the classes stay equally frequent. AN ORACLE: NO REAL STRATEGY.

    It reads the true labels of the whole pool, WHICH NOBODY PAID FOR, to decide what to label. No
    labelling budget buys what it does, and its results must not stand beside those of strategies
    as if it were one. It answers one question: what balanced classes alone would be worth.

    Each pick goes to the class with the fewest labelled or picked samples that still has free ones,
    one of them at random among equals, and takes a uniformly random free sample of it. The rule is
    ours; what the labelled samples count for are the labels that the pool holds.

    Args:
      key: decides the choice.
      pool: its size, labelled rows and labels are read.
      batch_size: how many.
      true_labels: ``[n]`` int, the class of every sample of the pool, 0..num_classes-1. Required.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, and their classes. Holds ``O(n)``.

    Raises:
      ValueError: no or bad ``true_labels``, a malformed pool, or more samples than are left.
    """
    pool = check_pool(pool, batch_size, name="class-balanced")
    n = np.shape(pool.features)[0]
    if true_labels is None:
        raise ValueError(
            "true_labels: class-balanced is for oracle studies and needs the class of every sample "
            f"of the pool, labelled or not, [{n}] integers; found none"
        )
    classes = check_labels(true_labels, pool.num_classes, "true_labels", length=n)
    # The whole pool is shuffled, so that one compiled program serves every round.
    order, tie = (np.asarray(drawn) for drawn in _draws(key, n))
    rows = order[free_mask(pool)[order]]
    # A class's first free sample is picked while it has as many as are labelled of it, its second
    # while it has one more, and so on: the fewest first is the order of these numbers.
    counts = np.bincount(np.asarray(pool.labels), minlength=pool.num_classes)
    level = counts[classes[rows]] + rank_in_group(classes[rows], pool.num_classes)
    picks = rows[np.lexsort((tie[rows], level))][:batch_size]
    info = ClassBalancedInfo(jnp.asarray(classes[picks], jnp.int32))
    return jnp.asarray(picks, jnp.int32), info


def _draws(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Draw an order of the rows ``[n]`` and, apart from it, what breaks ties ``[n]``."""
    order_key, tie_key = jax.random.split(key)
    return jax.random.permutation(order_key, n), jax.random.permutation(tie_key, n)


CLASS_BALANCED = Strategy("class-balanced", select_class_balanced, cold_start=True, oracle=True)
