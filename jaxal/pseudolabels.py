"""Cluster pseudo-labels over the pool (NTKCPL, arXiv 2306.04099, its section on pseudo-labels).

A pool sample's pseudo-label is its cluster. With nothing labelled there is one k-means cluster for
each sample of the first budget, later there are floor((labelled + batch) / 2) of them, up to a cap
(the paper's). What is clustered matters most; see `jaxal.embedding`. The estimate of the risk errs
where a cluster mixes classes and where one class is cut in several clusters; how the clusters are
refined against that is an option here, because the paper does not settle it:

* ``seeded`` starts the clusters at the labelled classes (constrained-seed k-means);
* ``split`` cuts the clusters with the largest disagreement of labels or predictions in two;
* ``merge`` counts clusters whose labelled samples all share one class as one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_features, check_indices, check_labels, check_positive
from jaxal.clustering import kmeans, seeded_kmeans, split_clusters

__all__ = ["PseudoLabels", "cluster_pseudo_labels", "estimate_purity", "num_clusters"]

Refinement = Literal["none", "seeded", "split"]


class PseudoLabels(NamedTuple):
    """A partition of the pool."""

    labels: np.ndarray  # [n] int32 in 0..num_clusters-1
    num_clusters: int
    purity: float  # share of labelled samples in their cluster's majority class; NaN if none


def num_clusters(num_labeled: int, batch_size: int, *, max_clusters: int = 100) -> int:
    """Say how many clusters a round uses: the paper's rule.

    Args:
      num_labeled: samples labelled so far.
      batch_size: samples to pick in this round.
      max_clusters: the cap (the paper's 100, or 300).

    Returns:
      ``batch_size`` in the first round, ``floor((num_labeled + batch_size) / 2)`` later; at least 2
      and at most ``max_clusters``.

    Raises:
      ValueError: a cap below two.
    """
    if not isinstance(max_clusters, int | np.integer) or max_clusters < 2:
        raise ValueError(f"max_clusters: expected at least 2, found {max_clusters!r}")
    found = batch_size if num_labeled == 0 else (num_labeled + batch_size) // 2
    return max(2, min(found, max_clusters))


def cluster_pseudo_labels(
    key: jax.Array,
    features: ArrayLike,
    num_clusters: int,
    *,
    labeled: ArrayLike | Sequence[int] = (),
    labels: ArrayLike | Sequence[int] = (),
    num_classes: int = 1,
    probs: ArrayLike | None = None,
    refinement: Refinement = "none",
    merge: bool = False,
    min_size: int = 50,
    num_restarts: int = 1,
) -> PseudoLabels:
    """Cluster the pool.

    Args:
      key: random key.
      features: ``[n, d]`` float, what is clustered; such as `jaxal.cluster_embedding`.
      num_clusters: clusters wanted; no more than there are samples are made, and with ``seeded``
        and ``split`` no fewer than there are labelled classes.
      labeled: ``[l]`` integers, labelled pool rows.
      labels: ``[l]`` integers, their classes.
      num_classes: number of classes.
      probs: ``[n, c]`` the trained head's probabilities; used by ``split``.
      refinement: ``"none"`` is k-means, ``"seeded"`` constrained-seed k-means, ``"split"`` starts
        from constrained-seed k-means with one cluster a class and splits by disagreement.
      merge: count clusters whose labelled samples share one class as one.
      min_size: ``split`` makes no smaller clusters than this (the paper's 50, or 10 at the cap).
      num_restarts: restarts of plain k-means.

    Returns:
      The pseudo-labels, numbered without gaps.

    Raises:
      ValueError: bad features, indices or labels, or an unknown refinement.
    """
    features = check_features(features)
    check_positive(num_clusters, "num_clusters")
    n = np.shape(features)[0]
    labeled = check_indices(np.asarray(labeled), n, "labeled")
    labels = check_labels(np.asarray(labels), num_classes, length=labeled.size)
    check_choice(refinement, "refinement", Refinement)
    wanted = min(num_clusters, n)
    seeds = np.unique(labels).size
    if labeled.size == 0 or refinement == "none":
        found = kmeans(key, features, wanted, num_restarts=num_restarts).labels
    elif refinement == "seeded":
        wanted = min(max(wanted, seeds), seeds + n - labeled.size)
        found = seeded_kmeans(key, features, wanted, labeled, labels).labels
    else:
        first, second = jax.random.split(key)
        coarse = seeded_kmeans(first, features, seeds, labeled, labels).labels
        found = split_clusters(
            second,
            features,
            coarse,
            max(wanted, seeds),
            labeled=labeled,
            class_labels=labels,
            probs=probs,
            min_size=min_size,
        )
    clusters = np.unique(np.asarray(found), return_inverse=True)[1].astype(np.int32)
    purity = estimate_purity(clusters, labeled, labels)
    if merge and labeled.size:
        clusters = _merge_by_class(clusters, labeled, labels)
    return PseudoLabels(clusters, int(clusters.max()) + 1, purity)


def estimate_purity(clusters: ArrayLike, labeled: ArrayLike, labels: ArrayLike) -> float:
    """Estimate how pure clusters are from the labels paid for.

    Args:
      clusters: ``[n]`` integers, the cluster of each pool sample.
      labeled: ``[l]`` integers, labelled pool rows.
      labels: ``[l]`` integers, their classes.

    Returns:
      The share of labelled samples that have their cluster's most frequent class, in (0, 1]; NaN
      with nothing labelled. Optimistic where clusters hold one labelled sample each.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        return float("nan")
    return float(_counts(np.asarray(clusters), labeled, labels).max(1).sum() / labels.size)


def _counts(clusters: np.ndarray, labeled: ArrayLike, labels: np.ndarray) -> np.ndarray:
    """Count labelled samples a cluster and class, ``[k, c]``."""
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), int)
    np.add.at(counts, (clusters[np.asarray(labeled)], labels), 1)
    return counts


def _merge_by_class(clusters: np.ndarray, labeled: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = _counts(clusters, labeled, labels)
    one_class = (counts > 0).sum(1) == 1
    group = np.where(one_class, counts.argmax(1), counts.shape[1] + np.arange(len(counts)))
    return np.unique(group[clusters], return_inverse=True)[1].astype(np.int32)
