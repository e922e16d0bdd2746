"""How far each sample of a group is from the others: the medoid is the nearest."""

from typing import Literal

import numpy as np
from jax.typing import ArrayLike
from scipy.spatial.distance import cdist

from jaxal.checks import check_choice, check_features, check_positive

__all__ = ["Metric", "mean_distances"]

Metric = Literal["squared", "euclidean", "cosine"]

_CHUNK_SIZE = 256


def mean_distances(
    x: ArrayLike, *, metric: Metric = "squared", chunk_size: int = _CHUNK_SIZE
) -> np.ndarray:
    """Average each sample's distance to all samples of its group.

    In float64 on the host, row by row, so that duplicates get equal numbers. The mean of squared
    distances is the squared distance to the group's mean, plus the group's variance; the mean of
    cosine distances is one less the product with the mean of unit rows. Those two cost
    ``O(g · d)``; "euclidean" compares all pairs, ``chunk_size`` rows at a time: ``O(g² · d)``.

    Args:
      x: ``[g, d]`` features of one group.
      metric: "squared" Euclidean, "euclidean", or "cosine": 1 - similarity, where a row of zeros
        is similar to none.
      chunk_size: rows compared with the group at once; changes no result.

    Returns:
      ``[g]`` float64, zero or more. Its smallest is the medoid's.

    Raises:
      ValueError: no matrix of finite numbers, or an unknown metric.
    """
    check_choice(metric, "metric", Metric)
    check_positive(chunk_size, "chunk_size")
    rows = np.asarray(check_features(x, "x"), np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = rows / np.where(lengths > 0, lengths, 1)
        return np.maximum(1 - (unit * unit.mean(0)).sum(1), 0)
    if metric == "squared":
        squared = ((rows - rows.mean(0)) ** 2).sum(1)
        return squared + squared.mean()
    return np.concatenate(
        [
            cdist(rows[start : start + chunk_size], rows).mean(1)
            for start in range(0, len(rows), chunk_size)
        ]
    )
