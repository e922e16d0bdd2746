"""Look-ahead selection (arXiv 2206.12569): the samples whose label would move the outputs most.

Most likely model output change (MLMOC, equation 13): with f_L the trained network, y' the class it
predicts for x', and f⁺ the network retrained with (x', y') among the labelled samples, linearised
around the trained one (equations 11 and 12),

    score(x') = Σ_x ‖f⁺(x) - f_L(x)‖₂                         (x over the unlabelled samples)
    f⁺(x)     = f(x) + R[x, x'] / (R[x', x'] + r) (y' - f(x'))
    f(x)      = f_L(x) + K[x, L] (K[L, L] + r)⁻¹ (Y - f_L(L))
    R         = K - K[:, L] (K[L, L] + r)⁻¹ K[L, :]

with K the empirical neural tangent kernel of the trained head, one scalar a pair of samples. So a
change is the same vector at every x but for its length, plus what the labelled samples alone would
change, and a candidate is scored by a sum over its column of R.
"""

import functools
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.checks import check_choice, check_number, check_positive
from jaxal.chunking import map_rows, padded_rows
from jaxal.kernels.dense import DenseLayer, apply_layers, dense_ntk
from jaxal.models.heads import head_layers
from jaxal.regression import pivot
from jaxal.scaling import range_scale
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled

__all__ = ["LOOKAHEAD", "LookaheadInfo", "select_lookahead"]

Outputs = Literal["probs", "logits"]
Baseline = Literal["network", "linearized"]

_PRECISION = jax.lax.Precision.HIGHEST
_DIAGONAL_BLOCK = 64


class LookaheadInfo(NamedTuple):
    """What was expected of the chosen samples."""

    scores: jax.Array  # [batch_size] float32, the outputs' change summed over the pool
    labels: jax.Array  # [batch_size] int32, the classes they were supposed to have
    num_candidates: int


class _Model(NamedTuple):
    """Kernel regression on the labelled samples, seen from the candidates."""

    whiten: jax.Array  # [l, l] A with A Aᵀ = (K[L, L] + r)⁻¹
    weights: jax.Array  # [l, c] (K[L, L] + r)⁻¹ (Y - f_L(L)); zero if that counts for nothing
    columns: jax.Array  # [m, l] K[C, L] A
    pivots: jax.Array  # [m] R[x', x'] + r
    gaps: jax.Array  # [m, c] y' - f(x')


