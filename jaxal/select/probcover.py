"""ProbCover selection (arXiv 2205.11320): the samples whose balls cover most that is uncovered."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.checks import check_features, check_number, check_positive
from jaxal.clustering import kmeans
from jaxal.coverage import CHUNK_SIZE, cover_unlabeled
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool
from jaxal.unit_distances import as_tiles, fold_distances

__all__ = ["PROBCOVER", "ProbcoverInfo", "purity_radius", "select_probcover"]


class ProbcoverInfo(NamedTuple):
    """What the chosen samples covered."""

    covered: jax.Array  # [batch_size] int32, how many samples each pick was the first to cover
    delta: jax.Array  # float32, the radius of the balls
    evaluations: jax.Array  # int32, gains computed after the first pass


def select_probcover(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    delta: float | None = None,
    alpha: float = 0.95,
    chunk_size: int = CHUNK_SIZE,
) -> tuple[jax.Array, ProbcoverInfo]:
    """Choose, one at a time, the sample whose ball covers most samples that none covers yet.

    A ball holds the samples within ``delta`` of its centre, in L2-normalised features; those of the
    labelled samples cover from the start (Algorithm 1 of the paper). ``delta`` is the largest
    radius at which a share ``alpha`` of all balls is pure: holds samples of one cluster only, of
    the ``num_classes`` that k-means finds in the pool. See `purity_radius`; the published code
    looks for it on a grid.

    Ours: among samples that cover equally many, and once everything is covered, the lowest index
    is taken. Versions of the published code draw among those, or among the five that cover most.

    Args:
      key: the k-means++ start; unused with a given ``delta``.
      pool: features, ``num_classes``, labelled rows; there need be none.
      batch_size: how many.
      delta: the radius, 0 or more, in L2-normalised features; None for what ``alpha`` gives. A
        distance of ``delta`` itself is within it, where the published code leaves it out.
      alpha: the share of balls that shall be pure, above 0 and at most 1.
      chunk_size: side of the square of distances held at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, how many
      samples each covered, and the radius. Holds ``O(chunk_size² + n · d)``.

    Raises:
      ValueError: a malformed pool or option, or more samples than are left.
    """
    if delta is not None:
        check_number(delta, "delta", least=0)
    _check_purity(alpha, chunk_size)
    pool = check_pool(pool, batch_size, ("features",), "probcover")
    x = unit_rows(pool.features)
    if delta is None:
        clusters = kmeans(key, x, min(pool.num_classes, len(x))).labels
        squared = purity_radius(x, clusters, alpha=alpha, chunk_size=chunk_size)
    else:
        squared = float(delta) * float(delta)
    found = cover_unlabeled(
        x,
        np.asarray(pool.labeled),
        batch_size=batch_size,
        kernel="tophat",
        radius_squared=squared,
        chunk_size=chunk_size,
    )
    info = ProbcoverInfo(
        jnp.round(found.gains).astype(jnp.int32),
        jnp.asarray(np.sqrt(squared), jnp.float32),
        found.evaluations,
    )
    return found.picks, info


def purity_radius(
    x: jax.Array, clusters: jax.Array, *, alpha: float, chunk_size: int = CHUNK_SIZE
) -> float:
    """Find the largest radius at which a share of all balls holds samples of one cluster only.

    The ball of a sample is pure as long as its radius is below the distance to the nearest sample
    of another cluster, so the radius sought is just below a quantile of those distances.

    Args:
      x: ``[n, d]`` rows of length one or zero.
      clusters: ``[n]`` int, 0 or more.
      alpha: the share, above 0 and at most 1.
      chunk_size: side of the square of distances held at once; changes no result but by rounding.

    Returns:
      The squared radius: the last float32 below the quantile; 0 where no radius is so pure, because
      of near-duplicates in different clusters; beyond 4, all samples, where there is one cluster.
      Holds ``O(chunk_size² + n · d)``.

    Raises:
      ValueError: an option out of its range, rows that are no matrix of finite numbers, or clusters
        that are not one a row.
    """
    _check_purity(alpha, chunk_size)
    n = np.shape(check_features(x, "x"))[0]
    if np.shape(clusters) != (n,):
        raise ValueError(f"clusters: expected shape ({n},), found {np.shape(clusters)}")
    # Zeros pad the tiles, so that clusters are counted from 1.
    nearest = _nearest_other(as_tiles(x, chunk_size), as_tiles(clusters + 1, chunk_size))
    impure = int(np.floor((1 - alpha) * n + 1e-6))  # so many balls may be
    ranked = np.sort(np.asarray(nearest).reshape(-1)[:n])
    limit = np.float32(ranked[min(impure, n - 1)])
    return float(max(np.nextafter(limit, np.float32(0)), 0))


def _check_purity(alpha: float, chunk_size: int) -> None:
    check_number(alpha, "alpha", least=0, above=True)
    if alpha > 1:
        raise ValueError(f"alpha: expected at most 1, found {alpha!r}")
    check_positive(chunk_size, "chunk_size")


@jax.jit
def _nearest_other(x: jax.Array, clusters: jax.Array) -> jax.Array:
    """Square the distance of each row of ``[tiles, tile, d]`` to the nearest of another cluster."""

    def nearer(a: jax.Array, b: jax.Array, squared: jax.Array, nearest: jax.Array) -> jax.Array:
        rows, columns = clusters[a][:, None], clusters[b]
        others = jnp.where((rows != columns) & (rows > 0) & (columns > 0), squared, jnp.inf)
        nearest = nearest.at[a].min(others.min(1))
        return nearest.at[b].min(others.min(0))

    return fold_distances(nearer, x, jnp.full(clusters.shape, jnp.inf))


PROBCOVER = Strategy("probcover", select_probcover, cold_start=True)
