"""Split the clusters that disagree with the labels or with the head, one in two at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_indices, check_labels, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE
from jaxal.clustering.kmeans import run_kmeans
from jaxal.clustering.lloyd import as_rows

__all__ = ["split_clusters"]

_MAX_ITERATIONS = 100
_TOLERANCE = 1e-4
# Members are padded to 1024, 4096, 16384 … rows, so that 2-means compiles for few shapes.
_SMALLEST_PADDED, _PADDING_RATIO = 1024, 4


def split_clusters(
    key: jax.Array,
    x: ArrayLike,
    labels: ArrayLike,
    num_clusters: int,
    *,
    labeled: ArrayLike | None = None,
    class_labels: ArrayLike | None = None,
    probs: ArrayLike | None = None,
    min_size: int = 50,
    max_levels: int = 14,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> jax.Array:
    """Split clusters by 2-means until there are ``num_clusters``.

    Each time the cluster with the largest disagreement is split: the one with the most labelled
    samples outside its majority class; among equals, the largest ``size · entropy`` of the classes
    the head predicts in it; among equals, the largest; then the lowest id. A cluster is left alone
    when it holds fewer than ``2 · min_size`` samples, has been split ``max_levels`` deep, or
    2-means leaves one half below ``min_size``. So there may be fewer clusters in the end.
    NTKCPL (arXiv 2306.04099) gives the sizes and levels; the order of splitting is ours.

    The half with more labelled samples (then more samples) keeps its cluster's id; the other takes
    the lowest id not in use. Holds ``O(n · d)``; one split costs time in its cluster's size only.

    Args:
      key: PRNG key; the same key gives the same clusters.
      x: ``[n, d]`` features of any real dtype, memory-mapped or not.
      labels: ``[n]`` clusters to start from, 0..num_clusters-1; an id may be unused.
      num_clusters: clusters wanted.
      labeled: ``[l]`` indices of the labelled samples.
      class_labels: ``[l]`` their classes, 0 or more.
      probs: ``[n, classes]`` the head's probabilities or logits; only the argmax is looked at.
      min_size: fewest samples of a cluster made here.
      max_levels: most splits between a cluster of ``labels`` and a cluster returned.
      chunk_size: rows whose distances are held at once.

    Returns:
      ``[n]`` int32 clusters, each within one cluster of ``labels``.

    Raises:
      ValueError: wrong shapes, values out of range, or only one of ``labeled``, ``class_labels``.
    """
    x = check_features(x, "x")
    for name, value in (
        ("num_clusters", num_clusters),
        ("min_size", min_size),
        ("max_levels", max_levels),
        ("chunk_size", chunk_size),
    ):
        check_positive(value, name)
    n, _ = np.shape(x)
    found = check_labels(labels, num_clusters, length=n).copy()
    classes = _known_classes(n, labeled, class_labels)
    predicted = _predicted_classes(n, probs)
    members = {int(c): np.flatnonzero(found == c) for c in np.unique(found)}
    level = dict.fromkeys(members, 0)
    rank = {c: _disagreement(rows, classes, predicted) for c, rows in members.items()}
    features = jnp.asarray(x)
    splits = 0
    while len(members) < num_clusters:
        open_ = [c for c in rank if len(members[c]) >= 2 * min_size and level[c] < max_levels]
        if not open_:
            break
        cluster = max(open_, key=lambda c: (rank[c], -c))
        rows = members[cluster]
        halves = _halve(jax.random.fold_in(key, splits), features, rows, chunk_size)
        splits += 1
        if min(len(half) for half in halves) < min_size:
            del rank[cluster]
            continue
        halves.sort(key=lambda half: ((classes[half] >= 0).sum(), len(half)), reverse=True)
        new = next(c for c in range(num_clusters) if c not in members)
        found[halves[1]] = new
        level[cluster] = level[new] = level[cluster] + 1
        for c, half in zip((cluster, new), halves, strict=True):
            members[c], rank[c] = half, _disagreement(half, classes, predicted)
    return jnp.asarray(found)


def _disagreement(
    rows: np.ndarray, classes: np.ndarray, predicted: np.ndarray
) -> tuple[int, float, int]:
    known = classes[rows]
    known = known[known >= 0]
    minority = len(known) - int(np.bincount(known, minlength=1).max())
    share = np.bincount(predicted[rows]) / len(rows)
    share = share[share > 0]
    return minority, -float((share * np.log(share)).sum()) * len(rows), len(rows)


def _halve(
    key: jax.Array, features: jax.Array, rows: np.ndarray, chunk_size: int
) -> list[np.ndarray]:
    size = _SMALLEST_PADDED
    while size < len(rows):
        size *= _PADDING_RATIO
    padded = np.resize(rows, size)
    weights = (np.arange(size) < len(rows)).astype(np.float32)
    chunks = as_rows(features[padded], jnp.asarray(weights), chunk_size=chunk_size)
    halves = run_kmeans(key, chunks, _MAX_ITERATIONS, _TOLERANCE, 2, capacity=2)
    side = np.asarray(halves.labels)[: len(rows)]
    return [rows[side == 0], rows[side == 1]]


def _known_classes(n: int, labeled: ArrayLike | None, class_labels: ArrayLike | None) -> np.ndarray:
    """The class of each sample, ``[n]``, or -1."""
    if (labeled is None) != (class_labels is None):
        raise ValueError("labeled, class_labels: expected both or neither, found one")
    classes = np.full(n, -1, np.int64)
    if labeled is not None and class_labels is not None:
        labeled = check_indices(labeled, n, "labeled")
        num_classes = 1 + int(np.max(class_labels, initial=0))
        classes[labeled] = check_labels(
            class_labels, num_classes, "class_labels", length=len(labeled)
        )
    return classes


def _predicted_classes(n: int, probs: ArrayLike | None) -> np.ndarray:
    """The class the head predicts for each sample, ``[n]``; class 0 for all without a head."""
    if probs is None:
        return np.zeros(n, np.int64)
    probs = check_features(probs, "probs")
    if np.shape(probs)[0] != n:
        raise ValueError(f"probs: expected {n} rows, found {np.shape(probs)[0]}")
    return np.asarray(jnp.argmax(jnp.asarray(probs), axis=1))
