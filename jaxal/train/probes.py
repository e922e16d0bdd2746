"""Tell how good features are: a vote of nearest neighbours, and a linear head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_labels, check_number
from jaxal.chunking import map_rows
from jaxal.neighbors import nearest_neighbors
from jaxal.train.head import LINEAR, HeadConfig, predict_probs, train_head

__all__ = ["knn_accuracy", "knn_votes", "linear_accuracy"]

_NUM_NEIGHBORS = 200


def knn_votes(
    features: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    num_classes: int,
    *,
    num_neighbors: int | None = None,
    temperature: float = 0.1,
) -> jax.Array:
    """Let the nearest labelled rows vote on the class of each query.

    Each neighbour's vote weighs ``exp(cosine similarity / temperature)``, as in Wu et al.
    (arXiv 1805.01978, section 3.4), with which self-supervised training is watched.

    Args:
      features: ``[n, d]`` of known class.
      labels: ``[n]`` in 0..num_classes-1.
      queries: ``[q, d]``.
      num_classes: c.
      num_neighbors: how many vote; None for 200, the paper's, or n where there are fewer.
      temperature: above 0.

    Returns:
      ``[q, c]`` float32 shares of the votes.

    Raises:
      ValueError: features, labels or options out of range.
    """
    x = check_features(features)
    y = check_labels(labels, num_classes, length=np.shape(x)[0])
    check_number(temperature, "temperature", least=0, above=True)
    count = min(_NUM_NEIGHBORS, len(y)) if num_neighbors is None else num_neighbors
    found = nearest_neighbors(x, count, queries=queries)
    vote = functools.partial(_vote, jnp.asarray(y), temperature, num_classes=num_classes)
    return map_rows(vote, found.indices, found.distances)


@functools.partial(jax.jit, static_argnames="num_classes")
def _vote(
    labels: jax.Array,
    temperature: jax.Array,
    indices: jax.Array,
    distances: jax.Array,
    *,
    num_classes: int,
) -> jax.Array:
    weights = jax.nn.softmax(-distances / temperature, axis=1)
    members = jax.nn.one_hot(labels[indices], num_classes)
    return jnp.einsum("qk,qkc->qc", weights, members)


def knn_accuracy(
    features: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    query_labels: ArrayLike,
    num_classes: int,
    *,
    num_neighbors: int | None = None,
    temperature: float = 0.1,
) -> float:
    """Compute the share of queries whose class `knn_votes` finds, ties going to the lower class.

    Args:
      features: ``[n, d]`` of known class.
      labels: ``[n]`` in 0..num_classes-1.
      queries: ``[q, d]``.
      query_labels: ``[q]``, likewise.
      num_classes: c.
      num_neighbors: see `knn_votes`.
      temperature: see `knn_votes`.

    Returns:
      The share, in 0..1.

    Raises:
      ValueError: features, labels or options out of range.
    """
    expected = check_labels(query_labels, num_classes, "query_labels", length=np.shape(queries)[0])
    votes = knn_votes(
        features,
        labels,
        queries,
        num_classes,
        num_neighbors=num_neighbors,
        temperature=temperature,
    )
    return float(np.mean(np.argmax(np.asarray(votes), axis=1) == expected))


def linear_accuracy(
    key: jax.Array,
    features: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    query_labels: ArrayLike,
    num_classes: int,
    *,
    config: HeadConfig = LINEAR,
) -> float:
    """Compute the share of queries that a head trained on all features gets right.

    Args:
      key: of `train_head`.
      features: ``[n, d]`` of known class.
      labels: ``[n]`` in 0..num_classes-1.
      queries: ``[q, d]``.
      query_labels: ``[q]``, likewise.
      num_classes: c.
      config: the head and its optimisation.

    Returns:
      The share, in 0..1.

    Raises:
      ValueError: as `train_head` and `predict_probs`.
    """
    expected = check_labels(query_labels, num_classes, "query_labels", length=np.shape(queries)[0])
    rows = np.arange(np.shape(features)[0])
    trained = train_head(key, features, rows, labels, num_classes, config=config)
    predicted = np.argmax(np.asarray(predict_probs(trained, queries)), axis=1)
    return float(np.mean(predicted == expected))
