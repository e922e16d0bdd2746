"""The parts every k-means here is made of: start, sweep, repair, inertia.

All take the pool as `Rows`, cut in padded chunks, and are meant to run under `jax.jit`. They hold
``O(chunk · k + n · d)`` numbers. Distances come from ``|x|² − 2 x·c + |c|²`` on centred features,
so that a common offset does not cancel the digits; the inertia comes from the differences.
`Rows` also scale features whose squares float32 could not hold; `in_units_of_features` undoes both.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxal.scaling import range_scale

__all__ = ["FAR", "KMeans", "Rows", "as_rows", "in_units_of_features", "lloyd", "plus_plus"]

_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

# Sampling groups: the draw costs O(n / _GROUP + _GROUP) random numbers in place of O(n).
_GROUP = 512
# A squared distance below this part of the squared norms is rounding noise in float32.
_NOISE = 2e-6
# Where the centres lie that pad a number of clusters to one that is compiled for: nearest to none.
FAR = 1e15


class KMeans(NamedTuple):
    """A clustering."""

    centers: jax.Array  # [k, d] float32
    labels: jax.Array  # [n] int32, 0..k-1
    inertia: jax.Array  # () float32, weighted sum of squared distances to the own centre
    num_iterations: jax.Array  # () int32


class Rows(NamedTuple):
    """Centred rows in padded chunks."""

    x: jax.Array  # [chunks, chunk, d] float32, features times scale minus offset; padding is zero
    weights: jax.Array  # [n] float32
    offset: jax.Array  # [d] float32
    variance: jax.Array  # () float32, mean over the features
    scale: jax.Array  # () float32, a power of two, mostly 1


@functools.partial(jax.jit, static_argnames="chunk_size")
def as_rows(x: ArrayLike, weights: jax.Array, *, chunk_size: int) -> Rows:
    """Centre ``x [n, d]`` and cut it into equal chunks of at most ``chunk_size`` rows."""
    scale = range_scale(x)
    x = jnp.multiply(jnp.asarray(x, jnp.float32), scale)
    n, dim = x.shape
    total = weights.sum()
    offset = (weights @ x) / total
    x = x - offset
    variance = (weights @ (x * x)).mean() / total
    chunks = -(-n // chunk_size)
    size = -(-n // chunks)
    x = jnp.pad(x, ((0, chunks * size - n), (0, 0))).reshape(chunks, size, dim)
    return Rows(x, weights, offset, variance, scale)


@jax.jit
def in_units_of_features(rows: Rows, found: KMeans) -> KMeans:
    """Move a clustering of rows back to where the features are."""
    return found._replace(
        centers=(found.centers + rows.offset) / rows.scale,
        inertia=found.inertia / rows.scale / rows.scale,
    )


def plus_plus(
    key: jax.Array,
    rows: Rows,
    centers: jax.Array,
    given: ArrayLike,
    weights: jax.Array,
    num_clusters: ArrayLike | None = None,
) -> jax.Array:
    """Choose centres by greedy k-means++ (Arthur and Vassilvitskii, 2007; trials as scikit-learn).

    Args:
      key: PRNG key.
      rows: the pool.
      centers: ``[k, d]`` centred; the first ``given`` are kept, the others are replaced.
      given: how many centres there are already.
      weights: ``[n]`` what each sample may be drawn and counts by; zero for never.
      num_clusters: how many centres there shall be; the others of the ``k`` are left alone.

    Returns:
      ``[k, d]`` centres.
    """
    capacity = centers.shape[0]
    num_clusters = capacity if num_clusters is None else num_clusters
    trials = 2 + int(math.log(capacity))
    flat = rows.x.reshape(-1, rows.x.shape[-1])
    weight_chunks = _in_chunks(weights, rows, 0)
    norms = (rows.x**2).sum(-1)

    def to_given(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        squared = _squared_distances(*chunk, centers)
        return jnp.where(jnp.arange(capacity)[:, None] < given, squared, jnp.inf).min(0)

    def add(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centers, closest = state
        drawn = _draw(
            jax.random.fold_in(key, i), closest.reshape(-1)[: len(weights)], weights, trials
        )
        candidates = flat[drawn]

        def try_all(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            x, norm, weight, closest = chunk
            after = jnp.minimum(closest, _squared_distances(x, norm, candidates))
            return after, (after * weight).sum(1)

        after, potentials = lax.map(try_all, (rows.x, norms, weight_chunks, closest))
        # Nothing to be greedy about before there is a first centre.
        best = jnp.where(i == 0, 0, jnp.argmin(potentials.sum(0)))
        return centers.at[i].set(candidates[best]), after[:, best]

    if isinstance(given, int) and given == 0:
        # Known while compiling, which would otherwise spend its time on folding these constants.
        closest = jnp.full_like(norms, jnp.inf)
    else:
        closest = lax.map(to_given, (rows.x, norms))
    return lax.fori_loop(given, num_clusters, add, (centers, closest))[0]


def lloyd(
    rows: Rows,
    centers: jax.Array,
    forced: jax.Array | None = None,
    *,
    max_iterations: ArrayLike,
    tolerance: ArrayLike,
    num_clusters: ArrayLike | None = None,
) -> KMeans:
    """Assign and average until nothing changes.

    Stops when no label changes, or the centres' squared shift is at most ``tolerance`` times the
    features' mean variance, or after ``max_iterations``. A cluster that loses all its samples
    moves to the sample farthest from its own centre.

    Args:
      rows: the pool.
      centers: ``[k, d]`` centred, where to start.
      forced: ``[n]`` int32 the cluster a sample is bound to, or -1; ``None`` for no such sample.
      max_iterations: most sweeps.
      tolerance: see above.
      num_clusters: how many of the centres are in use, by default all. The others must be `FAR`.

    Returns:
      The clustering, its centres and inertia in the units of the rows; its labels are those nearest
      to its centres, or forced.
    """
    weights = _in_chunks(rows.weights, rows, 0)
    bound = None if forced is None else _in_chunks(forced, rows, -1)
    limit = jnp.float32(tolerance) * rows.variance
    in_use = jnp.arange(len(centers)) < (len(centers) if num_clusters is None else num_clusters)

    def go_on(state: _State) -> jax.Array:
        _, _, iteration, done = state
        return ~done & (iteration < max_iterations)

    def step(state: _State) -> _State:
        centers, before, iteration, _ = state
        labels, sums, mass = _sweep(rows.x, weights, bound, centers)
        changed = (labels != before).any()

        def repair() -> tuple[jax.Array, jax.Array, jax.Array]:
            moved = _fill_empty(rows, weights, bound, centers, labels, (mass == 0) & in_use)
            return (*_sums(rows.x, weights, moved, len(centers)), (moved != labels).any())

        sums, mass, repaired = lax.cond(
            ((mass == 0) & in_use).any(), repair, lambda: (sums, mass, jnp.array(False))
        )
        after = jnp.where(mass[:, None] > 0, sums / jnp.where(mass > 0, mass, 1)[:, None], centers)
        still = ((after - centers) ** 2).sum() <= limit
        return after, labels, iteration + 1, ~repaired & (still | ~changed)

    start = (centers, jnp.full(rows.x.shape[:2], -1, jnp.int32), jnp.int32(0), jnp.array(False))
    centers, _, iterations, _ = lax.while_loop(go_on, step, start)
    labels, _, _ = _sweep(rows.x, weights, bound, centers)
    inertia = (_own_distances(rows.x, centers, labels) * weights).sum(1).sum()
    labels = labels.reshape(-1)[: len(rows.weights)]
    return KMeans(centers, labels, inertia, iterations)


def _in_chunks(values: jax.Array, rows: Rows, fill: int) -> jax.Array:
    chunks, size, _ = rows.x.shape
    padding = chunks * size - len(values)
    return jnp.pad(values, (0, padding), constant_values=fill).reshape(chunks, size)


def _scores(x: jax.Array, centers: jax.Array) -> jax.Array:
    """Squared distances less ``|x|²``, ``[k, chunk]``: reducing over the first axis is fast."""
    products = jnp.matmul(centers, x.T, precision=lax.Precision.HIGHEST)
    return (centers**2).sum(1)[:, None] - 2 * products


def _squared_distances(x: jax.Array, norms: jax.Array, centers: jax.Array) -> jax.Array:
    squared = _scores(x, centers) + norms
    noise = _NOISE * (norms + (centers**2).sum(1)[:, None])
    return jnp.where(squared > noise, squared, 0)


def _nearest(x: jax.Array, centers: jax.Array, forced: jax.Array | None) -> jax.Array:
    scores = _scores(x, centers)
    # The lowest index that reaches the minimum: two plain reductions, half the time of argmin.
    ids = jnp.arange(len(centers), dtype=jnp.int32)[:, None]
    labels = jnp.where(scores == scores.min(0), ids, len(centers) - 1).min(0)
    return labels if forced is None else jnp.where(forced >= 0, forced, labels)


def _cluster_sums(
    x: jax.Array, weights: jax.Array, labels: jax.Array, num_clusters: int
) -> tuple[jax.Array, jax.Array]:
    def scatter() -> tuple[jax.Array, jax.Array]:
        sums = jax.ops.segment_sum(x * weights[:, None], labels, num_clusters)
        return sums, jax.ops.segment_sum(weights, labels, num_clusters)

    def product() -> tuple[jax.Array, jax.Array]:
        # Accelerators add scattered rows in no fixed order; a product keeps the result repeatable.
        members = jax.nn.one_hot(labels, num_clusters, axis=0, dtype=x.dtype) * weights
        return jnp.matmul(members, x, precision=lax.Precision.HIGHEST), members.sum(1)

    return lax.platform_dependent(cpu=scatter, default=product)


def _sweep(
    x: jax.Array, weights: jax.Array, forced: jax.Array | None, centers: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Assign and add up: labels ``[chunks, chunk]``, sums ``[k, d]``, mass ``[k]``."""
    num_clusters = len(centers)

    def body(
        carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array, jax.Array | None]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        x, weights, forced = chunk
        labels = _nearest(x, centers, forced)
        sums, mass = _cluster_sums(x, weights, labels, num_clusters)
        return (carry[0] + sums, carry[1] + mass), labels

    start = (jnp.zeros_like(centers), jnp.zeros(num_clusters, centers.dtype))
    (sums, mass), labels = lax.scan(body, start, (x, weights, forced))
    return labels, sums, mass