def select_lookahead(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    sequential: bool = False,
    num_candidates: int | None = 4000,
    num_samples: int | None = None,
    outputs: Outputs = "probs",
    baseline: Baseline = "network",
    ridge: float = 1e-3,
    feature_norm: float | None = 4.0,
    chunk_size: int = 2048,
) -> tuple[jax.Array, LookaheadInfo]:
    """Choose the samples whose most likely label would change the pool's outputs most.

    A batch is that of the largest scores, as in the paper's experiments; its authors' code ranks by
    how many predicted classes change, which is not offered. The kernel is the mean over outputs,
    where the paper takes the first output: the same for a linear head.

    Args:
      key: which samples are candidates and which are summed over; unused where all are.
      pool: features, ``trained``, labelled rows and labels, and ``probs`` where they are the
        outputs.
      batch_size: how many.
      sequential: pick one at a time, each with the ones before it labelled as the network predicts:
        the paper's sequential querying, where their true labels are asked for instead. Holds the
        candidates' columns.
      num_candidates: unlabelled samples drawn by key that may be picked; all of them if None. At
        least ``batch_size`` are drawn. The paper draws 4,000 or 6,000.
      num_samples: unlabelled samples drawn by key that changes are summed over; all of them if
        None. The paper sums over the candidates.
      outputs: what f_L is. The paper trains with squared loss, so that outputs are near the
        one-hot labels: ``"probs"``, ours, are that for a head trained with cross-entropy (y' - p is
        its gradient, too); ``"logits"`` takes equation 11 by the letter.
      baseline: what outputs are compared with: ``"network"`` is f_L, the paper's; ``"linearized"``
        is f, so that only what (x', y') changes counts.
      ridge: r, above 0, as a share of the mean of K[x, x] over the labelled samples. The paper has
        none, its code 1e-5 and more as labels come in; a linear head with more labels than features
        needs one.
      feature_norm: mean row norm at which features enter the kernel, by one factor that the first
        layer makes up for; what the head was trained at is right. None takes them as they are.
      chunk_size: pool rows compared with the candidates at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32, largest score first, ties to the lower index, and the Info. Holds
      ``O((chunk_size + l) · (m + l) + n · d)`` numbers for ``m`` candidates and ``l`` labelled
      samples; ``sequential``: ``O((n + m) · m)`` more.

    Raises:
      ValueError: a malformed pool or option, one without what is read, more samples than are left,
        or a ridge under the rounding of the labelled samples' kernel.
    """
    _check_options(sequential, outputs, baseline)
    check_number(ridge, "ridge", least=0, above=True)
    if feature_norm is not None:
        check_number(feature_norm, "feature_norm", least=0, above=True)
    check_positive(chunk_size, "chunk_size")
    for name, count in (("num_candidates", num_candidates), ("num_samples", num_samples)):
        if count is not None:
            check_positive(count, name)
    pool = check_pool(pool, batch_size, {"features", *_needs(outputs)}, "lookahead")
    x, layers, outputs_ = _network(pool, outputs, feature_norm, chunk_size)
    free, labeled = unlabeled(pool), np.asarray(pool.labeled)
    candidate_key, sample_key = jax.random.split(key)
    least = None if num_candidates is None else max(num_candidates, batch_size)
    candidates, samples = _draw(candidate_key, free, least), _draw(sample_key, free, num_samples)
    supposed = outputs_[candidates].argmax(axis=1)
    model, r = _model(layers, x, outputs_, pool, candidates, supposed, ridge)
    if baseline == "linearized":
        model = model._replace(weights=jnp.zeros_like(model.weights))
    padded = padded_rows(labeled)
    blocks = _columns(layers, x, np.concatenate([candidates, padded]), samples, chunk_size)
    if sequential:
        positions, scores = _one_by_one(
            model, blocks, layers, x, candidates, samples, r, batch_size
        )
    else:
        total = np.zeros(len(candidates))
        for kernel, weights in blocks:
            total += np.asarray(_changes(model, *_residual(model, kernel), weights), np.float64)
        positions = np.argsort(-total, kind="stable")[:batch_size]
        scores = total[positions]
    info = LookaheadInfo(
        jnp.asarray(scores, jnp.float32),
        jnp.asarray(supposed[positions], jnp.int32),
        len(candidates),
    )
    return jnp.asarray(candidates[positions], jnp.int32), info


def _needs(outputs: str = "probs", **_others: Any) -> frozenset[str]:
    """Say which fields of the pool the options read."""
    return frozenset({"trained", "probs"} if outputs == "probs" else {"trained"})


def _check_options(sequential: bool, outputs: str, baseline: str) -> None:
    if not isinstance(sequential, bool | np.bool_):
        raise ValueError(f"sequential: expected True or False, found {sequential!r}")
    check_choice(outputs, "outputs", Outputs)
    check_choice(baseline, "baseline", Baseline)


