"""Prior pseudo-labels: what a handful of labels says about the whole pool, by clusters.

Constrained-seed k-means starts from the labelled samples and keeps each in its cluster; every
cluster hands its label to its members, and over C runs the votes give a soft prior (AS3L, arXiv
2203.04560). The paper's text settles no more than that; see `prior_labels` for what is ours.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import (
    check_choice,
    check_count,
    check_features,
    check_indices,
    check_labels,
    check_positive,
)
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering import seeded_kmeans
from jaxal.neighbors import nearest_neighbors

__all__ = ["Prior", "Seeds", "prior_labels"]

Seeds = Literal["sample", "class"]


class Prior(NamedTuple):
    """What the labelled samples say about all."""

    hard: jax.Array  # [n] int32, 0..num_classes-1
    soft: jax.Array  # [n, num_classes] float32, rows that sum to 1: each class's share of the votes
    votes: jax.Array  # [runs, n] int32, the class each run gave


def prior_labels(
    key: jax.Array,
    x: ArrayLike,
    labeled: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    num_runs: int = 6,
    seeds: Seeds = "sample",
    extra_clusters: int | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Prior:
    """Hand the labels to the members of the clusters that the labelled samples seed.

    Beside the seeded clusters there are free ones, which start at unlabelled samples, by another
    draw in each run; when k-means is done, they have the label of the nearest seeded centre. That
    rule, the number of free clusters and a seed for each sample are ours. Without free clusters
    nothing is left to chance, and all runs are one. ``hard`` is the class with the most votes; of
    several, the first run's if it is among them, else the lowest.

    A labelled sample has its own label in every run, whatever surrounds it. A class without labels
    gets no vote. Of equal samples with different labels, the first ("sample") or the lowest class
    ("class") has the others at that place.

    Holds ``O(n · (d + num_runs + num_classes))`` and what `jaxal.seeded_kmeans` does.

    Args:
      key: where the free clusters start.
      x: ``[n, d]`` features, of `jaxal.as3l.fine_tune_features` or any.
      labeled: ``[l]`` distinct rows, at least one.
      labels: ``[l]`` their classes, 0..num_classes-1.
      num_classes: of the data; some may have no label.
      num_runs: C.
      seeds: "sample" starts a cluster at each labelled sample, so that a class may have several;
        "class" one at the mean of each class's labelled samples.
      extra_clusters: free clusters, at most the unlabelled samples; None for one a labelled sample,
        or the unlabelled samples where those are fewer.
      chunk_size: rows whose distances are held at once; changes no result but by rounding.

    Returns:
      Hard and soft prior, and the votes they come from.

    Raises:
      ValueError: features that are no matrix of finite numbers, no labelled sample, rows or classes
        out of range, or a bad option.
    """
    x = check_features(x, "x")
    n, _ = np.shape(x)
    rows = check_indices(labeled, n, "labeled")
    classes = check_labels(labels, num_classes, length=len(rows))
    if len(rows) == 0:
        raise ValueError("labeled: expected at least one labelled sample, found none")
    check_positive(num_runs, "num_runs")
    check_choice(seeds, "seeds", Seeds)
    check_positive(chunk_size, "chunk_size")
    num_free = n - len(rows)
    if extra_clusters is None:
        extra_clusters = min(len(rows), num_free)
    if check_count(extra_clusters, "extra_clusters") > num_free:
        raise ValueError(
            f"extra_clusters: expected at most {num_free}, the unlabelled samples, "
            f"found {extra_clusters}"
        )
    # The class of each seeded cluster, and the cluster that each labelled sample seeds.
    owners, seeded = classes, np.arange(len(rows))
    if seeds == "class":
        owners, seeded = np.unique(classes, return_inverse=True)
    x = jnp.asarray(x)
    votes = np.empty((num_runs, n), np.int32)
    for run in range(num_runs):
        if run > 0 and extra_clusters == 0:
            votes[run] = votes[0]
            continue
        found = seeded_kmeans(
            jax.random.fold_in(key, run),
            x,
            len(owners) + extra_clusters,
            rows,
            seeded.reshape(-1),
            len(owners),
            chunk_size=chunk_size,
        )
        votes[run] = _classes_of(found.centers, owners)[np.asarray(found.labels)]
        votes[run, rows] = classes
    soft = np.stack([(votes == c).mean(0, dtype=np.float32) for c in range(num_classes)], axis=1)
    tied = soft[np.arange(n), votes[0]] == soft.max(1)
    hard = np.where(tied, votes[0], soft.argmax(1))
    return Prior(jnp.asarray(hard, jnp.int32), jnp.asarray(soft), jnp.asarray(votes))


def _classes_of(centers: jax.Array, owners: np.ndarray) -> np.ndarray:
    """Give each cluster a class: the seeded ones, which come first, theirs; ``[k]``."""
    seeded, free = centers[: len(owners)], centers[len(owners) :]
    if len(free) == 0:
        return owners
    near = nearest_neighbors(seeded, 1, queries=free, metric="euclidean")
    return np.concatenate([owners, owners[np.asarray(near.indices)[:, 0]]])
