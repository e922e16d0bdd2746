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

Where x' copies a labelled sample, R[x', x'] is what cancellation leaves, of either sign. It counts
as zero or more, so that never less than the ridge is divided by; and a ridge under the rounding of
the kernel, 16 epsilons of its mean diagonal (in float32 2e-6 of it), counts as that much, because
beneath it the steps are noise that grows with every commit.

Where arguments are traced, as under `jax.jit`, their values are not looked at by any check.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from jaxal.checks import check_finite, check_indices, check_positive, is_traced

__all__ = [
    "Posterior",
    "commit",
    "fit_predict",
    "fold",
    "look_ahead",
    "pivot",
    "posterior",
    "residual_column",
]

_DEFAULT_RIDGE = 1e-3  # of the mean diagonal
_CHUNK_ROWS = 1024  # of the residual at once
_ROUNDING = 16  # epsilons of the mean diagonal: the least ridge


class Posterior(NamedTuple):
    """Kernel regression on a labelled set, seen from the pool and the candidates."""

    mean: jax.Array  # [n, k] float: prediction F over the pool
    residual: jax.Array  # [n, m] float: kernel of pool and candidates given L, before commits
    factor: jax.Array  # [n, capacity] float: one column a commit, zeros beyond them
    num_commits: jax.Array  # () int32: columns of `factor` in use
    rows: jax.Array  # [m] int32: pool row of each candidate
    ridge: jax.Array  # () float: added to the kernel's diagonal, not under its rounding


def posterior(
    kernel_candidates: ArrayLike,
    rows: ArrayLike,
    *,
    kernel_labeled: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    initial: ArrayLike | float = 0.0,
    num_outputs: int | None = None,
    ridge: ArrayLike | None = None,
    capacity: int = 1,
) -> Posterior:
    """Condition kernel regression on a labelled set.

    Holds O(pool · (candidates + labelled + capacity)). The labelled block is factored in float64 on
    the host, because float32 loses the small residuals of near-duplicates.

    Args:
      kernel_candidates: ``[n, m]`` floating-point kernel of pool rows against candidates.
      rows: ``[m]`` distinct integers, the pool row of each candidate.
      kernel_labeled: ``[n, l]`` kernel of pool rows against labelled samples, if any.
      labeled: ``[l]`` distinct integers, the pool row of each labelled sample.
      targets: ``[l, k]`` targets of the labelled samples.
      initial: f0, the prediction that nothing labelled gives: ``[n, k]``, or broadcast to it.
      num_outputs: ``k`` where neither targets nor ``initial`` tell it.
      ridge: scalar > 0 added to the kernel's diagonal, in the kernel's units; None is 1e-3 of the
        mean diagonal of the labelled samples, or of the candidates where nothing is labelled.
      capacity: how many commits the state has room for.

    Returns:
      The state, in the dtype of ``kernel_candidates``.

    Raises:
      ValueError: shapes that do not fit, rows out of range or repeated, numbers that are not
        floating-point or not finite, a ridge that is not above 0, or a labelled block that is not
        positive definite.
    """
    check_positive(capacity, "capacity")
    kernel_candidates = _as_kernel(kernel_candidates, "kernel_candidates")
    n, m = kernel_candidates.shape
    rows = _as_indices(rows, (m,), n, "rows")
    if targets is not None:
        num_outputs = _width(targets)
    elif num_outputs is None:
        if np.ndim(initial) != 2:
            raise ValueError("num_outputs: expected, since neither targets nor initial tell it")
        num_outputs = np.shape(initial)[1]
    dtype = kernel_candidates.dtype
    mean = jnp.broadcast_to(jnp.asarray(initial, dtype), (n, num_outputs))
    check_finite(mean, "initial")
    residual = kernel_candidates
    if labeled is not None and np.size(labeled):
        if kernel_labeled is None or targets is None:
            raise ValueError("kernel_labeled and targets: expected with labeled, found none")
        count = np.size(labeled)
        kernel_labeled = _as_kernel(kernel_labeled, "kernel_labeled", (n, count)).astype(dtype)
        labeled = _as_indices(labeled, (count,), n, "labeled")
        _check_targets(targets, (count, num_outputs), "targets")
        ridge = _as_ridge(ridge, kernel_labeled, labeled)
        whiten, weights = _solve_labeled(kernel_labeled, labeled, targets, mean, ridge)
        mean, whitened = _condition(kernel_labeled, mean, whiten, weights)
        residual = _subtracted(kernel_candidates, whitened, rows)
    else:
        ridge = _as_ridge(ridge, kernel_candidates, rows)
    factor = jnp.zeros((n, capacity), dtype)
    return Posterior(mean, residual, factor, jnp.zeros((), jnp.int32), rows, ridge)


