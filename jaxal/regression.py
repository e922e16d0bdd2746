"""Kernel regression with a posterior that looks ahead in closed form.

For a labelled set L, candidates C and a pool P, kernel regression with ridge r predicts

    F = f0 + K_PL (K_LL + r I)^-1 (Y_L - f0_L)
    R = K_PC - K_PL (K_LL + r I)^-1 K_LC                 (the residual, or posterior, kernel)

and adding one more labelled sample x' changes the prediction exactly to

    F' = F + R[:, x'] / (R[x', x'] + r) (y' - F[x'])

so that nothing is ever refitted (NTKCPL, arXiv 2306.04099; the identities are those of the block
inverse). `posterior` makes the state for a labelled set, possibly empty; `look_ahead` gives F' for
candidates; `commit` makes one of them part of the labelled set.

Commits are not written into R: that would read and write the whole matrix for every pick. They are
kept as the columns of a factor V, R = `residual` - V V_C^T, a Cholesky factorisation that grows by
a column a pick, and `fold` multiplies them out where a state has to outlive its capacity.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from jaxal.checks import check_positive

__all__ = [
    "Posterior",
    "commit",
    "fit_predict",
    "fold",
    "look_ahead",
    "posterior",
    "residual_column",
]


class Posterior(NamedTuple):
    """Kernel regression on a labelled set, seen from the pool and the candidates."""

    mean: jax.Array  # [n, k] float: prediction F over the pool
    residual: jax.Array  # [n, m] float: kernel of pool and candidates given L, before commits
    factor: jax.Array  # [n, capacity] float: one column a commit, zeros beyond them
    num_commits: jax.Array  # () int32: columns of `factor` in use
    rows: jax.Array  # [m] int32: pool row of each candidate
    ridge: jax.Array  # () float: added to the kernel's diagonal


def posterior(
    kernel_candidates: ArrayLike,
    rows: ArrayLike,
    *,
    kernel_labeled: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    initial: ArrayLike | float = 0.0,
    num_outputs: int | None = None,
    ridge: ArrayLike = 1e-3,
    capacity: int = 1,
) -> Posterior:
    """Condition kernel regression on a labelled set.

    Holds O(pool · (candidates + labelled + capacity)). The labelled block is factored in float64 on
    the host, because float32 loses the small residuals of near-duplicates.

    Args:
      kernel_candidates: ``[n, m]`` kernel of pool rows against candidates.
      rows: ``[m]`` integers, the pool row of each candidate.
      kernel_labeled: ``[n, l]`` kernel of pool rows against labelled samples, if any.
      labeled: ``[l]`` integers, the pool row of each labelled sample.
      targets: ``[l, k]`` targets of the labelled samples.
      initial: f0, the prediction that nothing labelled gives: ``[n, k]``, or broadcast to it.
      num_outputs: ``k`` where neither targets nor ``initial`` tell it.
      ridge: scalar > 0 added to the kernel's diagonal, in the kernel's units.
      capacity: how many commits the state has room for.

    Returns:
      The state, in the dtype of ``kernel_candidates``.

    Raises:
      ValueError: shapes that do not fit, or a kernel block that is not positive definite.
    """
    kernel_candidates = jnp.asarray(kernel_candidates)
    rows = jnp.asarray(rows, jnp.int32)
    check_positive(capacity, "capacity")
    n, m = kernel_candidates.shape
    if rows.shape != (m,):
        raise ValueError(f"rows: expected shape ({m},), one row a candidate, found {rows.shape}")
    if targets is not None:
        num_outputs = np.shape(targets)[1]
    elif num_outputs is None:
        if np.ndim(initial) != 2:
            raise ValueError("num_outputs: expected, since neither targets nor initial tell it")
        num_outputs = np.shape(initial)[1]
    dtype = kernel_candidates.dtype
    mean = jnp.broadcast_to(jnp.asarray(initial, dtype), (n, num_outputs))
    ridge = jnp.asarray(ridge, dtype)
    residual = kernel_candidates
    if labeled is not None and np.size(labeled):
        if kernel_labeled is None or targets is None:
            raise ValueError("kernel_labeled and targets: expected with labeled, found none")
        labeled = np.asarray(labeled)
        kernel_labeled = jnp.asarray(kernel_labeled, dtype)
        if kernel_labeled.shape != (n, labeled.size):
            raise ValueError(
                f"kernel_labeled: expected shape ({n}, {labeled.size}), "
                f"found {kernel_labeled.shape}"
            )
        if np.shape(targets)[0] != labeled.size:
            raise ValueError(
                f"targets: expected {labeled.size} rows, one a labelled sample, "
                f"found {np.shape(targets)[0]}"
            )
        whiten, weights = _solve_labeled(kernel_labeled, labeled, targets, mean, ridge)
        mean, residual = _condition(kernel_candidates, kernel_labeled, rows, mean, whiten, weights)
    factor = jnp.zeros((n, capacity), dtype)
    return Posterior(mean, residual, factor, jnp.zeros((), jnp.int32), rows, ridge)


def _solve_labeled(
    kernel_labeled: jax.Array,
    labeled: np.ndarray,
    targets: ArrayLike,
    mean: jax.Array,
    ridge: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the inverse Cholesky factor's transpose [l, l] and the dual weights [l, k]."""
    block = np.asarray(kernel_labeled[labeled], np.float64)
    block = (block + block.T) / 2 + float(ridge) * np.eye(labeled.size)
    try:
        lower = np.linalg.cholesky(block)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "kernel_labeled: the labelled block is not positive definite; raise ridge, found "
            f"{float(ridge):g} at a mean diagonal of {np.trace(block) / labeled.size:g}"
        ) from error
    inverse = np.linalg.inv(lower)
    gap = np.asarray(targets, np.float64) - np.asarray(mean[labeled], np.float64)
    weights = inverse.T @ (inverse @ gap)
    return jnp.asarray(inverse.T, mean.dtype), jnp.asarray(weights, mean.dtype)


