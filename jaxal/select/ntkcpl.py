"""NTKCPL (arXiv 2306.04099): pick what makes the retrained head agree most with pool pseudo-labels.

The head's retraining on the labelled samples and one candidate more is predicted by kernel
regression with the head's empirical neural tangent kernel (`jaxal.regression`); the pool's true
labels are stood in for by cluster pseudo-labels (`jaxal.pseudolabels`); the candidate with the
least risk over the whole pool is picked, one at a time, until the batch is full (`jaxal.risk`).

The paper's are: that objective, the kernel of a randomly initialised head on un-normalised frozen
features, clusters as targets also of the labelled samples, the number of clusters, the two feature
choices ``self`` and ``al``. Ours, each a parameter: clustering neighbour-smoothed features together
with the head's probabilities, the squared risk, the pool's weights, the candidates' number, the
kernel's width, scale and ridge. ``benchmarks/NOTES.md`` has what was tried.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_features, check_positive
from jaxal.kernels.dense import dense_ntk, init_dense_layers
from jaxal.neighbors import smooth, typicality
from jaxal.pseudolabels import (
    Refinement,
    cluster_pseudo_labels,
    num_clusters,
)
from jaxal.regression import posterior
from jaxal.risk import greedy
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled
from jaxal.select.margin import margins

__all__ = ["NTKCPL", "NTKCPLInfo", "head_kernel", "pool_weights", "select"]

Kernel = Callable[[ArrayLike, ArrayLike], jax.Array]
Weighting = Literal["uniform", "typicality", "uncertainty"]


class NTKCPLInfo(NamedTuple):
    """What a round of NTKCPL saw."""

    risk: np.ndarray  # [b] share of the pool whose prediction misses its pseudo-label, per pick
    squared_risk: np.ndarray  # [b] mean squared error to the pseudo-labels, weighted, per pick
    num_clusters: int
    purity: float  # of the clusters, estimated on the labelled samples; NaN if there are none
    num_candidates: int
    slack: np.ndarray  # [b] how much less the zero-one risk may have become; 0 where exact


def head_kernel(
    key: jax.Array,
    num_features: int,
    *,
    width: int = 512,
    num_outputs: int = 10,
    chunk_size: int = 4096,
) -> Kernel:
    """Make the empirical NTK of a randomly initialised Linear-ReLU-Linear head.

    Args:
      key: random key of the head's initial weights.
      num_features: ``d``.
      width: hidden width.
      num_outputs: outputs that the trace is averaged over.
      chunk_size: rows held at once.

    Returns:
      ``kernel(x1 [n1, d], x2 [n2, d]) -> [n1, n2]`` float32, one scalar a pair.
    """
    layers = init_dense_layers(key, (num_features, width, num_outputs))
    return lambda x1, x2: dense_ntk(layers, x1, x2, chunk_size=chunk_size)


def select(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    cluster_features: Literal["self", "al"] = "self",
    smoothing: bool = True,
    probs_weight: float = 0.5,
    num_restarts: int = 5,
    max_clusters: int = 100,
    refinement: Refinement = "none",
    merge: bool = False,
    weighting: Weighting = "uncertainty",
    risk: Literal["squared", "zero_one"] = "squared",
    max_evaluations: int | None = None,
    num_candidates: int | None = 4000,
    kernel: Kernel | None = None,
    kernel_seed: int = 0,
    kernel_width: int = 512,
    feature_scale: float = 4.0,
    ridge: float = 0.1,
    chunk_size: int = 4096,
) -> tuple[np.ndarray, NTKCPLInfo]:
    """Pick samples by the look-ahead risk under cluster pseudo-labels.

    Holds O(pool · (candidates + labelled + clusters + batch_size)).

    Args:
      key: random key: of the clusters and of the candidates.
      pool: features, what is labelled (nothing need be yet), and what the options below read:
        ``neighbors``, ``hidden``, ``probs``.
      batch_size: samples to pick.
      cluster_features: what is clustered once a head is trained: ``"self"`` the self-supervised
        features, ``"al"`` the head's hidden activations.
      smoothing: cluster features averaged over each sample's ``pool.neighbors``.
      probs_weight: length of the head's class probabilities, as a unit vector of their square
        roots (smoothed likewise), beside the unit features that are clustered: clusters then stop
        at the head's boundaries. Zero leaves them out, as the paper does.
      num_restarts: restarts of k-means.
      max_clusters: the cap on the number of clusters.
      refinement: how the labels refine the clusters; see `cluster_pseudo_labels`.
      merge: count clusters whose labelled samples share one class as one.
      weighting: weight of each pool sample in the risk; see `pool_weights`.
      risk: the risk that chooses; see `jaxal.risk`.
      max_evaluations: candidates whose zero-one risk is evaluated a pick; all it takes if None.
      num_candidates: unlabelled samples drawn by key that may be picked; all of them if None. At
        least ``batch_size`` are drawn.
      kernel: ``(x1 [n1, d], x2 [n2, d]) -> [n1, n2]``; by default `head_kernel`.
      kernel_seed: seed of the default kernel's head, the same in every round.
      kernel_width: its hidden width.
      feature_scale: mean row norm that the features are scaled to for the kernel, by one factor.
      ridge: added to the kernel's diagonal, as a share of its mean.
      chunk_size: pool rows held at once where the kernel is computed; changes no result.

    Returns:
      ``[batch_size]`` int64 pool rows in the order picked, and what was seen.

    Raises:
      ValueError: malformed or missing fields, a batch beyond what is left, options out of range.
    """
    _check_options(cluster_features, weighting, risk)
    for name, value, least in (
        ("ridge", ridge, "above 0"),
        ("feature_scale", feature_scale, "above 0"),
        ("probs_weight", probs_weight, "of 0 or more"),
    ):
        if not (0 < value < np.inf or (value == 0 and least != "above 0")):
            raise ValueError(f"{name}: expected a number {least}, found {value}")
    has_labels = np.size(pool.labeled) > 0
    needs = {"features"}
    if smoothing:
        needs.add("neighbors")
    if has_labels and cluster_features == "al":
        needs.add("hidden")
    if has_labels and (weighting == "uncertainty" or probs_weight > 0):
        needs.add("probs")
    pool = check_pool(pool, batch_size, needs, "ntkcpl")
    labeled = np.asarray(pool.labeled)
    cluster_key, candidate_key = jax.random.split(key)
    free = _candidates(candidate_key, pool, batch_size, num_candidates)
    wanted = num_clusters(labeled.size, batch_size, max_clusters=max_clusters)
    clusters = cluster_pseudo_labels(
        cluster_key,
        _cluster_space(pool, cluster_features, smoothing, probs_weight),
        wanted,
        labeled=labeled,
        labels=pool.labels,
        num_classes=pool.num_classes,
        probs=pool.probs,
        refinement=refinement,
        merge=merge,
        min_size=10 if wanted == max_clusters else 50,
        num_restarts=num_restarts,
    )

    features = _scaled(pool.features, feature_scale)
    if kernel is None:
        kernel = head_kernel(
            jax.random.key(kernel_seed),
            features.shape[1],
            width=kernel_width,
            chunk_size=chunk_size,
        )
    columns = kernel(features, features[free])
    onehot = np.eye(clusters.num_clusters, dtype=np.float32)
    state = posterior(
        columns,
        free,
        kernel_labeled=kernel(features, features[labeled]) if has_labels else None,
        labeled=labeled if has_labels else None,
        targets=onehot[clusters.labels[labeled]] if has_labels else None,
        num_outputs=clusters.num_clusters,
        ridge=ridge * float(jnp.mean(columns[free, jnp.arange(free.size)])),
        capacity=batch_size,
    )
    picked, seen, _ = greedy(
        state,
        clusters.labels,
        pool_weights(pool, weighting),
        np.ones(free.size, bool),
        batch_size=batch_size,
        risk=risk,
        max_evaluations=max_evaluations,
    )
    info = NTKCPLInfo(
        risk=np.asarray(seen.zero_one_risk),
        squared_risk=np.asarray(seen.squared_risk),
        num_clusters=clusters.num_clusters,
        purity=clusters.purity,
        num_candidates=free.size,
        slack=np.asarray(seen.slack),
    )
    return free[np.asarray(picked)], info


def pool_weights(pool: Pool, weighting: Weighting, *, floor: float = 0.05) -> np.ndarray:
    """Weigh the pool samples in the risk (ours).

    Args:
      pool: the pool.
      weighting: ``"uniform"`` is the paper's; ``"uncertainty"`` is ``max(1 - margin, floor)`` of
        the head's two largest probabilities, uniform while there is no head: what the head is sure
        of has little risk left to lose; ``"typicality"`` is the inverse mean distance to the 20
        nearest samples, for pools with many outliers.
      floor: least weight by uncertainty.

    Returns:
      ``[n]`` float32, summing to one.
    """
    n = np.shape(pool.features)[0]
    weights = np.ones(n, np.float64)
    if weighting == "uncertainty" and pool.probs is not None and np.size(pool.labeled):
        found = np.asarray(margins(jnp.asarray(pool.probs)), np.float64)
        weights = np.maximum(1 - found, floor)
    elif weighting == "typicality":
        weights = np.asarray(typicality(pool.features, min(20, n - 1)), np.float64)
    return (weights / weights.sum()).astype(np.float32)


def _check_options(cluster_features: str, weighting: str, risk: str) -> None:
    for name, value, allowed in (
        ("cluster_features", cluster_features, ("self", "al")),
        ("weighting", weighting, ("uniform", "typicality", "uncertainty")),
        ("risk", risk, ("squared", "zero_one")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}")


def _cluster_space(
    pool: Pool, cluster_features: str, smoothing: bool, probs_weight: float
) -> jax.Array:
    """Make what is clustered, ``[n, d or d + num_classes]``; `select` checked that it is there."""
    has_labels = np.size(pool.labeled) > 0
    embedding = pool.hidden if has_labels and cluster_features == "al" else pool.features
    parts = [jnp.asarray(embedding)]
    if has_labels and probs_weight > 0:
        parts.append(jnp.sqrt(jnp.asarray(pool.probs, jnp.float32)))
    if smoothing:
        made = [smooth(x, np.asarray(pool.neighbors)) for x in parts]
    else:
        made = [_unit(x) for x in parts]
    return jnp.concatenate([made[0], *(probs_weight * x for x in made[1:])], axis=1)


def _candidates(
    key: jax.Array, pool: Pool, batch_size: int, num_candidates: int | None
) -> np.ndarray:
    """Draw the unlabelled samples that may be picked, ascending."""
    free = unlabeled(pool)
    if num_candidates is not None and check_positive(num_candidates, "num_candidates") < free.size:
        drawn = jax.random.permutation(key, free.size)[: max(num_candidates, batch_size)]
        free = np.sort(free[np.asarray(drawn)])
    return _distinct(pool, free, batch_size)


def _distinct(pool: Pool, free: np.ndarray, batch_size: int) -> np.ndarray:
    """Leave out copies of labelled samples and of earlier ones, while enough are left."""
    labeled = np.asarray(pool.labeled)
    rows = np.asarray(jnp.asarray(pool.features)[np.concatenate([labeled, free])])
    _, first = np.unique(rows, axis=0, return_index=True)
    kept = free[np.sort(first[first >= labeled.size]) - labeled.size]
    return kept if kept.size >= batch_size else free


def _unit(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x, jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _scaled(x: ArrayLike, scale: float) -> jax.Array:
    x = jnp.asarray(check_features(x), jnp.float32)
    return x * (scale / jnp.maximum(jnp.mean(jnp.linalg.norm(x, axis=1)), 1e-12))


NTKCPL = Strategy(
    "ntkcpl", select, needs=frozenset({"neighbors", "probs", "hidden"}), cold_start=True
)
