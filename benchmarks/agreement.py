"""How far features agree with others of the same images, such as those published with a network."""

import jax
import numpy as np

from jaxal.train.probes import knn_accuracy, linear_accuracy

__all__ = ["judge_features", "linear_agreement"]


def linear_agreement(features: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> float:
    """Measure how well features determine others of the same images by an affine map.

    Principal components or another basis make no difference to it.

    Args:
      features: ``[n, f]`` float; three quarters of the rows must be more than ``f + 1``.
      reference: ``[n, r]`` float.
      seed: of the rows that the map is fitted on, three quarters of all.

    Returns:
      The share of the reference's variance explained on the other rows (R²), at most 1.

    Raises:
      ValueError: other shapes, too few rows, or a reference that does not vary.
    """
    if np.ndim(features) != 2 or np.ndim(reference) != 2 or len(features) != len(reference):
        raise ValueError(
            "reference: expected features of as many images, two matrices, found shapes "
            f"{np.shape(features)} and {np.shape(reference)}"
        )
    order = np.random.default_rng(seed).permutation(len(features))
    fitted, judged = np.split(order, [3 * len(order) // 4])
    if len(fitted) <= features.shape[1] + 1:
        needed = 4 * (features.shape[1] + 2) // 3 + 1
        raise ValueError(f"features: expected at least {needed} rows, found {len(features)}")
    x = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    y = np.asarray(reference, np.float64)
    found = np.linalg.lstsq(x[fitted], y[fitted], rcond=None)[0]
    variance = np.sum((y[judged] - y[judged].mean(0)) ** 2)
    if not variance > 0:
        raise ValueError("reference: expected features that vary, found constant ones")
    return float(1 - np.sum((y[judged] - x[judged] @ found) ** 2) / variance)


def judge_features(
    known: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    num_classes: int,
) -> dict[str, float]:
    """Judge features by what they tell of classes.

    Args:
      known: ``[n, f]`` float features of images of known class.
      labels: ``[n]`` their classes.
      queries: ``[m, f]`` float features of other images.
      query_labels: ``[m]`` their classes.
      num_classes: how many there are.

    Returns:
      ``knn_accuracy``, of a vote of nearest neighbours, and ``linear_accuracy``, of a linear head:
      shares of the queries.
    """
    given = known, labels, queries, query_labels, num_classes
    return {
        "knn_accuracy": knn_accuracy(*given),
        "linear_accuracy": linear_accuracy(jax.random.key(0), *given),
    }
