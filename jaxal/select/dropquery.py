"""DropQuery selection (arXiv 2401.14555): the centres of what dropout makes the head doubt."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows, next_power
from jaxal.clustering import kmeans
from jaxal.models.heads import DenseHead
from jaxal.scaling import range_scale, unit_rows
from jaxal.select.base import Pool, Strategy, check_pool, rank_in_group, unlabeled
from jaxal.train.head import TrainedHead, first_layer

__all__ = ["DROPQUERY", "DropqueryInfo", "dropout_disagreements", "select_dropquery"]

# Candidates are padded to this or the next power of two, so that rounds share compiled programs.
_SMALLEST_CAPACITY = 1024


class DropqueryInfo(NamedTuple):
    """Where the chosen samples came from."""

    clusters: jax.Array  # [batch_size] int32, each pick's cluster of the candidates
    disagreements: jax.Array  # [batch_size] int32, predictions that dropout changed; 0 when cold
    threshold: jax.Array  # () int32, the fewest disagreements of a candidate; 0 when cold
    num_candidates: jax.Array  # () int32


def select_dropquery(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    num_predictions: int = 3,
    dropout_rate: float = 0.75,
    normalize: bool = True,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, DropqueryInfo]:
    """Choose central samples among those whose predicted class dropout changes.

    The candidates are the unlabelled samples of which more than half of ``num_predictions``
    predictions with dropout on the features differ from the plain one. k-means makes
    ``batch_size`` clusters of them, and the candidate nearest to the centre of each is picked. With
    nothing labelled, all of the pool are candidates: the paper's start from centroids.

    The paper clusters the features of frozen encoders; that they are L2-normalised first is how its
    authors' code does it (``normalize=False`` clusters them as they are). That code clusters what
    the head's output layer sees, which for its linear head are the features behind a batch
    normalisation; here it is the features.

    Ours: a centre's nearest candidate is sought in its own cluster, as in the authors' code, so
    that no two centres share it; where k-means leaves a cluster empty (duplicates), the second
    nearest of the others follow, cluster by cluster. With fewer candidates than ``batch_size`` the
    number of disagreements asked for is lowered until there are enough, at last to none.

    Args:
      key: the dropout masks and the k-means++ start.
      pool: features, labelled rows and, once there are some, ``trained``.
      batch_size: how many.
      num_predictions: M, the predictions with dropout; the paper's 3.
      dropout_rate: ρ, the share of features that are dropped, in [0, 1); the paper's 0.75.
      normalize: whether features are clustered at length 1.
      chunk_size: rows predicted or compared with centres at once; changes no result but by
        rounding.

    Returns:
      Rows ``[batch_size]`` int32 by cluster, ties to the lower index, and where they came from.
      Holds ``O(candidates · d + chunk_size · (d + batch_size))``.

    Raises:
      ValueError: a malformed pool or option, a head of other features, one that is missing though
        samples are labelled, or more samples than are left.
    """
    _check_dropout(num_predictions, dropout_rate)
    check_positive(chunk_size, "chunk_size")
    if not isinstance(normalize, bool | np.bool_):
        raise ValueError(f"normalize: expected True or False, found {normalize!r}")
    cold = np.size(pool.labeled) == 0
    needs = ("features",) if cold else ("features", "trained")
    pool = check_pool(pool, batch_size, needs, "dropquery")
    dropout_key, cluster_key = jax.random.split(key)
    counts, threshold = np.zeros(np.shape(pool.features)[0], np.int32), 0
    if not cold:
        counts = np.asarray(
            dropout_disagreements(
                dropout_key,
                pool.trained,  # type: ignore[arg-type]
                pool.features,
                num_predictions=num_predictions,
                dropout_rate=dropout_rate,
                chunk_size=chunk_size,
            )
        )
        threshold = num_predictions // 2 + 1
    free = unlabeled(pool)
    while np.sum(counts[free] >= threshold) < batch_size:
        threshold -= 1
    rows = free[counts[free] >= threshold]
    x = _padded(pool.features, rows)
    x = unit_rows(x) if normalize else x * range_scale(x)
    chosen, clusters = _central(cluster_key, x, len(rows), batch_size, chunk_size)
    picks = rows[chosen]
    info = DropqueryInfo(
        jnp.asarray(clusters, jnp.int32),
        jnp.asarray(counts[picks], jnp.int32),
        jnp.int32(threshold),
        jnp.int32(len(rows)),
    )
    return jnp.asarray(picks, jnp.int32), info


def dropout_disagreements(
    key: jax.Array,
    trained: TrainedHead,
    features: ArrayLike,
    *,
    num_predictions: int = 3,
    dropout_rate: float = 0.75,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> jax.Array:
    """Count how often dropout on the features changes the class that a head predicts.

    Dropout sets each feature to zero with probability ``dropout_rate`` and divides the others by
    ``1 - dropout_rate``. The masks of a row depend on the key and the row's index only; their
    probability is rounded to a multiple of 2⁻¹⁶.

    Args:
      key: the masks.
      trained: the head.
      features: ``[n, d]``, as the head was trained on.
      num_predictions: predictions with dropout.
      dropout_rate: in [0, 1).
      chunk_size: rows predicted at once; changes no result but by rounding.

    Returns:
      ``[n]`` int32, 0..num_predictions. Holds ``O(n + chunk_size · d)``.

    Raises:
      ValueError: an option out of its range, or features that are no matrix or do not fit the
        head. NaN is not looked for.
    """
    _check_dropout(num_predictions, dropout_rate)
    if np.ndim(features) != 2:
        raise ValueError(f"features: expected a matrix [n, d], found shape {np.shape(features)}")
    n, dim = np.shape(features)
    expected = first_layer(trained.head, trained.variables)["kernel"].shape[0]
    if dim != expected:
        raise ValueError(
            f"features: expected {expected} columns, as the head was trained on, found {dim}"
        )
    count = functools.partial(
        _count,
        jax.random.split(key, num_predictions),
        trained.variables,
        jnp.float32(dropout_rate),
        head=trained.head,
        bits=8 if (256 * dropout_rate) % 1 == 0 else 16,
    )
    rows = np.arange(n, dtype=np.int32)
    return map_rows(count, features, rows, chunk_size=chunk_size, dtype=jnp.float32)


def _check_dropout(num_predictions: int, dropout_rate: float) -> None:
    check_positive(num_predictions, "num_predictions")
    check_number(dropout_rate, "dropout_rate", least=0)
    if dropout_rate >= 1:
        raise ValueError(f"dropout_rate: expected a number below 1, found {dropout_rate!r}")


@functools.partial(jax.jit, static_argnames=("head", "bits"))
def _count(
    keys: jax.Array,
    variables: Any,
    rate: jax.Array,
    x: jax.Array,
    rows: jax.Array,
    *,
    head: DenseHead,
    bits: int,
) -> jax.Array:
    """Disagreements ``[chunk]`` of the pool's ``rows``, whose features are ``x [chunk, d]``."""
    x = x.astype(jnp.float32)
    plain = jnp.argmax(head.apply(variables, x)[0], axis=1)

    def differs(key: jax.Array) -> jax.Array:
        kept = jax.vmap(lambda row: _kept(jax.random.fold_in(key, row), x.shape[1], rate, bits))
        dropped = jnp.where(kept(rows), x / (1 - rate), 0)
        return jnp.argmax(head.apply(variables, dropped)[0], axis=1) != plain

    return jnp.sum(jax.lax.map(differs, keys), axis=0, dtype=jnp.int32)


