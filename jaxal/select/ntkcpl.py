"""NTKCPL (arXiv 2306.04099): pick what makes the retrained head agree most with pool pseudo-labels.

The head's retraining on the labelled samples and one candidate more is predicted by kernel
regression with the head's empirical neural tangent kernel (`jaxal.regression`); the pool's true
labels are stood in for by cluster pseudo-labels (`jaxal.pseudolabels`); the candidate with the
least risk over the whole pool is picked, one at a time, until the batch is full (`jaxal.risk`).

The paper's are: that objective, the kernel of a randomly initialised head on un-normalised frozen
features, clusters as targets also of the labelled samples, the number of clusters, the two feature
choices ``self`` and ``al``. Ours, each a parameter: clusters of a diffusion map, the squared risk
and its scale, the pool's weights, the candidates' number, the kernel's width and ridge, and that it
sees the features centred and scaled.
``benchmarks/NOTES.md`` has what was tried.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import check_choice, check_number, check_positive
from jaxal.kernels.dense import dense_ntk, init_dense_layers
from jaxal.pseudolabels import PseudoLabels, Refinement, cluster_pseudo_labels, num_clusters
from jaxal.regression import Posterior, posterior
from jaxal.risk import greedy
from jaxal.scaling import range_scale, unit_rows
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled
from jaxal.select.margin import margins

__all__ = [
    "NTKCPL",
    "NTKCPLInfo",
    "default_target_scale",
    "head_kernel",
    "pool_weights",
    "select_ntkcpl",
]

Kernel = Callable[[ArrayLike, ArrayLike], jax.Array]
ClusterFeatures = Literal["embedding", "self", "al"]
Weighting = Literal["uniform", "uncertainty"]
Risk = Literal["squared", "zero_one"]

_CHOICES = {
    "cluster_features": ClusterFeatures,
    "weighting": Weighting,
    "risk": Risk,
    "refinement": Refinement,
}
_COUNTS = ("num_restarts", "kernel_width", "chunk_size", "max_evaluations", "num_candidates")
_MAY_BE_NONE = ("target_scale", "max_evaluations", "num_candidates", "kernel", "kernel_width")

_MOST_COMMITS = 128  # between two times that they are multiplied into the kernel
_LABELS_A_CLASS = 20  # at which the targets' scale is full
_ROUNDING = 1e-6


class NTKCPLInfo(NamedTuple):
    """What a round of NTKCPL saw."""

    risk: jax.Array  # [b] share of the pool whose prediction misses its pseudo-label, per pick
    squared_risk: jax.Array  # [b] weighted squared error to the scaled pseudo-labels, per pick
    num_clusters: int
    purity: float  # of the clusters, estimated on the labelled samples; NaN if there are none
    num_candidates: int
    slack: jax.Array  # [b] how much less the zero-one risk may have become; 0 where exact


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


def select_ntkcpl(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    cluster_features: ClusterFeatures = "embedding",
    num_restarts: int = 5,
    max_clusters: int = 100,
    refinement: Refinement = "none",
    merge: bool = False,
    weighting: Weighting = "uncertainty",
    risk: Risk = "squared",
    target_scale: float | None = None,
    max_evaluations: int | None = None,
    num_candidates: int | None = 4000,
    kernel: Kernel | None = None,
    kernel_seed: int = 0,
    kernel_width: int | None = 512,
    center: bool = True,
    feature_scale: float = 4.0,
    ridge: float = 0.1,
    chunk_size: int = 4096,
) -> tuple[jax.Array, NTKCPLInfo]:
    """Pick samples by the look-ahead risk under cluster pseudo-labels.

    Holds O(pool · (d + candidates + labelled + clusters + batch_size)).

    Args:
      key: random key: of the clusters and of the candidates.
      pool: features, what is labelled (nothing need be yet), and what the options below read.
      batch_size: samples to pick.
      cluster_features: what is clustered: ``"embedding"`` is ``pool.embedding`` as it is;
        ``"self"`` the unit features (the paper's); ``"al"`` the same until a head is trained, and
        then its unit hidden activations ``pool.hidden`` (the paper's).
      num_restarts: restarts of k-means.
      max_clusters: the cap on the number of clusters, at least 2.
      refinement: how the labels refine the clusters; see `cluster_pseudo_labels`.
      merge: count clusters whose labelled samples share one class as one.
      weighting: weight of each pool sample in the risk; see `pool_weights`.
      risk: the risk that chooses; see `jaxal.risk`.
      target_scale: s of the squared risk, 1 or more: a right prediction gains 2s - 1 against none,
        a wrong one loses 1; see `jaxal.risk`. None grows with the labels: `default_target_scale`.
      max_evaluations: candidates whose zero-one risk is evaluated a pick; all it takes if None.
      num_candidates: unlabelled samples drawn by key that may be picked; all of them if None. At
        least ``batch_size`` are drawn.
      kernel: ``(x1 [n1, d], x2 [n2, d]) -> [n1, n2]``; by default `head_kernel`.
      kernel_seed: seed of the default kernel's head, the same in every round.
      kernel_width: its hidden width; None for that of the features, ``d`` (the paper's).
      center: subtract the pool's mean from the features for the kernel (ours), so that samples are
        alike by what tells them from the average. A head takes up an offset by its bias.
      feature_scale: mean row norm that they are then scaled to, by one factor.
      ridge: added to the kernel's diagonal, as a share of its mean.
      chunk_size: pool rows held at once where the kernel is computed; changes no result.

    Returns:
      ``[batch_size]`` int32 pool rows in the order picked, and what was seen.

    Raises:
      ValueError: malformed or missing fields, a batch beyond what is left, options out of range, a
        kernel that gives another shape or NaN.
    """
    _check_options(
        {
            "cluster_features": cluster_features,
            "num_restarts": num_restarts,
            "refinement": refinement,
            "merge": merge,
            "weighting": weighting,
            "risk": risk,
            "target_scale": target_scale,
            "max_evaluations": max_evaluations,
            "num_candidates": num_candidates,
            "kernel": kernel,
            "kernel_width": kernel_width,
            "center": center,
            "feature_scale": feature_scale,
            "ridge": ridge,
            "chunk_size": chunk_size,
        }
    )
    check_positive(batch_size, "batch_size")
    wanted = num_clusters(np.size(pool.labeled), batch_size, max_clusters=max_clusters)
    needs = _needs(cluster_features, weighting, refinement)
    if np.size(pool.labeled) == 0:
        needs -= {"hidden", "probs"}
    pool = check_pool(pool, batch_size, {"features", *needs}, "ntkcpl")
    if target_scale is None:
        target_scale = default_target_scale(np.size(pool.labeled) + batch_size, pool.num_classes)
    cluster_key, candidate_key = jax.random.split(key)
    candidates = _candidates(candidate_key, pool, batch_size, num_candidates)
    clusters = cluster_pseudo_labels(
        cluster_key,
        _cluster_space(pool, cluster_features),
        wanted,
        labeled=pool.labeled,
        labels=pool.labels,
        num_classes=pool.num_classes,
        probs=pool.probs,
        refinement=refinement,
        merge=merge,
        min_size=10 if wanted == max_clusters else 50,
        num_restarts=num_restarts,
    )
    if kernel is None:
        num_features = np.shape(pool.features)[1]
        kernel = head_kernel(
            jax.random.key(kernel_seed),
            num_features,
            width=num_features if kernel_width is None else kernel_width,
            chunk_size=chunk_size,
        )
    capacity = min(batch_size, _MOST_COMMITS)
    picked, seen, _ = greedy(
        _posterior(pool, candidates, clusters, kernel, center, feature_scale, ridge, capacity),
        clusters.labels,
        pool_weights(pool, weighting),
        np.ones(candidates.size, bool),
        batch_size=batch_size,
        risk=risk,
        target_scale=target_scale,
        max_evaluations=max_evaluations,
    )
    info = NTKCPLInfo(
        risk=seen.disagreement,
        squared_risk=seen.squared_risk,
        num_clusters=clusters.num_clusters,
        purity=clusters.purity,
        num_candidates=candidates.size,
        slack=seen.slack,
    )
    return jnp.asarray(candidates[np.asarray(picked)], jnp.int32), info


def default_target_scale(num_labeled: int, num_classes: int) -> float:
    """Say how far the squared risk's targets are for a number of labels (ours).

    A wrong prediction costs the less against a right one, the larger the scale. 1 measures better
    at few labels, when predictions reach far and are often wrong; 2 at many, when a group that has
    no label yet is a small one among others, which their cost would leave unlabelled.

    Args:
      num_labeled: labels at the end of the round.
      num_classes: number of classes, at least 1.

    Returns:
      1 with no label, rising linearly to 2 at 20 labels a class, and 2 from there.

    Raises:
      ValueError: fewer than one class, or fewer than no labels.
    """
    check_number(num_labeled, "num_labeled", least=0)
    check_positive(num_classes, "num_classes")
    return 1 + min(1.0, num_labeled / (_LABELS_A_CLASS * num_classes))


def pool_weights(pool: Pool, weighting: Weighting, *, floor: float = 0.05) -> np.ndarray:
    """Weigh the pool samples in the risk (ours).

    Args:
      pool: the pool.
      weighting: ``"uniform"`` is the paper's; ``"uncertainty"`` is ``max(1 - margin, floor)`` of
        the head's two largest probabilities, uniform while there is no head: what the head is sure
        of has little risk left to lose.
      floor: least weight by uncertainty.

    Returns:
      ``[n]`` float32, summing to one.
    """
    weights = np.ones(np.shape(pool.features)[0], np.float64)
    if weighting == "uncertainty" and pool.probs is not None and np.size(pool.labeled):
        found = np.asarray(margins(jnp.asarray(pool.probs)), np.float64)
        weights = np.maximum(1 - found, floor)
    return (weights / weights.sum()).astype(np.float32)


def _needs(
    cluster_features: str = "embedding",
    weighting: str = "uncertainty",
    refinement: str = "none",
    **_others: Any,
) -> frozenset[str]:
    """Say which fields of the pool the options read."""
    needs = set()
    if cluster_features != "self":
        needs.add("hidden" if cluster_features == "al" else "embedding")
    if weighting == "uncertainty" or refinement == "split":
        needs.add("probs")
    return frozenset(needs)


def _check_options(options: Mapping[str, Any]) -> None:
    """Check those given, also what only later rounds read."""
    for name, value in options.items():
        if value is None and name in _MAY_BE_NONE:
            continue
        if name in _CHOICES:
            check_choice(value, name, _CHOICES[name])
        elif name in ("merge", "center"):
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"{name}: expected True or False, found {value!r}")
        elif name in ("ridge", "feature_scale"):
            check_number(value, name, least=0, above=True)
        elif name == "target_scale":
            check_number(value, name, least=1)
        elif name == "kernel":
            if not callable(value):
                raise ValueError(f"kernel: expected a function of two matrices, found {value!r}")
        elif name in _COUNTS:
            check_positive(value, name)


def _cluster_space(pool: Pool, cluster_features: ClusterFeatures) -> ArrayLike:
    """Choose what is clustered; `select_ntkcpl` checked that it is there."""
    if cluster_features == "embedding":
        return cast(ArrayLike, pool.embedding)
    headed = cluster_features == "al" and np.size(pool.labeled)
    found: jax.Array = unit_rows(cast(ArrayLike, pool.hidden if headed else pool.features))
    return found


def _posterior(
    pool: Pool,
    candidates: np.ndarray,
    clusters: PseudoLabels,
    kernel: Kernel,
    center: bool,
    feature_scale: float,
    ridge: float,
    capacity: int,
) -> Posterior:
    """Condition the kernel on the pseudo-labels of what is labelled."""
    features = _scaled(pool.features, feature_scale, center=center)
    labeled = np.asarray(pool.labeled)

    def columns(rows: np.ndarray) -> jax.Array:
        found = kernel(features, features[rows])
        if np.shape(found) != (len(features), len(rows)):
            raise ValueError(
                f"kernel: expected {[len(features), len(rows)]} values for so many rows, "
                f"found shape {np.shape(found)}"
            )
        return jnp.asarray(found)

    among = columns(candidates)
    given: dict[str, Any] = {}
    if labeled.size:
        onehot = np.eye(clusters.num_clusters, dtype=np.float32)
        given = {
            "kernel_labeled": columns(labeled),
            "labeled": labeled,
            "targets": onehot[clusters.labels[labeled]],
        }
    return posterior(
        among,
        candidates,
        num_outputs=clusters.num_clusters,
        ridge=ridge * float(jnp.mean(among[candidates, jnp.arange(candidates.size)])),
        capacity=capacity,
        **given,
    )


def _candidates(
    key: jax.Array, pool: Pool, batch_size: int, num_candidates: int | None
) -> np.ndarray:
    """Draw the unlabelled samples that may be picked, ascending."""
    free = unlabeled(pool)
    if num_candidates is not None and num_candidates < free.size:
        drawn = jax.random.permutation(key, free.size)[: max(num_candidates, batch_size)]
        free = np.sort(free[np.asarray(drawn)])
    return _distinct(pool, free, batch_size)


def _distinct(pool: Pool, free: np.ndarray, batch_size: int) -> np.ndarray:
    """Leave out copies of labelled samples and of earlier ones, but for the last places."""
    labeled = np.asarray(pool.labeled)
    rows = np.asarray(jnp.asarray(pool.features)[np.concatenate([labeled, free])])
    _, first = np.unique(rows, axis=0, return_index=True)
    kept = free[np.sort(first[first >= labeled.size]) - labeled.size]
    copies = np.setdiff1d(free, kept)[: max(batch_size - kept.size, 0)]
    return np.sort(np.concatenate([kept, copies]))


def _scaled(x: ArrayLike, scale: float, *, center: bool) -> jax.Array:
    """Bring features to a mean row norm by one factor; zeros stay."""
    x = jnp.asarray(x, jnp.float32)
    x = x * range_scale(x)
    norm = jnp.mean(jnp.linalg.norm(x, axis=1))
    if center:
        x = x - jnp.mean(x, axis=0)
        before, norm = norm, jnp.mean(jnp.linalg.norm(x, axis=1))
        # What is left of equal rows is the rounding of their mean.
        real = norm > _ROUNDING * before
        x, norm = jnp.where(real, x, 0), jnp.where(real, norm, 0)
    return jnp.asarray(x * (scale / jnp.where(norm > 0, norm, 1)))


def _needs_for(**options: Any) -> frozenset[str]:
    """As `_needs`, of options that are checked: what is needed takes long to make."""
    _check_options(options)
    return _needs(**options)


NTKCPL = Strategy("ntkcpl", select_ntkcpl, needs=_needs(), cold_start=True, needs_for=_needs_for)
