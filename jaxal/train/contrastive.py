"""The contrastive loss of SimCLR (arXiv 2002.05709), for pre-training without labels."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.train.views import unit_rows, valid_rows

__all__ = ["nt_xent"]


def nt_xent(
    z1: ArrayLike, z2: ArrayLike, *, temperature: float = 0.5, mask: ArrayLike | None = None
) -> jax.Array:
    """Compute the normalised temperature-scaled cross-entropy between two views of a batch.

    With the 2n embeddings of both views L2-normalised to u, and j(i) the other view of i, it is
    the mean over i of ``-log(exp(u_i·u_j(i) / t) / Σ_{k≠i} exp(u_i·u_k / t))`` (the paper's
    equation 1). Differentiable; holds ``O(n²)``, n being a batch and not the pool.

    Args:
      z1: ``[n, d]`` embeddings of one view; any length but zero, where the gradient is zero.
      z2: ``[n, d]`` embeddings of the other view, row for row.
      temperature: ``t`` above 0; 0.5 is the paper's for CIFAR-10.
      mask: ``[n]`` bool, False for rows that are padding: neither counted nor compared with; None
        where all count.

    Returns:
      The loss, a float32 scalar of at least 0 (float64 for float64 embeddings).

    Raises:
      ValueError: shapes other than two equal ``[n, d]``, an empty batch, a temperature of 0 or
        less, or a mask of another length.
    """
    z1, z2 = jnp.asarray(z1), jnp.asarray(z2)
    if z1.ndim != 2 or z1.shape != z2.shape or 0 in z1.shape:
        raise ValueError(
            f"z1, z2: expected two matrices [n, d] of one shape, found {z1.shape} and {z2.shape}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature: expected more than 0, found {temperature}")
    n = z1.shape[0]
    valid = jnp.tile(valid_rows(mask, n), 2)
    u = unit_rows(jnp.concatenate([z1, z2]))
    logits = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST) / temperature
    rows = jnp.arange(2 * n)
    positives = logits[rows, jnp.roll(rows, n)]
    # What is padded keeps its own pair, so that no infinity enters the gradient.
    compared = (valid & ~jnp.eye(2 * n, dtype=bool)) | (jnp.roll(rows, n)[:, None] == rows)
    losses = jax.nn.logsumexp(jnp.where(compared, logits, -jnp.inf), axis=1) - positives
    return jnp.sum(jnp.where(valid, losses, 0)) / jnp.maximum(jnp.sum(valid), 1)
