"""What the epochs of every training end with: means over their steps, and a look for divergence."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.train.batches import RowBatch
from jaxal.train.step import TrainState

__all__ = ["DivergedError", "check_converging", "mean_metrics"]


class DivergedError(ValueError):
    """A training whose loss or weights are no longer finite."""


def mean_metrics(
    metrics: Sequence[dict[str, jax.Array]], batches: Sequence[RowBatch]
) -> dict[str, float]:
    """Average metrics over the images of an epoch.

    Args:
      metrics: of each step, scalars by name, means over its images.
      batches: of each step, whose real rows are counted.

    Returns:
      The means, by name.
    """
    fetched = jax.device_get(metrics)
    sizes = [int(batch.mask.sum()) for batch in batches]
    return {
        name: float(np.average([float(step[name]) for step in fetched], weights=sizes))
        for name in fetched[0]
    }


def check_converging(when: str, loss: float, state: TrainState, rates: str) -> None:
    """Check that a training has not diverged.

    Args:
      when: such as "epoch 3", for the error.
      loss: of that time.
      state: after it, which the loss does not know: the last step comes after it.
      rates: the learning rates in words, for the error.

    Raises:
      DivergedError: a NaN or an infinity in the loss or the state.
    """
    if not (np.isfinite(loss) and _all_finite(state)):
        raise DivergedError(
            f"config: training diverged in {when} (loss {loss}), with {rates}; lower the "
            "rates, or set schedule.warmup_epochs"
        )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))