@jax.jit
def _condition(
    kernel_candidates: jax.Array,
    kernel_labeled: jax.Array,
    rows: jax.Array,
    mean: jax.Array,
    whiten: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    whitened = kernel_labeled @ whiten
    return mean + kernel_labeled @ weights, kernel_candidates - whitened @ whitened[rows].T


def residual_column(state: Posterior, column: jax.Array) -> jax.Array:
    """Return the residual kernel of the pool with one candidate, commits included, ``[n]``."""
    return state.residual[:, column] - state.factor @ state.factor[state.rows[column]]


@jax.jit
def look_ahead(state: Posterior, columns: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Predict the pool as it would be with one candidate more labelled, for several candidates.

    Holds O(len(columns) · pool · outputs); pass few columns at a time.

    Args:
      state: the posterior.
      columns: ``[c]`` integers in ``0..m-1``, which candidates.
      targets: ``[c, k]`` target each candidate would get.

    Returns:
      ``[c, n, k]`` predictions F'.
    """

    def one(column: jax.Array, target: jax.Array) -> jax.Array:
        raw = residual_column(state, column)
        row = state.rows[column]
        gain = raw / (raw[row] + state.ridge)
        return state.mean + gain[:, None] * (target - state.mean[row])

    return jax.vmap(one)(jnp.asarray(columns), jnp.asarray(targets, state.mean.dtype))


def commit(state: Posterior, column: ArrayLike, target: ArrayLike) -> Posterior:
    """Add one candidate to the labelled set: O(pool · (outputs + capacity)).

    Args:
      state: the posterior, with room left in `factor` (`fold` makes room).
      column: integer in ``0..m-1``, which candidate.
      target: ``[k]`` its target.

    Returns:
      The posterior given it.

    Raises:
      ValueError: no room left (under `jax.jit`, where that cannot be seen, the commit reaches the
        mean only).
    """
    full = state.factor.shape[1]
    if not isinstance(state.num_commits, jax.core.Tracer) and int(state.num_commits) >= full:
        raise ValueError(f"state: expected room for a commit, found all {full} in use; fold it")
    return _commit(state, jnp.asarray(column), jnp.asarray(target, state.mean.dtype))


@jax.jit
def _commit(state: Posterior, column: jax.Array, target: jax.Array) -> Posterior:
    raw = residual_column(state, column)
    row = state.rows[column]
    pivot = raw[row] + state.ridge
    return state._replace(
        mean=state.mean + (raw / pivot)[:, None] * (target - state.mean[row]),
        factor=state.factor.at[:, state.num_commits].set(raw / jnp.sqrt(pivot)),
        num_commits=state.num_commits + 1,
    )


@partial(jax.jit, donate_argnums=0)
def fold(state: Posterior) -> Posterior:
    """Multiply the commits into the residual, so that the state has room for `capacity` more.

    The state given is donated: use the one returned.
    """
    return state._replace(
        residual=state.residual - state.factor @ state.factor[state.rows].T,
        factor=jnp.zeros_like(state.factor),
        num_commits=jnp.zeros_like(state.num_commits),
    )


def fit_predict(
    kernel_labeled: ArrayLike,
    labeled: ArrayLike,
    targets: ArrayLike,
    *,
    initial: ArrayLike | float = 0.0,
    ridge: ArrayLike = 1e-3,
) -> jax.Array:
    """Predict the pool from a labelled set by one dense solve.

    Args:
      kernel_labeled: ``[n, l]`` kernel of pool rows against labelled samples.
      labeled: ``[l]`` integers, the pool row of each labelled sample.
      targets: ``[l, k]`` their targets.
      initial: f0, ``[n, k]`` or broadcast to it.
      ridge: scalar > 0 added to the kernel's diagonal.

    Returns:
      ``[n, k]`` F.
    """
    kernel = jnp.asarray(kernel_labeled)
    targets = jnp.asarray(targets, kernel.dtype)
    labeled = jnp.asarray(labeled)
    start = jnp.broadcast_to(jnp.asarray(initial, kernel.dtype), (len(kernel), targets.shape[1]))
    block = kernel[labeled] + ridge * jnp.eye(len(labeled), dtype=kernel.dtype)
    lower = jnp.linalg.cholesky(block)
    return start + kernel @ cho_solve((lower, True), targets - start[labeled])
