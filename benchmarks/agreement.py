"""How far features agree with others of the same images, such as those published with a network."""

import jax
import numpy as np

from jaxal.train.probes import knn_accuracy, linear_accuracy

__all__ = ["judge_features", "linear_agreement"]


def linear_agreement(features: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> float:
    """Measure how well features determine others of the same images by an affine map.

    Principal components or another basis of the reference make no difference to it. The map is a
    ridge regression, whose ridge is chosen by generalised cross-validation: where features agree
    but for noise, least squares on few more rows than columns explain little.

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
    from sklearn.linear_model import RidgeCV

    x, y = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    # In units of the features' mean squared singular value.
    scale = np.sum((x[fitted] - x[fitted].mean(0)) ** 2) / features.shape[1]
    found = RidgeCV(alphas=scale * np.logspace(-10, 0, 11)).fit(x[fitted], y[fitted])
    variance = np.sum((y[judged] - y[judged].mean(0)) ** 2)
    if not variance > 0:
        raise ValueError("reference: expected features that vary, found constant ones")
    left = y[judged] - found.predict(x[judged]).reshape(y[judged].shape)
    return float(1 - np.sum(left**2) / variance)


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