def _draw(key: jax.Array, rows: np.ndarray, count: int | None) -> np.ndarray:
    """Draw some of the rows, ascending."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(rows[np.asarray(jax.random.permutation(key, len(rows)))[:count]])


def _network(
    pool: Pool, outputs: Outputs, feature_norm: float | None, chunk_size: int
) -> tuple[jax.Array, tuple[DenseLayer, ...], np.ndarray]:
    """Features and layers for the kernel, and the network's outputs ``[n, c]``."""
    trained = cast(Any, pool.trained)
    layers = head_layers(trained.head, trained.variables)
    shape = np.shape(layers[0].kernel)[0], np.shape(layers[-1].kernel)[1]
    if shape != (np.shape(pool.features)[1], pool.num_classes):
        raise ValueError(
            f"pool.trained: expected a head from {np.shape(pool.features)[1]} features to "
            f"{pool.num_classes} classes, found from {shape[0]} to {shape[1]}"
        )
    x = jnp.asarray(pool.features, jnp.float32)
    if outputs == "probs":
        found = np.asarray(pool.probs)
    else:
        apply = functools.partial(apply_layers, layers)
        found = np.asarray(map_rows(apply, x, chunk_size=chunk_size))
    if feature_norm is not None:
        scale = range_scale(x)
        x = x * scale
        norm = jnp.mean(jnp.linalg.norm(x, axis=1))
        factor = jnp.where(norm > 0, feature_norm / jnp.where(norm > 0, norm, 1), 1)
        x = x * factor
        layers = (layers[0]._replace(kernel=layers[0].kernel / scale / factor), *layers[1:])
    return x, layers, found


