"""The loss of SimSiam (arXiv 2011.10566), for pre-training without labels or negatives."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.train.views import unit_rows, valid_rows

__all__ = ["collapse", "simsiam_loss"]


def simsiam_loss(
    p1: ArrayLike,
    p2: ArrayLike,
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Compute the symmetrised negative cosine similarity of predictions and projections.

    ``-½ mean(p1·z2 + p2·z1)`` over rows of length 1, where no gradient passes through z (the
    paper's equations 2 and 4).

    Args:
      p1: ``[n, d]`` predictions of one view.
      p2: ``[n, d]`` predictions of the other.
      z1: ``[n, d]`` projections of the one.
      z2: ``[n, d]`` projections of the other.
      mask: ``[n]`` bool, False for rows that do not count; None where all do.

    Returns:
      The loss, a scalar in -1..1 of at least float32.

    Raises:
      ValueError: shapes other than four equal ``[n, d]``, or a mask of another length.
    """
    arrays = [jnp.asarray(x) for x in (p1, p2, z1, z2)]
    shapes = [x.shape for x in arrays]
    if len(set(shapes)) > 1 or arrays[0].ndim != 2 or 0 in shapes[0]:
        raise ValueError(f"p1, p2, z1, z2: expected four matrices [n, d] alike, found {shapes}")
    valid = valid_rows(mask, len(arrays[0]))
    p1, p2, z1, z2 = (unit_rows(x) for x in arrays)
    z1, z2 = jax.lax.stop_gradient((z1, z2))
    similarity = (jnp.sum(p1 * z2, axis=1) + jnp.sum(p2 * z1, axis=1)) / 2
    return -jnp.sum(jnp.where(valid, similarity, 0)) / jnp.maximum(jnp.sum(valid), 1)


def collapse(z: ArrayLike, *, mask: ArrayLike | None = None) -> jax.Array:
    """Measure how far projections spread: 1 for isotropic ones, 0 where all are alike.

    It is ``√d`` times the mean over dimensions of the standard deviation over rows of ``z / |z|``,
    which the paper watches for collapse (its figure 2).

    Args:
      z: ``[n, d]`` projections.
      mask: ``[n]`` bool, False for rows that do not count; None where all do.

    Returns:
      The spread, a scalar in 0..1 of at least float32; 0 where no row counts.

    Raises:
      ValueError: another shape than ``[n, d]``, or a mask of another length.
    """
    z = jnp.asarray(z)
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"z: expected a matrix [n, d], found shape {z.shape}")
    valid = valid_rows(mask, len(z))[:, None]
    count = jnp.maximum(jnp.sum(valid), 1)
    z = unit_rows(z)
    centred = z - jnp.sum(jnp.where(valid, z, 0), axis=0) / count
    variance = jnp.sum(jnp.where(valid, centred**2, 0), axis=0) / count
    return jnp.sqrt(z.shape[1]) * jnp.mean(jnp.sqrt(variance))
