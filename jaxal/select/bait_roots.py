"""Square roots of what BAIT knows of a sample's class."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ROOTS"]


@jax.jit
def _multiclass_roots(probs: jax.Array) -> jax.Array:
    """Find L ``[n, q, q]`` with L Lᵀ = diag p - p pᵀ, in a basis of what is orthogonal to ones.

    The Cholesky factor of a multinomial covariance has a closed form (Tanabe and Sagae, 1992).
    """
    p = jnp.asarray(probs, jnp.float32)
    p = p / jnp.sum(p, axis=1, keepdims=True)
    c = p.shape[1]
    if c == 1:
        return jnp.zeros((len(p), 1, 1), p.dtype)
    rest = jnp.cumsum(p[:, ::-1], axis=1)[:, -2::-1]  # of the classes after each but the last
    head, some = p[:, :-1], rest > 0
    diagonal = jnp.sqrt(jnp.where(some, head * rest / jnp.where(some, head + rest, 1), 0))
    below = -p[:, :, None] / jnp.where(some, rest, 1)[:, None, :]
    row, column = jnp.arange(c)[:, None], jnp.arange(c - 1)
    factor = jnp.where(row == column, 1, jnp.where(row > column, below, 0)) * diagonal[:, None]
    basis, _ = np.linalg.qr(np.eye(c)[:, 1:] - 1 / c)
    return jnp.matmul(jnp.asarray(basis.T, p.dtype), factor, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _binary_roots(probs: jax.Array) -> jax.Array:
    """Find the root ``[n, 1, 1]`` of p (1 - p), p of the likeliest class."""
    p = jnp.asarray(probs, jnp.float32)
    p = p / jnp.sum(p, axis=1, keepdims=True)
    top = jnp.arange(p.shape[1]) == jnp.argmax(p, axis=1, keepdims=True)
    # The others' sum keeps its digits where 1 - p would lose them.
    others = jnp.sum(jnp.where(top, 0, p), axis=1)
    return jnp.sqrt(jnp.max(p, axis=1) * others)[:, None, None]


ROOTS = {"multiclass": _multiclass_roots, "binary": _binary_roots}