def _kept(key: jax.Array, count: int, rate: jax.Array, bits: int) -> jax.Array:
    """Draw which of ``count`` features stay, from ``bits`` random bits each: most of the time."""
    words = jax.random.bits(key, (-(-count * bits // 32),), jnp.uint32)
    parts = (words[:, None] >> jnp.arange(0, 32, bits, jnp.uint32)) & jnp.uint32(2**bits - 1)
    return parts.ravel()[:count] < jnp.round((1 - rate) * 2**bits).astype(jnp.uint32)


def _padded(features: ArrayLike, rows: np.ndarray) -> jax.Array:
    """Take rows in float32, and the first again up to a power of two or the size of the pool."""
    capacity = next_power(len(rows), _SMALLEST_CAPACITY)
    padded = np.full(min(capacity, np.shape(features)[0]), rows[0])
    padded[: len(rows)] = rows
    if isinstance(features, jax.Array):
        return features[jnp.asarray(padded)].astype(jnp.float32)
    return jnp.asarray(np.asarray(np.asanyarray(features)[padded], np.float32))


def _central(
    key: jax.Array, x: jax.Array, count: int, num_clusters: int, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster the first ``count`` rows; give the most central ``num_clusters`` and their clusters.

    The nearest row of each cluster comes first, by cluster, then the second nearest of each.
    """
    weights = np.arange(len(x)) < count
    found = kmeans(key, x, num_clusters, weights=weights, chunk_size=chunk_size)
    to_own = functools.partial(_to_own, found.centers)
    distances = np.asarray(map_rows(to_own, x, found.labels, chunk_size=chunk_size))[:count]
    labels = np.asarray(found.labels)[:count]
    order = np.lexsort((distances, labels))
    order = order[np.lexsort((labels[order], rank_in_group(labels[order], num_clusters)))]
    chosen = order[:num_clusters]
    return chosen, labels[chosen]


@jax.jit
def _to_own(centers: jax.Array, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared distances ``[chunk]`` of ``x [chunk, d]`` to the centres of their clusters."""
    return jnp.sum((x - centers[labels]) ** 2, axis=1)


DROPQUERY = Strategy("dropquery", select_dropquery, needs=frozenset({"trained"}), cold_start=True)
