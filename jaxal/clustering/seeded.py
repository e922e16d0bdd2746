"""Constrained-seed k-means: clusters that start from, and keep to, labelled samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_labels
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering.kmeans import check_limits, padded_capacity
from jaxal.clustering.lloyd import (
    FAR,
    KMeans,
    Rows,
    as_rows,
    in_units_of_features,
    lloyd,
    plus_plus,
)

__all__ = ["seeded_kmeans"]


def seeded_kmeans(
    key: jax.Array,
    x: ArrayLike,
    num_clusters: int,
    labeled: ArrayLike,
    labels: ArrayLike,
    num_classes: int | None = None,
    *,
    max_iterations: int = 300,
    tolerance: float = 0.0,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> KMeans:
    """Cluster by k-means with the labelled samples as seeds and constraints.

    A class that has labels starts one cluster at their mean; the other clusters start at unlabelled
    samples by k-means++, given those means (AS3L, arXiv 2203.04560, starts them at random). Each
    sample goes to its nearest centre, a labelled one always to the cluster of its class.
    Holds ``O(chunk_size · num_clusters + n · d)``. Compiles as seldom as `jaxal.clustering.kmeans`.

    With ``num_clusters >= num_classes`` the cluster of class ``i`` is cluster ``i``, and the
    clusters of classes without labels are free. With fewer clusters than classes, cluster ``i`` is
    that of the ``i``-th class that has labels, in rising order.

    Args:
      key: PRNG key; the same key gives the same clusters.
      x: ``[n, d]`` features of any real dtype, memory-mapped or not.
      num_clusters: k, at least the number of classes that have labels.
      labeled: ``[l]`` indices of the labelled samples; none gives plain k-means.
      labels: ``[l]`` their classes, 0..num_classes-1.
      num_classes: number of classes; default one more than the largest label.
      max_iterations: most sweeps.
      tolerance: see `jaxal.clustering.kmeans`; zero goes on until no label changes.
      chunk_size: rows whose distances are held at once; changes a label only by the rounding of
        a tie.

    Returns:
      Centres ``[k, d]``, labels ``[n]``, inertia and number of sweeps.

    Raises:
      ValueError: features that are no matrix of finite numbers, indices or labels out of range,
        fewer clusters than classes with labels, more clusters than seeds and unlabelled samples.
    """
    x = check_features(x, "x")
    check_limits(num_clusters, max_iterations, tolerance, chunk_size)
    n, _ = np.shape(x)
    labeled = check_indices(labeled, n, "labeled")
    if num_classes is None:
        num_classes = 1 + int(np.max(labels, initial=0))
    labels = check_labels(labels, num_classes, length=len(labeled))
    classes = np.unique(labels)
    if num_clusters < len(classes):
        raise ValueError(
            f"num_clusters: expected at least {len(classes)}, the classes with labels, "
            f"found {num_clusters}"
        )
    if num_clusters - len(classes) > n - len(labeled):
        raise ValueError(
            f"num_clusters: expected at most {len(classes) + n - len(labeled)}, the classes with "
            f"labels and the unlabelled samples, found {num_clusters}"
        )
    seeded = classes if num_clusters >= num_classes else np.arange(len(classes))
    forced = np.full(n, -1, np.int32)
    forced[labeled] = seeded[np.searchsorted(classes, labels)]
    rows = as_rows(x, jnp.ones(n), chunk_size=chunk_size)
    # Clusters in the order in which they start: the seeded ones, the others, those not in use.
    others = np.setdiff1d(np.arange(padded_capacity(num_clusters)), seeded)
    order = np.concatenate([seeded, others]).astype(np.int32)
    limits = (max_iterations, float(tolerance))
    found = _run(key, rows, jnp.asarray(forced), order, len(classes), num_clusters, *limits)
    found = in_units_of_features(rows, found)
    return found._replace(centers=found.centers[:num_clusters])


@jax.jit
def _run(
    key: jax.Array,
    rows: Rows,
    forced: jax.Array,
    order: jax.Array,
    num_seeded: int,
    num_clusters: int,
    max_iterations: int,
    tolerance: float,
) -> KMeans:
    capacity = order.shape[0]
    flat = rows.x.reshape(-1, rows.x.shape[-1])[: len(forced)]
    # Unlabelled samples are sent to one segment more, which is dropped.
    segment = jnp.where(forced >= 0, forced, capacity)
    sums = jax.ops.segment_sum(flat, segment, capacity + 1)[:capacity]
    counts = jax.ops.segment_sum(jnp.ones_like(segment), segment, capacity + 1)[:capacity]
    means = jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], FAR)
    unlabeled = (forced < 0).astype(jnp.float32)
    ordered = plus_plus(key, rows, means[order], num_seeded, unlabeled, num_clusters)
    return lloyd(
        rows,
        jnp.zeros_like(ordered).at[order].set(ordered),
        forced,
        max_iterations=max_iterations,
        tolerance=tolerance,
        num_clusters=num_clusters,
    )
