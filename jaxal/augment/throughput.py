"""How fast an augmentation is."""

import time

import jax
from jax.typing import ArrayLike

from jaxal.augment.base import Pipeline, augment_batch
from jaxal.checks import check_positive

__all__ = ["images_per_second"]


def images_per_second(
    fn: Pipeline, key: jax.Array, images: ArrayLike, *, repeats: int = 10
) -> float:
    """Time an augmentation on a batch, compiled, on the device where the batch is.

    Args:
      fn: the augmentation.
      key: of the draws.
      images: ``[n, h, w, c]`` float32 in 0..1.
      repeats: batches that are timed, after one that is not.

    Returns:
      Images a second, of the fastest batch: what the machine does when nothing disturbs it.

    Raises:
      ValueError: images that are no batch, or fewer than one repeat.
    """
    check_positive(repeats, "repeats")
    run = jax.jit(lambda key, images: augment_batch(fn, key, images))
    batch = jax.device_put(images)
    jax.block_until_ready(run(key, batch))
    times = []
    for step in range(repeats):
        step_key = jax.block_until_ready(jax.random.fold_in(key, step))
        start = time.perf_counter()
        jax.block_until_ready(run(step_key, batch))
        times.append(time.perf_counter() - start)
    return len(batch) / min(times)
