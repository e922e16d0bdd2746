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
import scipy.sparse
from jax import lax
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_number, check_positive
from jaxal.neighbors import neighbor_indices
from jaxal.scaling import unit_rows

__all__ = ["cluster_embedding", "diffusion_map", "half_whiten"]

# Of the eigenvectors' iteration: columns beside those wanted, its steps, and products in each.
_EXTRA, _STEPS, _DEGREE = 20, 5, 8


def cluster_embedding(
    x: ArrayLike,
    *,
    num_axes: int = 128,
    num_neighbors: int = 15,
    num_components: int = 100,
    time: float = 5.0,
) -> np.ndarray:
    """Embed a pool for clustering.

    Holds O(n · (d + num_axes + num_components) + d²).

    Args:
      x: ``[n, d]`` features of any real dtype.
      num_axes: principal axes kept.
      num_neighbors: neighbours of each sample in the graph, as many as there are up to this.
      num_components: coordinates.
      time: steps of the random walk.

    Returns:
      ``[n, min(num_components, n)]`` float32, rows of length 1, or 0 where nothing tells a sample
      from the average.

    Raises:
      ValueError: features that are no matrix of finite numbers, counts under 1, a time under 0.
    """
    _check_map(num_components, time)
    neighbors = neighbor_indices(half_whiten(x, num_axes), num_neighbors)
    return diffusion_map(neighbors, num_components, time=time)


def half_whiten(x: ArrayLike, num_axes: int) -> jax.Array:
    """Divide each principal axis of the unit rows by the square root of its standard deviation.

    Holds O(n · d + d²).

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
    eigenvalue to the power ``time``, without the constant part. Holds O(n · (k + num_components)).

    Args:
      neighbors: ``[n, k]`` integers, each sample's nearest others; an edge counts one where each
        names the other, else half.
      num_components: eigenvectors.
      time: steps of the walk.

    Returns:
      ``[n, min(num_components, n)]`` float32, rows of length 1, or 0 where nothing tells a sample
      from the average.

    Raises:
      ValueError: neighbours that are no matrix of the samples' indices, no components, or a time
        under 0.
    """
    _check_map(num_components, time)
    neighbors = np.asarray(neighbors)
    if neighbors.ndim != 2 or not len(neighbors):
        raise ValueError(f"neighbors: expected a matrix [n, k], found shape {neighbors.shape}")
    n, k = neighbors.shape
    check_indices(neighbors.ravel(), n, "neighbors", unique=False)
    kept = min(num_components, n)
    if k == 0:
        return np.zeros((n, kept), np.float32)
    named = scipy.sparse.csr_matrix((np.ones(n * k), neighbors.ravel(), k * np.arange(n + 1)))
    named.resize(n, n)
    adjacency = (named + named.T) / 2
    degrees = np.asarray(adjacency.sum(axis=1)).ravel()
    inverse = scipy.sparse.diags(1 / np.sqrt(degrees))
    values, vectors = _leading((inverse @ adjacency @ inverse).tocsr(), kept)
    coordinates = inverse @ vectors
    coordinates -= degrees @ coordinates / degrees.sum()  # the constant part
    # What is left of the constant vector itself is rounding.
    values = np.where(degrees @ coordinates**2 > 1e-8, np.maximum(values, 0), 0)
    coordinates *= (values / max(values.max(), 1e-12)) ** time
    lengths = np.linalg.norm(coordinates, axis=1, keepdims=True)
    return (coordinates / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _check_map(num_components: int, time: float) -> None:
    check_positive(num_components, "num_components")
    check_number(time, "time", least=0)


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
    """Find the eigenvectors of the ``count`` largest eigenvalues of a random walk, in rising order.

    Subspace iteration with Chebyshev polynomials (Zhou, Saad, Tiago and Chelikowsky, 2006, "Self-
    consistent-field calculations using Chebyshev-filtered subspace iteration"). A block tells equal
    eigenvalues apart, of which a graph of separate groups has many, and repeats itself; one vector
    at a time, as ARPACK goes, does neither. Those near the last may be mixed with the next ones.
    """
    n = matrix.shape[0]
    block = np.random.default_rng(0).standard_normal((n, min(n, count + _EXTRA)))
    cut = 0.0
    for _ in range(_STEPS):
        block = np.linalg.qr(_amplify(matrix, block, cut))[0]
        values, inside = np.linalg.eigh(block.T @ (matrix @ block))
        block = block @ inside
        cut = float(np.clip(values[0], -0.9, 0.98))
    return values[-count:], block[:, -count:]


def _amplify(matrix: scipy.sparse.csr_matrix, block: np.ndarray, cut: float) -> np.ndarray:
    """Amplify the eigenvectors of eigenvalues over ``cut`` against those of -1 to ``cut``."""
    middle, half = (cut - 1) / 2, (cut + 1) / 2
    before, block = block, (matrix @ block - middle * block) / half
    for _ in range(_DEGREE - 1):
        before, block = block, 2 * (matrix @ block - middle * block) / half - before
    return block
