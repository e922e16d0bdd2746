"""Exact nearest neighbours of a pool."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_positive
from jaxal.chunking import map_rows
from jaxal.scaling import range_scale, unit_rows

__all__ = [
    "Neighbors",
    "nearest_neighbors",
    "neighbor_indices",
]

_CHUNK_SIZE = 1024
# Columns to a group of the two-stage top-k: 16 float32 fill one vector register.
_GROUP = 16


class Neighbors(NamedTuple):
    """The nearest samples of each row, nearest first."""

    indices: jax.Array  # [n, k] int32
    distances: jax.Array  # [n, k] float32, rising; cosine: 1 - similarity, 0..2


def nearest_neighbors(
    x: ArrayLike,
    num_neighbors: int,
    *,
    queries: ArrayLike | None = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
    chunk_size: int = _CHUNK_SIZE,
) -> Neighbors:
    """Find the nearest rows of ``x``, by comparing with all of them.

    Without ``queries`` the rows of ``x`` are the queries and a row is not its own neighbour, while
    its duplicates are. The candidates are found by matrix products in float32; the distances
    returned are those of the differences. Equal distances go by the lower index. A zero row has
    similarity 0 to all rows. Holds ``O(chunk_size · (n + num_neighbors · d) + n · d)``.

    Args:
      x: ``[n, d]`` features of any real dtype, memory-mapped or not.
      num_neighbors: k; fewer than ``n``, or at most ``n`` with ``queries``.
      queries: ``[q, d]`` rows whose neighbours are wanted; default the rows of ``x``.
      metric: what is near.
      chunk_size: queries compared at once; changes a result only by the rounding of a tie.

    Returns:
      Indices ``[q, k]`` into ``x`` and distances ``[q, k]``.

    Raises:
      ValueError: features that are no matrix of finite numbers, too many neighbours, an unknown
        metric, or queries of another width.
    """
    x = check_features(x, "x")
    n, dim = np.shape(x)
    check_positive(chunk_size, "chunk_size")
    check_positive(num_neighbors, "num_neighbors")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric: expected 'cosine' or 'euclidean', found {metric!r}")
    available = n - 1 if queries is None else n
    if num_neighbors > available:
        raise ValueError(
            f"num_neighbors: expected at most {available}, the other rows of x, "
            f"found {num_neighbors}"
        )
    if queries is not None:
        queries = check_features(queries, "queries")
        if np.shape(queries)[1] != dim:
            raise ValueError(f"queries: expected {dim} columns, found {np.shape(queries)[1]}")
    sets = [jnp.asarray(rows, jnp.float32) for rows in (x, queries) if rows is not None]
    scale = jnp.float32(1)
    if metric == "cosine":
        sets = [unit_rows(rows) for rows in sets]
    else:
        scale = range_scale(*sets)
        # Centring keeps the digits of |x|² − 2 x·q when all rows share an offset.
        offset = jnp.mean(sets[0] * scale, axis=0)
        sets = [rows * scale - offset for rows in sets]
    points, asked = sets[0], sets[-1]
    norms = (points**2).sum(1)
    # A query that is no row of x has no column to leave out.
    own = np.arange(n) if queries is None else np.full(len(asked), n)

    def search(asked: jax.Array, own: jax.Array) -> Neighbors:
        return _search(points, norms, asked, own, k=num_neighbors, metric=metric)

    found = map_rows(search, asked, own, chunk_size=chunk_size)
    return found._replace(distances=found.distances / scale)


def neighbor_indices(x: ArrayLike, num_neighbors: int = 20) -> np.ndarray:
    """List each row's nearest other rows by cosine, as many as there are up to a number.

    Args:
      x: ``[n, d]`` features of any real dtype.
      num_neighbors: k, one or more.

    Returns:
      ``[n, min(k, n - 1)]`` int32 on the host.

    Raises:
      ValueError: features that are no matrix of finite numbers, or fewer than one neighbour.
    """
    check_positive(num_neighbors, "num_neighbors")
    found = min(num_neighbors, np.shape(check_features(x, "x"))[0] - 1)
    if found == 0:
        return np.zeros((1, 0), np.int32)
    return np.asarray(nearest_neighbors(x, found).indices)


@functools.partial(jax.jit, static_argnames=("k", "metric"))
def _search(
    points: jax.Array,
    norms: jax.Array,
    queries: jax.Array,
    own: jax.Array,
    *,
    k: int,
    metric: str,
) -> Neighbors:
    scores = jnp.matmul(queries, points.T, precision=lax.Precision.HIGHEST)
    if metric == "euclidean":
        scores = 2 * scores - norms
    rows = jnp.arange(len(queries))
    scores = scores.at[rows, own].set(-jnp.inf, mode="drop")
    indices = _largest(scores, k)
    squared = ((points[indices] - queries[:, None]) ** 2).sum(-1)
    if metric == "euclidean":
        distances = jnp.sqrt(squared)
    else:
        either_zero = (norms[indices] == 0) | ((queries**2).sum(1)[:, None] == 0)
        distances = jnp.where(either_zero, 1, squared / 2)
    # Products and differences round in different ways: order by what is returned.
    distances, indices = lax.sort((distances, indices), num_keys=2)
    return Neighbors(indices, distances)


def _largest(scores: jax.Array, k: int) -> jax.Array:
    """Columns ``[rows, k]`` of the largest of ``scores [rows, n]``, ties by the lower index.

    The k largest lie in the k groups of neighbouring columns with the largest maxima, ties
    included: an element outside is beaten by one of each. So only ``n / _GROUP`` maxima and the
    members of k groups are ranked.
    """
    rows, n = scores.shape
    if n // _GROUP <= k:
        return lax.top_k(scores, k)[1]
    padded = jnp.pad(scores, ((0, 0), (0, -n % _GROUP)), constant_values=-jnp.inf)
    grouped = padded.reshape(rows, -1, _GROUP)
    groups = jnp.sort(lax.top_k(grouped.max(2), k)[1], axis=1)
    members = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(rows, -1)
    _, position = lax.top_k(members, k)
    return jnp.take_along_axis(groups, position // _GROUP, axis=1) * _GROUP + position % _GROUP
