"""Stable groups: the samples that stay together whenever the pool is clustered anew."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_features, check_indices, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering import kmeans

__all__ = ["Consensus", "Groups", "Runs", "find_groups", "order_groups", "repeat_kmeans"]

Consensus = Literal["majority", "any", "first", "none"]


class Runs(NamedTuple):
    """Clusterings of one pool."""

    centers: jax.Array  # [runs, k, d] float32
    labels: jax.Array  # [runs, n] int32, 0..k-1


class Groups(NamedTuple):
    """The samples that share their cluster in every run, largest group first."""

    labels: np.ndarray  # [n] int64, 0..g-1, the group of each sample
    clusters: np.ndarray  # [g, runs] int64, the cluster of each group in each run
    sizes: np.ndarray  # [g] int64, falling; equal ones by their first sample


def repeat_kmeans(
    key: jax.Array,
    x: ArrayLike,
    num_clusters: int,
    *,
    num_runs: int,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Runs:
    """Cluster by k-means several times, each from a start of its own.

    Holds ``O(n · (d + num_runs))`` and what `jaxal.clustering.kmeans` does.

    Args:
      key: PRNG key; run r starts from ``fold_in(key, r)``.
      x: ``[n, d]`` features of any real dtype.
      num_clusters: k, at most ``n``.
      num_runs: how often.
      chunk_size: rows whose distances are held at once; changes no result but by rounding.

    Raises:
      ValueError: features that are no matrix of finite numbers, more clusters than samples, or a
        count below one.
    """
    check_positive(num_runs, "num_runs")
    x = jnp.asarray(check_features(x, "x"))
    found = [
        kmeans(jax.random.fold_in(key, run), x, num_clusters, chunk_size=chunk_size)
        for run in range(num_runs)
    ]
    return Runs(jnp.stack([run.centers for run in found]), jnp.stack([run.labels for run in found]))


def find_groups(labels: ArrayLike) -> Groups:
    """Group the samples whose clusters agree in all runs.

    No two samples are compared: a sample's clusters are a tuple, and equal tuples make a group.
    Costs ``O(runs · n log n)``.

    Args:
      labels: ``[runs, n]`` integers, the cluster of each sample in each run.

    Raises:
      ValueError: no matrix of integers of zero or more, or one without entries.
    """
    found = np.asarray(labels)
    if found.ndim != 2 or found.size == 0 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            "labels: expected a matrix [runs, n] of integers, found shape "
            f"{found.shape} of {found.dtype}"
        )
    if found.min() < 0:
        raise ValueError(f"labels: expected clusters of zero or more, found {found.min()}")
    found = found.astype(np.int64)
    groups = np.zeros(found.shape[1], np.int64)
    for run in found:
        # Numbered anew after each run, so that no product of many counts overflows.
        groups = np.unique(groups * (run.max() + 1) + run, return_inverse=True)[1].reshape(-1)
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Groups(rank[groups], found[:, first[order]].T, sizes[order])


def order_groups(
    groups: Groups, num_groups: int, *, consensus: Consensus, labeled: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Take groups, the largest first and at most one of a consensus cluster while that lasts.

    AS3L (arXiv 2203.04560) takes the largest groups; what keeps two of one cluster from both being
    taken is ours. Two groups are in one consensus cluster if they share their cluster

    * "majority": in more than half of the runs;
    * "any": in one run or more;
    * "first": in the first run;
    * "none": never.

    Where no group of a new consensus cluster is left, the group that shares the fewest runs with
    any taken one goes next, the largest among equals. The groups of labelled samples count as taken
    from the start, and come at the very end. Costs ``O(num_groups · g · runs)``.

    Args:
      groups: of `find_groups`.
      num_groups: how many to take, at most all.
      consensus: the rule above.
      labeled: ``[k]`` groups of labelled samples, one named once or more; None for none.

    Returns:
      Groups ``[num_groups]`` int64 in the order they are taken, and for each the most runs that it
      shares with an earlier or labelled one: ``[num_groups]`` int64.

    Raises:
      ValueError: an unknown rule, more groups than there are, or others than those.
    """
    check_choice(consensus, "consensus", Consensus)
    check_positive(num_groups, "num_groups")
    total, runs = groups.clusters.shape
    if num_groups > total:
        raise ValueError(f"num_groups: expected at most {total}, found {num_groups}")
    labeled = np.zeros(0, np.int64) if labeled is None else labeled
    known = check_indices(labeled, total, "labeled", unique=False)
    counted = groups.clusters[:, :1] if consensus == "first" else groups.clusters
    limit = {"majority": runs // 2, "any": 0, "first": 0, "none": runs}[consensus]
    shared = np.zeros(total, np.int64)
    apart = np.zeros(total, np.int64)  # of the runs that the rule looks at
    taken = np.zeros(total, bool)

    def share(group: int) -> None:
        np.maximum(shared, (groups.clusters == groups.clusters[group]).sum(1), out=shared)
        np.maximum(apart, (counted == counted[group]).sum(1), out=apart)

    old = np.unique(known)
    for group in old:
        share(int(group))
    order, found = np.zeros(num_groups, np.int64), np.zeros(num_groups, np.int64)
    for i in range(num_groups):
        level = np.where(apart > limit, apart, 0)
        level[old] = runs + 1
        level[taken] = runs + 2
        # The first of the least: the largest.
        order[i] = group = int(level.argmin())
        found[i] = shared[group]
        taken[group] = True
        share(group)
    return order, found
