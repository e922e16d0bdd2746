"""AS3L selection (arXiv 2203.04560): the medoids of the groups that k-means never parts."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering.groups import Consensus, Groups, find_groups, order_groups, repeat_kmeans
from jaxal.clustering.medoids import Metric, mean_distances
from jaxal.clustering.tuned_features import fine_tune_features
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool, free_mask

__all__ = ["AS3L", "As3lInfo", "Space", "select_as3l"]

Space = Literal["embedding", "fine", "features"]


class As3lInfo(NamedTuple):
    """Where the chosen samples came from."""

    groups: np.ndarray  # [batch_size] int64, each pick's group, 0 for the largest of all
    sizes: np.ndarray  # [batch_size] int64, samples in that group
    shared: np.ndarray  # [batch_size] int64, most runs it shares with an earlier or labelled group
    ranks: np.ndarray  # [batch_size] int64, 0 for its first pick: the medoid, unless labelled
    num_groups: int  # in the pool


def select_as3l(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    space: Space = "embedding",
    num_clusters: int | None = None,
    num_runs: int = 6,
    consensus: Consensus = "majority",
    medoid: Metric = "squared",
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, As3lInfo]:
    """Choose the medoids of the largest stable groups.

    k-means runs ``num_runs`` times; the samples whose clusters agree in all runs make a group; the
    largest groups are taken, see `jaxal.clustering.groups.order_groups`, and of each its medoid.
    The paper chooses all samples at once, before any label, by 6 runs on fine-tuned features, see
    `jaxal.clustering.tuned_features`. Ours: what is clustered, the number of clusters, which of the
    groups of one cluster go first, what distance a medoid has the least of, and

    * later rounds: groups with labelled samples count as taken;
    * fewer groups than ``batch_size``: once every group is taken, they give their next sample by
      the same distance, group after group, in turn.

    Args:
      key: the starts of k-means and the training of the features.
      pool: its embedding, or for the other spaces its features, and labelled rows; labels are not
        looked at.
      batch_size: how many.
      space: what is clustered: "embedding", the pool's, such as of `jaxal.cluster_embedding`, to be
        shared with `jaxal.as3l.prior_labels`; "fine", the paper's fine-tuned features; "features",
        brought to length 1.
      num_clusters: of each run; None for ``l + batch_size``. With one, as for a first batch of one,
        "fine" is "features", since a single centre says nothing.
      num_runs: C.
      consensus: which groups belong to one consensus cluster.
      medoid: the distance.
      chunk_size: rows whose distances are held at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, and their
      groups. Holds ``O(n · (d + num_runs))``, and for fine-tuned features ``O(d²)``.

    Raises:
      ValueError: a malformed pool or option, or more samples than are left.
    """
    needs = _needs(space) or {"features"}
    check_choice(medoid, "medoid", Metric)
    check_choice(consensus, "consensus", Consensus)
    check_positive(num_runs, "num_runs")
    check_positive(chunk_size, "chunk_size")
    pool = check_pool(pool, batch_size, needs, "as3l")
    labeled = np.asarray(pool.labeled)
    n = np.shape(pool.features)[0]
    if num_clusters is None:
        num_clusters = len(labeled) + batch_size
    if check_positive(num_clusters, "num_clusters") > n:
        raise ValueError(f"num_clusters: expected at most {n}, the samples, found {num_clusters}")
    tune_key, cluster_key = jax.random.split(key)
    x = _clustered(tune_key, pool, space, num_clusters, num_runs, chunk_size)
    found = repeat_kmeans(cluster_key, x, num_clusters, num_runs=num_runs, chunk_size=chunk_size)
    groups = find_groups(found.labels)
    picks, info = _picked(np.asarray(x), groups, free_mask(pool), batch_size, consensus, medoid)
    return jnp.asarray(picks, jnp.int32), info


def _clustered(
    key: jax.Array,
    pool: Pool,
    space: Space,
    num_clusters: int,
    num_runs: int,
    chunk_size: int,
) -> ArrayLike:
    if space == "embedding":
        assert pool.embedding is not None
        return pool.embedding
    if space == "features" or num_clusters == 1:
        return unit_rows(pool.features)
    return fine_tune_features(
        key, pool.features, num_clusters, num_runs=num_runs, chunk_size=chunk_size
    ).features


def _picked(
    x: np.ndarray,
    groups: Groups,
    free: np.ndarray,
    batch_size: int,
    consensus: Consensus,
    medoid: Metric,
) -> tuple[np.ndarray, As3lInfo]:
    """Go through the groups in order, again and again, until there are enough picks."""
    total = len(groups.sizes)
    members = np.split(np.argsort(groups.labels, kind="stable"), np.cumsum(groups.sizes)[:-1])
    num_free = np.bincount(groups.labels[free], minlength=total)
    # Groups without a free sample may be among those taken.
    num_groups = min(batch_size + int((num_free == 0).sum()), total)
    order, shared = order_groups(
        groups, num_groups, consensus=consensus, labeled=groups.labels[~free]
    )
    picks: list[tuple[int, int, int, int]] = []
    waiting: dict[int, np.ndarray] = {}
    rank = 0
    while len(picks) < batch_size:
        for group, runs in zip(order.tolist(), shared.tolist(), strict=True):
            if len(picks) == batch_size:
                break
            if num_free[group] <= rank:
                continue
            if group not in waiting:
                rows = members[group]
                cost = mean_distances(x[rows], metric=medoid)[free[rows]]
                waiting[group] = rows[free[rows]][np.argsort(cost, kind="stable")]
            picks.append((int(waiting[group][rank]), group, runs, rank))
        rank += 1
    rows, chosen, runs, ranks = np.array(picks, np.int64).T
    return rows, As3lInfo(chosen, groups.sizes[chosen], runs, ranks, total)


def _needs(space: Space = "embedding", **_: Any) -> frozenset[str]:
    check_choice(space, "space", Space)
    return frozenset({"embedding"} if space == "embedding" else ())


AS3L = Strategy("as3l", select_as3l, cold_start=True, needs_for=_needs)