def _sums(
    x: jax.Array, weights: jax.Array, labels: jax.Array, num_clusters: int
) -> tuple[jax.Array, jax.Array]:
    sums, mass = lax.map(
        lambda chunk: _cluster_sums(chunk[0], chunk[1], chunk[2], num_clusters),
        (x, weights, labels),
    )
    return sums.sum(0), mass.sum(0)


def _own_distances(x: jax.Array, centers: jax.Array, labels: jax.Array) -> jax.Array:
    return lax.map(lambda chunk: ((chunk[0] - centers[chunk[1]]) ** 2).sum(1), (x, labels))


def _fill_empty(
    rows: Rows,
    weights: jax.Array,
    forced: jax.Array | None,
    centers: jax.Array,
    labels: jax.Array,
    empty: jax.Array,
) -> jax.Array:
    """Give each empty cluster one of the samples farthest from their centres, if any is away."""
    free = weights > 0 if forced is None else (weights > 0) & (forced < 0)
    distances = jnp.where(free, _own_distances(rows.x, centers, labels), 0).reshape(-1)
    farthest, samples = lax.top_k(distances, min(len(centers), distances.size))
    rank = jnp.cumsum(empty) - 1
    # The mean of equal samples can differ from them by a rounding: that is no distance.
    away = farthest[rank] > _NOISE**2 * (rows.x**2).sum(-1).max()
    target = jnp.where(empty & away, samples[rank], distances.size)
    ids = jnp.arange(len(centers), dtype=jnp.int32)
    return labels.reshape(-1).at[target].set(ids, mode="drop").reshape(labels.shape)


def _draw(key: jax.Array, closest: jax.Array, weights: jax.Array, num: int) -> jax.Array:
    """Draw ``num`` samples by weight times squared distance, first a group and then within it."""
    mass = jnp.where(jnp.isinf(closest), 1, closest) * weights
    # No sample is away from the centres (duplicates): any will do.
    mass = jnp.where(mass.sum() > 0, mass, weights)
    groups = jnp.pad(mass, (0, -len(mass) % _GROUP)).reshape(-1, _GROUP)
    noise = jax.random.gumbel(key, (num, len(groups) + _GROUP))
    group = jnp.argmax(jnp.log(groups.sum(1)) + noise[:, _GROUP:], axis=1)
    member = jnp.argmax(jnp.log(groups[group]) + noise[:, :_GROUP], axis=1)
    return group * _GROUP + member