def _model(
    layers: tuple[DenseLayer, ...],
    x: jax.Array,
    outputs: np.ndarray,
    pool: Pool,
    candidates: np.ndarray,
    supposed: np.ndarray,
    ridge: float,
) -> tuple[_Model, jax.Array]:
    """Fit the labelled samples, in float64 on the host, and see what it gives the candidates."""
    labeled = np.asarray(pool.labeled)
    count, padded = len(labeled), padded_rows(labeled)
    diagonal = _diagonal(layers, x[candidates])
    whiten = np.zeros((len(padded), len(padded)))
    weights = np.zeros((len(padded), outputs.shape[1]))
    r = ridge * float(np.mean(diagonal))
    if count:
        block = np.asarray(dense_ntk(layers, x[padded]), np.float64)[:count, :count]
        block = (block + block.T) / 2
        r = ridge * float(np.trace(block)) / count
        try:
            lower = np.linalg.cholesky(block + r * np.eye(count))
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"ridge: expected enough for the labelled samples' kernel, whose float32 rounding "
                f"outweighs it, found {ridge!r}"
            ) from error
        whiten[:count, :count] = np.linalg.inv(lower).T
        gap = np.eye(outputs.shape[1])[np.asarray(pool.labels)] - outputs[labeled]
        weights[:count] = whiten[:count, :count] @ (whiten[:count, :count].T @ gap)
    kernel = dense_ntk(layers, x[candidates], x[padded])
    columns = jnp.matmul(kernel, jnp.asarray(whiten, jnp.float32), precision=_PRECISION)
    given = jnp.matmul(kernel, jnp.asarray(weights, jnp.float32), precision=_PRECISION)
    gaps = np.eye(outputs.shape[1])[supposed] - outputs[candidates]
    pivots = pivot(diagonal - jnp.sum(columns**2, axis=1), jnp.float32(r))
    model = _Model(
        jnp.asarray(whiten, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        columns,
        pivots,
        jnp.asarray(gaps, jnp.float32) - given,
    )
    return model, jnp.float32(r)


def _diagonal(layers: tuple[DenseLayer, ...], x: jax.Array) -> jax.Array:
    """K[x, x] of each row."""
    size = min(_DIAGONAL_BLOCK, len(x))

    def block(rows: jax.Array) -> jax.Array:
        return jnp.diagonal(dense_ntk(layers, rows))

    return cast(jax.Array, map_rows(block, x, chunk_size=size))


def _columns(
    layers: tuple[DenseLayer, ...],
    x: jax.Array,
    columns: np.ndarray,
    samples: np.ndarray,
    chunk_size: int,
) -> Any:
    """Yield the kernel of samples and ``columns`` in equal chunks, with weights 0 for padding."""
    right = x[columns]
    size = -(-len(samples) // -(-len(samples) // chunk_size))
    for start in range(0, len(samples), size):
        rows = samples[start : start + size]
        weights = (np.arange(size) < len(rows)).astype(np.float32)
        yield dense_ntk(layers, x[np.resize(rows, size)], right), jnp.asarray(weights)


@jax.jit
@jax.default_matmul_precision("highest")
def _residual(model: _Model, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R ``[s, m]`` and what the labelled samples change ``[s, c]``, of kernel ``[s, m + l]``."""
    count = len(model.columns)
    among, labeled = kernel[:, :count], kernel[:, count:]
    return among - (labeled @ model.whiten) @ model.columns.T, labeled @ model.weights


@jax.jit
@jax.default_matmul_precision("highest")
def _changes(
    model: _Model, residual: jax.Array, before: jax.Array, weights: jax.Array
) -> jax.Array:
    """Sum over samples how far each candidate moves their outputs: ``[m]``."""
    gain = residual / model.pivots
    squared = jnp.sum(before**2, axis=1)[:, None] + 2 * gain * (before @ model.gaps.T)
    squared = squared + gain**2 * jnp.sum(model.gaps**2, axis=1)
    return weights @ jnp.sqrt(jnp.maximum(squared, 0))


def _one_by_one(
    model: _Model,
    blocks: Any,
    layers: tuple[DenseLayer, ...],
    x: jax.Array,
    candidates: np.ndarray,
    samples: np.ndarray,
    ridge: jax.Array,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick sequentially: positions among the candidates, and scores."""
    parts = [(*_residual(model, kernel), weights) for kernel, weights in blocks]
    residual, before, weights = (jnp.stack(part) for part in zip(*parts, strict=True))
    among = dense_ntk(layers, x[candidates])
    among = among - jnp.matmul(model.columns, model.columns.T, precision=_PRECISION)
    # Where among the samples each candidate is; past their end if it is not.
    place = np.searchsorted(samples, candidates)
    found = samples[np.minimum(place, len(samples) - 1)] == candidates
    place = np.where(found, place, weights.size)
    picks, scores = _pick(
        model, residual, before, weights, among, jnp.asarray(place), ridge, batch_size=batch_size
    )
    return np.asarray(picks), np.asarray(scores)


@functools.partial(jax.jit, static_argnames="batch_size")
def _pick(
    model: _Model,
    residual: jax.Array,
    before: jax.Array,
    weights: jax.Array,
    among: jax.Array,
    place: jax.Array,
    ridge: jax.Array,
    *,
    batch_size: int,
) -> tuple[jax.Array, jax.Array]:
    def body(i: jax.Array, carry: tuple) -> tuple:
        model, residual, weights, among, open_, picks, scores = carry
        parts = jax.lax.map(lambda part: _changes(model, *part), (residual, before, weights))
        found = jnp.where(open_, jnp.sum(parts, axis=0), -jnp.inf)
        best = jnp.argmax(found).astype(jnp.int32)
        picks, scores = picks.at[i].set(best), scores.at[i].set(found[best])
        own = among[best] / model.pivots[best]
        residual = residual - residual[:, :, best, None] * own
        among = among - among[best][:, None] * own
        model = model._replace(
            gaps=model.gaps - own[:, None] * model.gaps[best],
            pivots=pivot(jnp.diagonal(among), ridge),
        )
        # What is picked is no longer among the unlabelled samples.
        weights = weights.ravel().at[place[best]].set(0, mode="drop").reshape(weights.shape)
        return model, residual, weights, among, open_.at[best].set(False), picks, scores

    empty = (jnp.ones(len(place), bool), jnp.zeros(batch_size, jnp.int32), jnp.zeros(batch_size))
    start = (model, residual, weights, among, *empty)
    *_, picks, scores = jax.lax.fori_loop(0, batch_size, body, start)
    return picks, scores


LOOKAHEAD = Strategy("lookahead", select_lookahead, needs=_needs(), needs_for=_needs)
