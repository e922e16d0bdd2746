"""TypiClust selection (arXiv 2202.02794): the most typical sample of each uncovered cluster."""

import heapq
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.checks import check_choice, check_positive
from jaxal.chunking import next_power
from jaxal.clustering import kmeans
from jaxal.neighbors import nearest_neighbors
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool

__all__ = ["TYPICLUST", "TypiclustInfo", "select_typiclust"]

Variant = Literal["paper", "code"]

# Keeps the typicality of a sample among its duplicates finite, as in the published code.
_DISTANCE_FLOOR = 1e-5


class TypiclustInfo(NamedTuple):
    """Where the chosen samples came from."""

    clusters: jax.Array  # [batch_size] int32, each pick's cluster
    typicality: jax.Array  # [batch_size] float32, 1 / mean distance to its neighbours


def select_typiclust(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    max_clusters: int = 500,
    min_cluster_size: int = 6,
    num_neighbors: int = 20,
    variant: Variant = "paper",
    chunk_size: int = 1024,
) -> tuple[jax.Array, TypiclustInfo]:
    """Choose the most typical unlabelled samples of the clusters with the fewest labels.

    k-means makes ``min(l + batch_size, max_clusters)`` clusters of the L2-normalised features. Each
    pick goes to the cluster with the fewest labelled or picked samples, the largest first among
    equals, and takes its most typical free sample: that with the largest 1/mean distance to its
    ``min(num_neighbors, size // 2)`` nearest in the cluster.

    Half of the cluster is a safeguard of the published code. Ours: counts grow with each pick, and
    clusters under ``min_cluster_size`` serve, by the same rule, once the others are used up.

    ``variant="code"`` is what the published code does beside that: it goes round the clusters in
    the order that they have at the start; neighbours are sought among the samples of a cluster that
    are neither labelled nor picked yet; and distances are squared before they are averaged. (It
    also clusters by mini-batches where there are more than 50 clusters, which is not offered.)

    Args:
      key: the k-means++ start.
      pool: features, labelled rows.
      batch_size: how many.
      max_clusters: the most clusters.
      min_cluster_size: smaller clusters are left out while others last.
      num_neighbors: the most neighbours a typicality looks at.
      variant: whose rule.
      chunk_size: rows compared with their cluster at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, and their
      clusters and typicalities. Holds ``O(n · d + chunk_size · largest cluster)``.

    Raises:
      ValueError: a malformed pool or option, or more samples than are left.
    """
    check_positive(max_clusters, "max_clusters")
    check_positive(min_cluster_size, "min_cluster_size")
    check_positive(num_neighbors, "num_neighbors")
    check_positive(chunk_size, "chunk_size")
    check_choice(variant, "variant", Variant)
    pool = check_pool(pool, batch_size, ("features",), "typiclust")
    labeled = np.asarray(pool.labeled)
    x = unit_rows(pool.features)
    num_clusters = min(len(labeled) + batch_size, max_clusters)
    assigned = np.asarray(kmeans(key, x, num_clusters).labels)
    members = _members(assigned, num_clusters)
    counts = np.bincount(assigned[labeled], minlength=num_clusters)
    taken = np.zeros(len(assigned), bool)
    taken[labeled] = True

    choose = _least_covered if variant == "paper" else _in_turn
    found = choose(
        x, members, counts, taken, batch_size, min_cluster_size, (num_neighbors, chunk_size)
    )
    picks, clusters, scores = zip(*found, strict=True)
    info = TypiclustInfo(jnp.asarray(clusters, jnp.int32), jnp.asarray(scores, jnp.float32))
    return jnp.asarray(picks, jnp.int32), info


def _least_covered(
    x: jax.Array,
    members: list[np.ndarray],
    counts: np.ndarray,
    taken: np.ndarray,
    batch_size: int,
    min_cluster_size: int,
    limits: tuple[int, int],
) -> Iterator[tuple[int, int, float]]:
    """Yield row, cluster and typicality of each pick: from the cluster with the fewest labels."""
    # A cluster waits in the heap under (too small, labels in it, -size, index).
    heap = [
        (len(rows) < min_cluster_size, int(counts[c]), -len(rows), c)
        for c, rows in enumerate(members)
        if counts[c] < len(rows)
    ]
    heapq.heapify(heap)
    queues: dict[int, list[tuple[int, float]]] = {}
    for _ in range(batch_size):
        small, count, size, c = heapq.heappop(heap)
        if c not in queues:
            typicality = _typicality(x, members[c], *limits)
            queues[c] = _worst_first(members[c], typicality, taken)
        row, score = queues[c].pop()
        yield row, c, score
        if queues[c]:
            heapq.heappush(heap, (small, count + 1, size, c))


def _in_turn(
    x: jax.Array,
    members: list[np.ndarray],
    counts: np.ndarray,
    taken: np.ndarray,
    batch_size: int,
    min_cluster_size: int,
    limits: tuple[int, int],
) -> Iterator[tuple[int, int, float]]:
    """Yield row, cluster and typicality of each pick: round after round, as the code does."""
    left = [rows[~taken[rows]] for rows in members]
    sizes = np.array([len(rows) for rows in members])
    order = np.lexsort((-sizes, counts))
    done = 0
    for small in (False, True):
        turn = [c for c in order.tolist() if (sizes[c] < min_cluster_size) == small]
        while turn := [c for c in turn if len(left[c])]:
            for c in turn:
                if done == batch_size:
                    return
                typicality = _typicality(x, left[c], *limits, squared=True)
                best = int(np.argmax(typicality))
                yield int(left[c][best]), c, float(typicality[best])
                left[c] = np.delete(left[c], best)
                done += 1


def _members(assigned: np.ndarray, num_clusters: int) -> list[np.ndarray]:
    """List each cluster's rows, ascending."""
    order = np.argsort(assigned, kind="stable")
    return np.split(order, np.cumsum(np.bincount(assigned, minlength=num_clusters))[:-1])


def _worst_first(
    rows: np.ndarray, typicality: np.ndarray, taken: np.ndarray
) -> list[tuple[int, float]]:
    """Sort the free rows so that the best comes last, the lowest index among equals."""
    free = ~taken[rows]
    rows, typicality = rows[free], typicality[free]
    order = np.lexsort((-rows, typicality))
    return list(zip(rows[order].tolist(), typicality[order].tolist(), strict=True))


def _typicality(
    x: jax.Array, rows: np.ndarray, num_neighbors: int, chunk_size: int, *, squared: bool = False
) -> np.ndarray:
    """1 / mean distance of each of ``rows`` to its nearest among them; 0 for one on its own."""
    k = min(num_neighbors, len(rows) // 2)
    if k == 0:
        return np.zeros(len(rows), np.float32)
    # Padding to a power of two, with one point farther away than any neighbour, lets clusters of
    # all sizes share a few compiled programs.
    size = next_power(max(len(rows), num_neighbors + 2))
    padded = np.full(size, -1)
    padded[: len(rows)] = rows
    points = _gathered(x, jnp.asarray(padded))
    found = nearest_neighbors(points, num_neighbors, metric="euclidean", chunk_size=chunk_size)
    distances = np.asarray(found.distances)[: len(rows), :k]
    if squared:
        distances = distances**2
    return 1 / (distances.mean(axis=1) + _DISTANCE_FLOOR)


@jax.jit
def _gathered(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Take ``rows`` of the normalised ``x``; -1 takes a point at distance 3 or more from all."""
    return jnp.where(rows[:, None] < 0, 4 / jnp.sqrt(x.shape[1]), x[rows])


TYPICLUST = Strategy("typiclust", select_typiclust, cold_start=True)
