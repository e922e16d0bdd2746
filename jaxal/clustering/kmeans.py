"""k-means with a greedy k-means++ start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_positive, check_weights
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering.lloyd import (
    FAR,
    KMeans,
    Rows,
    as_rows,
    in_units_of_features,
    lloyd,
    plus_plus,
)

__all__ = ["kmeans"]


def kmeans(
    key: jax.Array,
    x: ArrayLike,
    num_clusters: int,
    *,
    weights: ArrayLike | None = None,
    num_restarts: int = 1,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> KMeans:
    """Cluster by k-means.

    Lloyd's iteration from a greedy k-means++ start (Arthur and Vassilvitskii, 2007), in float32.
    Holds ``O(chunk_size · num_clusters + n · d)``. Compiles once for each shape of ``x`` and number
    of clusters rounded up to a multiple of 16, or of an eighth to a quarter of itself beyond 128,
    so that rounds with ever more clusters share a program.

    With fewer distinct samples than clusters some clusters stay empty, with a centre on a sample
    of another cluster; labels and centres are valid all the same. A cluster can also end empty
    where ``max_iterations`` cuts the search short.

    Args:
      key: PRNG key; the same key gives the same clusters.
      x: ``[n, d]`` features of any real dtype, memory-mapped or not.
      num_clusters: k, at most ``n``.
      weights: ``[n]`` what each sample counts for, zero or more; default one each.
      num_restarts: starts, of which the one with the smallest inertia is kept.
      max_iterations: most sweeps of one start.
      tolerance: stop when the squared shift of the centres is at most this times the features'
        mean variance, as in scikit-learn; it also stops when no label changes.
      chunk_size: rows whose distances are held at once; changes a label only by the rounding of
        a tie.

    Returns:
      Centres ``[k, d]``, labels ``[n]``, inertia and number of sweeps. Features of any finite size
      will do; the inertia of huge or tiny ones, a square, can be beyond float32: infinity, or zero.

    Raises:
      ValueError: no matrix of finite numbers, more clusters than samples (of non-zero weight),
        or a count below one, a negative tolerance, or weights that are not ``[n]``, finite and
        non-negative.
    """
    x = check_features(x, "x")
    check_positive(num_restarts, "num_restarts")
    check_limits(num_clusters, max_iterations, tolerance, chunk_size)
    mass = check_weights(weights, np.shape(x)[0])
    available = int((mass > 0).sum())
    if num_clusters > available:
        raise ValueError(
            f"num_clusters: expected at most {available}, the samples to cluster, "
            f"found {num_clusters}"
        )
    rows = as_rows(x, jnp.asarray(mass), chunk_size=chunk_size)
    fit = functools.partial(run_kmeans, capacity=padded_capacity(num_clusters))
    best = fit(key, rows, max_iterations, tolerance, num_clusters)
    for restart in range(1, num_restarts):
        restart_key = jax.random.fold_in(key, restart)
        found = fit(restart_key, rows, max_iterations, tolerance, num_clusters)
        better = found.inertia < best.inertia
        best = jax.tree.map(functools.partial(jnp.where, better), found, best)
    best = in_units_of_features(rows, best)
    return best._replace(centers=best.centers[:num_clusters])


def padded_capacity(num_clusters: int) -> int:
    """Round a number of clusters up to one of the few that are compiled for."""
    step = max(16, 1 << max(0, num_clusters.bit_length() - 4))
    return -(-num_clusters // step) * step


def check_limits(num_clusters: int, max_iterations: int, tolerance: float, chunk_size: int) -> None:
    """Check what every k-means takes.

    Raises:
      ValueError: a count below one, or a tolerance that is negative or not finite.
    """
    check_positive(num_clusters, "num_clusters")
    check_positive(max_iterations, "max_iterations")
    check_positive(chunk_size, "chunk_size")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance: expected zero or more, found {tolerance}")


@functools.partial(jax.jit, static_argnames="capacity")
def run_kmeans(
    key: jax.Array,
    rows: Rows,
    max_iterations: int,
    tolerance: float,
    num_clusters: int,
    *,
    capacity: int,
) -> KMeans:
    """Cluster prepared rows from one k-means++ start, in their units.

    The ``[capacity, d]`` centres beyond ``num_clusters`` are `FAR`.
    """
    start = jnp.full((capacity, rows.x.shape[-1]), FAR, rows.x.dtype)
    start = plus_plus(key, rows, start, 0, rows.weights, num_clusters)
    return lloyd(
        rows,
        start,
        max_iterations=max_iterations,
        tolerance=tolerance,
        num_clusters=num_clusters,
    )
