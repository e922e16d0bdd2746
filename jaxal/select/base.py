"""What a selection strategy is given, and what it is."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import (
    check_batch_size,
    check_features,
    check_indices,
    check_labels,
    check_positive,
)
from jaxal.train.head import TrainedHead

__all__ = [
    "Pool",
    "Strategy",
    "check_pool",
    "first_best",
    "free_mask",
    "rank_in_group",
    "unlabeled",
]

# How far from 1 probabilities may sum, whatever precision they are kept in.
_SUM_TOLERANCE = 0.01


class Pool(NamedTuple):
    """All that a strategy may look at."""

    features: ArrayLike  # [n, d] fixed features, raw
    num_classes: int
    labeled: ArrayLike  # [l] int, distinct rows, in the order they were labelled
    labels: ArrayLike  # [l] int, their classes
    probs: ArrayLike | None = None  # [n, num_classes] of the head trained on the labelled rows
    hidden: ArrayLike | None = None  # [n, h] that head's last hidden activations
    embedding: ArrayLike | None = None  # [n, m] what is clustered: of cluster_embedding, or any
    trained: TrainedHead | None = None  # the head itself


class Strategy(NamedTuple):
    """A way to choose which samples to label next."""

    name: str
    select: Callable[..., tuple[Any, Any]]  # (key, pool, *, batch_size, **options) -> (picks, Info)
    needs: frozenset[str] = frozenset()  # of "probs", "hidden", "embedding", "trained"
    cold_start: bool = False  # can choose while nothing is labelled
    needs_for: Callable[..., frozenset[str]] | None = None  # (**options) -> needs; None: as above
    oracle: bool = False  # sees labels nobody paid for (option true_labels [n]): studies only

    def needs_with(self, options: Mapping[str, Any] | None) -> frozenset[str]:
        """Say what the strategy needs with these options."""
        return self.needs if self.needs_for is None else self.needs_for(**(options or {}))


_MAKERS = {
    "probs": "train a head first",
    "hidden": "train a head first",
    "embedding": "see jaxal.cluster_embedding",
    "trained": "train a head first",
}


def check_pool(
    pool: Pool, batch_size: int, needs: Collection[str] = (), name: str = "the strategy"
) -> Pool:
    """Check a pool and a request against each other.

    Args:
      pool: what the strategy was given.
      batch_size: how many samples are asked for.
      needs: fields that are read: "features", "probs", "hidden", "embedding", "trained"; each must
        be there, the matrices finite, and the rows of "probs" probabilities, whose sum is within
        0.01 of 1. The others are not looked at, except for the shape of the features.
      name: the strategy's name, for errors.

    Returns:
      The pool with ``labeled`` and ``labels`` as int64 and int32 on the host.

    Raises:
      ValueError: a field that is missing or malformed, or more samples than are left.
    """
    shape = np.shape(pool.features)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"pool.features: expected a matrix [n, d], found shape {shape}")
    check_positive(pool.num_classes, "pool.num_classes")
    labeled = check_indices(pool.labeled, shape[0], "pool.labeled")
    labels = check_labels(pool.labels, pool.num_classes, "pool.labels", length=len(labeled))
    check_batch_size(batch_size, shape[0] - len(labeled))
    for field in sorted(needs):
        value = getattr(pool, field)
        if value is None:
            raise ValueError(f"{name} needs pool.{field}: {_MAKERS[field]}")
        if field == "trained":
            _check_trained(value)
            continue
        check_features(value, f"pool.{field}")
        rows, columns = np.shape(value)
        if rows != shape[0]:
            raise ValueError(
                f"pool.{field}: expected {shape[0]} rows, as pool.features has, found {rows}"
            )
        if field == "probs":
            if columns != pool.num_classes:
                raise ValueError(
                    f"pool.probs: expected {pool.num_classes} columns, found {columns}"
                )
            _check_probs(np.asarray(value))
    return pool._replace(labeled=labeled, labels=labels)


def _check_probs(probs: np.ndarray) -> None:
    sums = probs.sum(axis=1, dtype=np.float64)
    bad = (probs < 0).any(axis=1) | ~(abs(sums - 1) <= _SUM_TOLERANCE)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            "pool.probs: expected probabilities that sum to 1, found row "
            f"{row} with a smallest of {probs[row].min():g} and a sum of {sums[row]:g}"
        )


def _check_trained(value: Any) -> None:
    if not isinstance(value, TrainedHead):
        raise ValueError(
            f"pool.trained: expected a TrainedHead, as of train_head, found {type(value).__name__}"
        )


def free_mask(pool: Pool) -> np.ndarray:
    """Mark the rows without a label, ``[n]`` bool."""
    free = np.ones(np.shape(pool.features)[0], bool)
    free[np.asarray(pool.labeled, np.int64)] = False
    return free


def unlabeled(pool: Pool) -> np.ndarray:
    """List the rows without a label, ``[n - l]`` int64, ascending."""
    return np.flatnonzero(free_mask(pool))


def first_best(
    scores: ArrayLike, pool: Pool, batch_size: int, *, largest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Take the unlabelled rows with the best scores.

    Args:
      scores: ``[n]`` of the whole pool.
      pool: whose labelled rows are left out.
      batch_size: how many to take, at most what is left.
      largest: whether a large score is a good one.

    Returns:
      Rows ``[batch_size]``, best first, ties to the lower index, and their scores.
    """
    free = unlabeled(pool)
    found = np.asarray(scores)[free]
    order = np.argsort(-found if largest else found, kind="stable")[:batch_size]
    return free[order], found[order]


def rank_in_group(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Number the members of each group from 0, in the order in which they stand.

    Args:
      groups: ``[k]`` int, 0..num_groups-1, the group of each.
      num_groups: how many there are.

    Returns:
      ``[k]`` int64.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=num_groups)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - starts[groups[order]]
    return rank