def _solve_labeled(
    kernel_labeled: jax.Array,
    labeled: jax.Array,
    targets: ArrayLike,
    mean: jax.Array,
    ridge: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the inverse Cholesky factor's transpose [l, l] and the dual weights [l, k]."""
    block = np.asarray(kernel_labeled[labeled], np.float64)
    block = (block + block.T) / 2 + float(ridge) * np.eye(len(block))
    try:
        lower = np.linalg.cholesky(block)
    except np.linalg.LinAlgError as error:
        raise _not_definite(ridge, np.trace(block) / len(block)) from error
    inverse = np.linalg.inv(lower)
    gap = np.asarray(targets, np.float64) - np.asarray(mean[labeled], np.float64)
    weights = inverse.T @ (inverse @ gap)
    return jnp.asarray(inverse.T, mean.dtype), jnp.asarray(weights, mean.dtype)


def _not_definite(ridge: jax.Array, mean_diagonal: np.floating | jax.Array) -> ValueError:
    return ValueError(
        "kernel_labeled: the labelled block is not positive definite; raise ridge, found "
        f"{float(ridge):g} at a mean diagonal of {float(mean_diagonal):g}"
    )


@jax.jit
@jax.default_matmul_precision("highest")
def _condition(
    kernel_labeled: jax.Array, mean: jax.Array, whiten: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return mean + kernel_labeled @ weights, kernel_labeled @ whiten


@jax.default_matmul_precision("highest")
def residual_column(state: Posterior, column: ArrayLike) -> jax.Array:
    """Return the residual kernel of the pool with one candidate, commits included, ``[n]``.

    Raises:
      ValueError: a column outside ``0..m-1``.
    """
    column = _as_indices(column, (), len(state.rows), "column")
    return state.residual[:, column] - state.factor @ state.factor[state.rows[column]]


def pivot(diagonal: jax.Array, ridge: jax.Array) -> jax.Array:
    """Return ``R[x', x'] + ridge``, of a residual diagonal that may be negative by rounding."""
    return jnp.maximum(diagonal, 0) + ridge


def look_ahead(state: Posterior, columns: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Predict the pool as it would be with one candidate more labelled, for several candidates.

    Holds O(len(columns) · pool · outputs); pass few columns at a time.

    Args:
      state: the posterior.
      columns: ``[c]`` integers in ``0..m-1``, which candidates.
      targets: ``[c, k]`` target each candidate would get.

    Returns:
      ``[c, n, k]`` predictions F'.

    Raises:
      ValueError: columns out of range, or targets that are not ``[c, k]`` finite numbers.
    """
    count = np.size(columns)
    columns = _as_indices(columns, (count,), len(state.rows), "columns", unique=False)
    _check_targets(targets, (count, state.mean.shape[1]), "targets")
    return _look_ahead(state, columns, jnp.asarray(targets, state.mean.dtype))


@jax.jit
def _look_ahead(state: Posterior, columns: jax.Array, targets: jax.Array) -> jax.Array:
    def one(column: jax.Array, target: jax.Array) -> jax.Array:
        raw = residual_column(state, column)
        row = state.rows[column]
        gain = raw / pivot(raw[row], state.ridge)
        return state.mean + gain[:, None] * (target - state.mean[row])

    return jax.vmap(one)(columns, targets)


def commit(state: Posterior, column: ArrayLike, target: ArrayLike) -> Posterior:
    """Add one candidate to the labelled set: O(pool · (outputs + capacity)).

    Args:
      state: the posterior, with room left in `factor` (`fold` makes room).
      column: integer in ``0..m-1``, which candidate.
      target: ``[k]`` its target.

    Returns:
      The posterior given it.

    Raises:
      ValueError: no room left (where that cannot be seen, under `jax.jit`, the commit reaches the
        mean only), a column out of range, or a target that is not ``[k]`` finite numbers.
    """
    full = state.factor.shape[1]
    if not is_traced(state.num_commits) and int(state.num_commits) >= full:
        raise ValueError(f"state: expected room for a commit, found all {full} in use; fold it")
    column = _as_indices(column, (), len(state.rows), "column")
    _check_targets(target, state.mean.shape[1:], "target")
    return _commit(state, column, jnp.asarray(target, state.mean.dtype))


@jax.jit
def _commit(state: Posterior, column: jax.Array, target: jax.Array) -> Posterior:
    raw = residual_column(state, column)
    row = state.rows[column]
    divisor = pivot(raw[row], state.ridge)
    return state._replace(
        mean=state.mean + (raw / divisor)[:, None] * (target - state.mean[row]),
        factor=state.factor.at[:, state.num_commits].set(raw / jnp.sqrt(divisor)),
        num_commits=state.num_commits + 1,
    )


def fold(state: Posterior) -> Posterior:
    """Multiply the commits into the residual, so that the state has room for `capacity` more.

    The residual given is donated: use the one returned. Holds nothing of its size beside it.
    """
    return state._replace(
        residual=_subtracted_in_place(state.residual, state.factor, state.rows),
        factor=jnp.zeros_like(state.factor),
        num_commits=jnp.zeros_like(state.num_commits),
    )


@jax.default_matmul_precision("highest")
def _subtract_products(residual: jax.Array, factor: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``residual - factor @ factor[rows].T`` without a product of its size."""
    n = len(residual)
    size = min(_CHUNK_ROWS, n)
    across = factor[rows].T

    def subtract(i: jax.Array, residual: jax.Array) -> jax.Array:
        # The last chunk reaches back over rows that are done, which it must not change.
        start = jnp.minimum(i * size, n - size)
        done = start + jnp.arange(size) < i * size
        taken = jax.lax.dynamic_slice_in_dim(factor, start, size)
        chunk = jax.lax.dynamic_slice_in_dim(residual, start, size)
        chunk = chunk - jnp.where(done[:, None], 0, taken) @ across
        return jax.lax.dynamic_update_slice_in_dim(residual, chunk, start, 0)

    return jax.lax.fori_loop(0, -(-n // size), subtract, residual)


_subtracted = jax.jit(_subtract_products)
_subtracted_in_place = jax.jit(_subtract_products, donate_argnums=0)


@jax.default_matmul_precision("highest")
def fit_predict(
    kernel_labeled: ArrayLike,
    labeled: ArrayLike,
    targets: ArrayLike,
    *,
    initial: ArrayLike | float = 0.0,
    ridge: ArrayLike | None = None,
) -> jax.Array:
    """Predict the pool from a labelled set by one dense solve.

    Args:
      kernel_labeled: ``[n, l]`` kernel of pool rows against labelled samples.
      labeled: ``[l]`` distinct integers, the pool row of each labelled sample.
      targets: ``[l, k]`` their targets.
      initial: f0, ``[n, k]`` or broadcast to it.
      ridge: scalar > 0 added to the kernel's diagonal; None is 1e-3 of its mean over the labelled.

    Returns:
      ``[n, k]`` F.

    Raises:
      ValueError: as `posterior`.
    """
    kernel = _as_kernel(kernel_labeled, "kernel_labeled")
    n, count = kernel.shape
    labeled = _as_indices(labeled, (count,), n, "labeled")
    _check_targets(targets, (count, _width(targets)), "targets")
    ridge = _as_ridge(ridge, kernel, labeled)
    targets = jnp.asarray(targets, kernel.dtype)
    start = jnp.broadcast_to(jnp.asarray(initial, kernel.dtype), (n, targets.shape[1]))
    check_finite(start, "initial")
    block = kernel[labeled]
    lower = jnp.linalg.cholesky(block + ridge * jnp.eye(count, dtype=kernel.dtype))
    if not is_traced(lower) and not jnp.isfinite(lower).all():
        raise _not_definite(ridge, jnp.trace(block) / count)
    return start + kernel @ cho_solve((lower, True), targets - start[labeled])


def _as_kernel(kernel: ArrayLike, name: str, shape: tuple[int, int] | None = None) -> jax.Array:
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 2 or (shape is not None and kernel.shape != shape):
        raise ValueError(f"{name}: expected shape {shape or '[n, m]'}, found {kernel.shape}")
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise ValueError(f"{name}: expected floating-point numbers, found dtype {kernel.dtype}")
    check_finite(kernel, name)
    return kernel


def _as_indices(
    indices: ArrayLike, shape: tuple[int, ...], size: int, name: str, *, unique: bool = True
) -> jax.Array:
    if np.shape(indices) != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {np.shape(indices)}")
    if not is_traced(indices):
        check_indices(np.ravel(np.asarray(indices)), size, name, unique=unique)
    return jnp.asarray(indices, jnp.int32)


def _width(targets: ArrayLike) -> int:
    if np.ndim(targets) != 2:
        raise ValueError(f"targets: expected a matrix [l, k], found shape {np.shape(targets)}")
    return np.shape(targets)[1]


def _check_targets(targets: ArrayLike, shape: tuple[int, ...], name: str) -> None:
    if np.shape(targets) != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {np.shape(targets)}")
    check_finite(targets, name)


def _as_ridge(ridge: ArrayLike | None, kernel: jax.Array, rows: jax.Array) -> jax.Array:
    if ridge is not None and not is_traced(ridge):
        found = np.asarray(ridge)
        if found.shape != () or not 0 < float(found) < np.inf:
            raise ValueError(f"ridge: expected a number above 0, found {ridge}")
    diagonal = kernel[rows, jnp.arange(rows.size)]
    mean = jnp.mean(diagonal) if rows.size else jnp.ones((), kernel.dtype)
    if ridge is None:
        if not is_traced(mean) and not mean > 0:
            raise ValueError(
                "ridge: expected, since the kernel is not positive definite: its mean diagonal is "
                f"{float(mean):g}"
            )
        ridge = _DEFAULT_RIDGE * mean
    least = _ROUNDING * jnp.finfo(kernel.dtype).eps * jnp.abs(mean)
    return jnp.maximum(jnp.asarray(ridge, kernel.dtype), least)
