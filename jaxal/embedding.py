"""What the pool is clustered by: a diffusion map of its neighbourhood graph.

The papers cluster L2-normalised features. Three steps make the clusters purer (ours):

1. half whitening: the unit rows, centred, on their principal axes, each divided by the square root
   of its standard deviation, so that few directions of large variance do not decide alone;
2. the graph of each sample's nearest neighbours there;
3. the diffusion map of that graph (Coifman and Lafon, 2006, "Diffusion maps"): samples are near
   where random walks from them meet, so that a cluster follows a group of any shape.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from jax import lax
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_positive
from jaxal.neighbors import neighbor_indices
from jaxal.scaling import unit_rows

__all__ = ["cluster_embedding", "diffusion_map", "half_whiten"]

_DENSE = 256  # samples whose graph is decomposed as a whole


def cluster_embedding(
    x: ArrayLike,
    *,
    num_axes: int = 128,
    num_neighbors: int = 15,
    num_components: int = 100,
    time: float = 5.0,
) -> np.ndarray:
    """Embed a pool for clustering.

    Holds O(n · (num_axes + num_components)) and what `jaxal.neighbors` holds.

    Args:
      x: ``[n, d]`` features of any real dtype.
      num_axes: principal axes kept.
      num_neighbors: neighbours of each sample in the graph, as many as there are up to this.
      num_components: coordinates.
      time: steps of the random walk.

    Returns:
      ``[n, min(num_components, n)]`` float32, rows of length 1 (or 0).

    Raises:
      ValueError: features that are no matrix of finite numbers, counts under 1, a time under 0.
    """
    neighbors = neighbor_indices(half_whiten(x, num_axes), num_neighbors)
    return diffusion_map(neighbors, num_components, time=time)


def half_whiten(x: ArrayLike, num_axes: int) -> jax.Array:
    """Divide each principal axis of the unit rows by the square root of its standard deviation.

    Args:
      x: ``[n, d]`` features of any real dtype.
      num_axes: axes kept, those of the largest variance.

    Returns:
      ``[n, min(num_axes, d)]`` float32 rows of length 1; zeros where all rows of ``x`` are equal.

    Raises:
      ValueError: features that are no matrix of finite numbers, or ``num_axes`` under 1.
    """
    check_positive(num_axes, "num_axes")
    x = check_features(x, "x")
    return _half_whiten(unit_rows(x), num_axes=min(num_axes, np.shape(x)[1]))


def diffusion_map(neighbors: ArrayLike, num_components: int, *, time: float) -> np.ndarray:
    """Embed the samples of a neighbourhood graph.

    The coordinates are the leading eigenvectors of the graph's random walk, each times its
    eigenvalue to the power ``time``, without the constant part.

    Args:
      neighbors: ``[n, k]`` integers, each sample's nearest others; an edge counts one where each
        names the other, else half.
      num_components: eigenvectors.
      time: steps of the walk.

    Returns:
      ``[n, min(num_components, n)]`` float32, rows of length 1; a sample without edges is 0.

    Raises:
      ValueError: neighbours that are no matrix of the samples' indices, no components, or a time
        under 0.
    """
    neighbors = np.asarray(neighbors)
    if neighbors.ndim != 2:
        raise ValueError(f"neighbors: expected a matrix [n, k], found shape {neighbors.shape}")
    n, k = neighbors.shape
    check_indices(neighbors.ravel(), n, "neighbors", unique=False)
    check_positive(num_components, "num_components")
    if not 0 <= time < np.inf:
        raise ValueError(f"time: expected a number of 0 or more, found {time}")
    starts = np.arange(0, n * k + 1, max(k, 1))[: n + 1] if k else np.zeros(n + 1, int)
    named = scipy.sparse.csr_matrix((np.ones(n * k), neighbors.ravel(), starts), (n, n))
    adjacency = (named + named.T) / 2
    degrees = np.asarray(adjacency.sum(axis=1)).ravel()
    roots = np.sqrt(np.maximum(degrees, 1e-12))
    normalised = scipy.sparse.diags(1 / roots) @ adjacency @ scipy.sparse.diags(1 / roots)
    values, vectors = _leading(normalised.tocsr(), min(num_components, n))
    coordinates = vectors / roots[:, None] * np.maximum(values, 0) ** time
    # The constant vector goes, also where others share its eigenvalue.
    coordinates -= degrees @ coordinates / max(degrees.sum(), 1e-12)
    coordinates[degrees == 0] = 0
    return np.asarray(unit_rows(coordinates))


@functools.partial(jax.jit, static_argnames="num_axes")
def _half_whiten(x: jax.Array, *, num_axes: int) -> jax.Array:
    x = x - x.mean(0)
    covariance = jnp.matmul(x.T, x, precision=lax.Precision.HIGHEST) / len(x)
    variances, axes = jnp.linalg.eigh(covariance)
    variances, axes = variances[::-1][:num_axes], axes[:, ::-1][:, :num_axes]
    real = variances > 1e-6 * jnp.maximum(variances[0], 1e-6)  # the others hold rounding only
    factors = jnp.where(real, jnp.where(real, variances, 1) ** -0.25, 0)
    return unit_rows(jnp.matmul(x, axes * factors, precision=lax.Precision.HIGHEST))


def _leading(matrix: scipy.sparse.csr_matrix, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the eigenvectors of the ``count`` largest eigenvalues of a symmetric matrix."""
    n = matrix.shape[0]
    if n <= max(_DENSE, 2 * count):
        return scipy.linalg.eigh(matrix.toarray(), subset_by_index=(n - count, n - 1))
    start = np.random.default_rng(0).standard_normal(n)
    return scipy.sparse.linalg.eigsh(matrix, count, which="LA", v0=start)
