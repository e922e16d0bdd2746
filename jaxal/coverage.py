"""Choose samples, one at a time, that add most to a weighted coverage of the pool.

The coverage of a pool by chosen samples S is ``sum_x w(x) max_{s in S} k(x, s)`` for a kernel k
between 0 and 1 with k(x, x) = 1: the generalized coverage of "Generalized Coverage for More Robust
Low-Budget Active Learning" (arXiv 2407.12212), the uncertainty coverage of "Uncertainty Herding"
(arXiv 2412.20644) where w is an uncertainty, and the covered share of "Active Learning Through a
Covering Lens" (ProbCover, arXiv 2205.11320) where k is a top-hat. It is monotone and submodular, so
a candidate's gain only falls while others are chosen. That makes the greedy choice exact without
looking at all candidates each time, which is ours; the papers hold the pool x pool kernel.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import (
    check_batch_size,
    check_choice,
    check_features,
    check_finite,
    check_indices,
    check_positive,
    check_weights,
)
from jaxal.chunking import map_rows, padded_rows
from jaxal.unit_distances import as_tiles, fold_distances, unit_lengths, unit_squared_distances

__all__ = [
    "CHUNK_SIZE",
    "Coverage",
    "Kernel",
    "cover_unlabeled",
    "coverage_by",
    "greedy_coverage",
]

Kernel = Literal["gaussian", "tophat"]

CHUNK_SIZE = 1024
# Rows of the kernel computed at once while picking. A product of fewer rows wastes the processor,
# one of more is spent on candidates that are not needed.
_BLOCK = 32
_CENTRE_BLOCK = 256
# Of what is squared: under it all rows that are not duplicates are equally far away.
_SMALLEST_RADIUS = 1e-30
# What rounding may take off a bound that has been reduced many times, as a share of what it was: of
# sums, and of squared distances that the Gaussian divides by its squared radius.
_SUM_SLACK, _DISTANCE_SLACK = 2.0**-18, 2.0**-21


class Coverage(NamedTuple):
    """Chosen samples and what each added."""

    picks: jax.Array  # [batch_size] int32, in the order they were chosen
    gains: jax.Array  # [batch_size] float32, what each added to the coverage, falling
    evaluations: jax.Array  # int32, gains computed after the first pass


def coverage_by(
    x: jax.Array,
    centres: np.ndarray,
    *,
    kernel: Kernel,
    radius_squared: ArrayLike,
    chunk_size: int = CHUNK_SIZE,
) -> jax.Array:
    """Compute how well each row is covered by some of them.

    Args:
      x: ``[n, d]`` rows of length one or zero.
      centres: ``[l]`` rows that cover, of ``0..n-1``; may be none.
      kernel: see `greedy_coverage`.
      radius_squared: see `greedy_coverage`.
      chunk_size: rows compared at once; changes no result but by rounding.

    Returns:
      ``max_l k(x, l)`` as ``[n]`` float32, 0 without centres. Compiles once a power of two of them.
      Holds ``O(chunk_size · (d + l) + l · d + n)``.

    Raises:
      ValueError: an unknown kernel, a squared radius below 0 or NaN, a chunk size below one, rows
        that are no matrix of finite numbers, or centres that are no rows of it.
    """
    _check_kernel(kernel, radius_squared)
    check_positive(chunk_size, "chunk_size")
    check_features(x, "x")
    centres = check_indices(centres, len(x), "centres", unique=False)
    if len(centres) == 0:
        return jnp.zeros(len(x), jnp.float32)
    padded = padded_rows(centres, multiple=_CENTRE_BLOCK)
    points = x[jnp.asarray(padded.reshape(-1, _CENTRE_BLOCK))]
    nearest = map_rows(functools.partial(_to_nearest, points), x, chunk_size=chunk_size)
    return _similarity(nearest, kernel, _as_radius(radius_squared))


def greedy_coverage(
    x: jax.Array,
    covered: jax.Array,
    candidates: ArrayLike,
    *,
    batch_size: int,
    kernel: Kernel,
    radius_squared: ArrayLike,
    weights: ArrayLike | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Coverage:
    """Choose candidates, each the one that adds most to the coverage.

    One pass over all pairs computes all gains. From then on they are upper bounds. A pick computes
    the gains of the candidates with the highest bounds, a block at a time, until the best of them
    is at least every bound that is left. Before each block the bounds of all candidates are brought
    up to date with the rows whose coverage has grown most since. That, too, costs one block of the
    kernel, but a few do, since a pick changes the coverage only of the rows that it is nearest to.

    A tie goes to the lower index. With the top-hat kernel and without weights gains are counts,
    exact below 2^24, and only whether a distance at the radius itself is within it is left to
    rounding. With the Gaussian kernel gains that differ by less than their rounding, about 1e-6 of
    their value for radii above 0.1, may be taken in either order.

    Args:
      x: ``[n, d]`` rows of length one or zero.
      covered: ``[n]`` how well each is covered already, as of `coverage_by`.
      candidates: ``[n]`` bool, which rows may be chosen; at least ``batch_size``.
      batch_size: how many.
      kernel: ``"gaussian"``, exp(-distance^2 / radius^2), or ``"tophat"``, 1 within the radius
        (and at it) and 0 beyond.
      radius_squared: the radius, squared; 0 or more, and what is below 1e-30 counts as that.
      weights: ``[n]`` what each row's coverage counts for, zero or more; default one each.
      chunk_size: side of the square of the kernel that is held at once in the first pass; changes
        no result but by rounding.

    Returns:
      The choice. Holds ``O(chunk_size² + n · d)``. Compiles once for all batch sizes.

    Raises:
      ValueError: rows that are no matrix of finite numbers, ``covered`` or ``candidates`` of
        another length or not finite, fewer candidates than ``batch_size``, an unknown kernel, a
        squared radius below 0 or NaN, weights that are not ``[n]``, finite and non-negative, or a
        chunk size below one.
    """
    _check_kernel(kernel, radius_squared)
    check_positive(chunk_size, "chunk_size")
    n = np.shape(check_features(x, "x"))[0]
    for name, values in (("covered", covered), ("candidates", candidates)):
        if np.shape(values) != (n,):
            raise ValueError(f"{name}: expected shape ({n},), found {np.shape(values)}")
    check_finite(covered, "covered")
    check_batch_size(batch_size, int(np.count_nonzero(candidates)))
    radius_squared = _as_radius(radius_squared)
    slack: ArrayLike = _SUM_SLACK
    if kernel == "gaussian":
        slack = _SUM_SLACK + _DISTANCE_SLACK / radius_squared
    elif weights is None:  # counts are exact
        slack = 0.0
    weights = jnp.asarray(check_weights(weights, n))
    gains = _first_gains(
        as_tiles(x, chunk_size),
        as_tiles(covered, chunk_size),
        as_tiles(weights, chunk_size),
        radius_squared,
        kernel=kernel,
    ).reshape(-1)[:n]
    picks, found, evaluations = _pick(
        x,
        covered,
        weights,
        jnp.where(jnp.asarray(candidates), gains, -jnp.inf),
        radius_squared,
        slack,
        batch_size,
        kernel=kernel,
    )
    return Coverage(picks[:batch_size], found[:batch_size], evaluations)


def cover_unlabeled(
    x: jax.Array,
    labeled: np.ndarray,
    *,
    batch_size: int,
    kernel: Kernel,
    radius_squared: ArrayLike,
    weights: ArrayLike | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Coverage:
    """Choose unlabelled rows, each the one that adds most to what the labelled ones cover.

    Args:
      x: ``[n, d]`` rows of length one or zero.
      labeled: ``[l]`` rows that cover from the start and are not chosen; may be none.
      batch_size: see `greedy_coverage`, as all that follows.
      kernel: its name.
      radius_squared: its radius, squared.
      weights: ``[n]``, or None.
      chunk_size: rows compared at once.

    Returns:
      The choice, as of `greedy_coverage`.

    Raises:
      ValueError: as `greedy_coverage` and `coverage_by`.
    """
    candidates = np.ones(len(x), bool)
    candidates[check_indices(labeled, len(x), "labeled")] = False
    covered = coverage_by(
        x, labeled, kernel=kernel, radius_squared=radius_squared, chunk_size=chunk_size
    )
    return greedy_coverage(
        x,
        covered,
        candidates,
        batch_size=batch_size,
        kernel=kernel,
        radius_squared=radius_squared,
        weights=weights,
        chunk_size=chunk_size,
    )


class _State(NamedTuple):
    """Where the greedy choice stands."""

    covered: jax.Array  # [n], by all that is chosen
    applied: jax.Array  # [n], the coverage that `reduced` knows of
    reduced: jax.Array  # [n], gains given `applied`, but for rounding
    bounds: jax.Array  # [n], gains when last computed, -inf where there is no candidate
    fresh: jax.Array  # [n] bool, whether `bounds` was computed since the last pick
    picks: jax.Array  # [n] int32
    gains: jax.Array  # [n]
    taken: jax.Array  # picks so far
    evaluations: jax.Array


@functools.partial(jax.jit, static_argnames="kernel")
def _pick(
    x: jax.Array,
    covered: jax.Array,
    weights: jax.Array,
    gains: jax.Array,
    radius_squared: jax.Array,
    slack: ArrayLike,
    batch_size: int,
    *,
    kernel: Kernel,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Choose ``batch_size`` of the rows whose ``gains [n]`` are not -inf.

    ``slack`` is the share of its first value by which a bound may have been reduced too much.
    """
    n = len(x)
    block = min(_BLOCK, n)
    lengths = unit_lengths(x)
    slack = jnp.where(gains > 0, gains * slack, 0)

    def similarity(rows: jax.Array) -> jax.Array:
        squared = unit_squared_distances(x[rows], x, (lengths[rows], lengths))
        return _similarity(squared, kernel, radius_squared)

    def evaluate(state: _State) -> _State:
        """Compute the gains of the stale candidates with the highest bounds; take the best."""
        bounds = jnp.minimum(state.bounds, jnp.maximum(state.reduced + slack, 0))
        _, rows = jax.lax.top_k(jnp.where(state.fresh, -jnp.inf, bounds), block)
        kernel_rows = similarity(rows)
        found = jnp.maximum(kernel_rows - state.covered, 0) @ weights
        found = jnp.where(state.bounds[rows] == -jnp.inf, -jnp.inf, found)
        fresh = state.fresh.at[rows].set(True)
        state = state._replace(
            bounds=state.bounds.at[rows].set(found),
            fresh=fresh,
            evaluations=state.evaluations + block,
        )
        known = jnp.where(fresh, state.bounds, -jnp.inf)
        best = jnp.argmax(known).astype(jnp.int32)
        left = jnp.where(fresh, -jnp.inf, bounds)
        rival = jnp.argmax(left)
        wins = (known[best] > left[rival]) | ((known[best] == left[rival]) & (best < rival))
        return jax.lax.cond(wins, functools.partial(take, best), keep, state)

    def take(best: jax.Array, state: _State) -> _State:
        covered = jnp.maximum(state.covered, similarity(best[None])[0])
        return state._replace(
            covered=covered,
            bounds=state.bounds.at[best].set(-jnp.inf),
            fresh=jnp.zeros(n, bool),
            picks=state.picks.at[state.taken].set(best),
            gains=state.gains.at[state.taken].set(state.bounds[best]),
            taken=state.taken + 1,
        )

    def update(state: _State) -> _State:
        """Bring the bounds up to date with the rows whose coverage has grown most."""
        grown = weights * (state.covered - state.applied)
        return jax.lax.cond(jnp.max(grown) > 0, functools.partial(reduce, grown), keep, state)

    def reduce(grown: jax.Array, state: _State) -> _State:
        _, rows = jax.lax.top_k(grown, block)
        kernel_rows = similarity(rows)
        before = jnp.maximum(kernel_rows - state.applied[rows, None], 0)
        after = jnp.maximum(kernel_rows - state.covered[rows, None], 0)
        return state._replace(
            reduced=state.reduced - weights[rows] @ (before - after),
            applied=state.applied.at[rows].set(state.covered[rows]),
        )

    def keep(state: _State) -> _State:
        return state

    zero = jnp.zeros((), jnp.int32)
    state = _State(
        covered=covered,
        applied=covered,
        reduced=gains,
        bounds=gains,
        fresh=jnp.zeros(n, bool),
        picks=jnp.zeros(n, jnp.int32),
        gains=jnp.zeros(n, jnp.float32),
        taken=zero,
        evaluations=zero,
    )
    state = jax.lax.while_loop(
        lambda state: state.taken < batch_size, lambda state: evaluate(update(state)), state
    )
    return state.picks, state.gains, state.evaluations


@functools.partial(jax.jit, static_argnames="kernel")
def _first_gains(
    x: jax.Array,
    covered: jax.Array,
    weights: jax.Array,
    radius_squared: jax.Array,
    *,
    kernel: Kernel,
) -> jax.Array:
    """What each row of ``x [tiles, tile, d]`` would add to the coverage; padding weighs nothing."""

    def add(a: jax.Array, b: jax.Array, squared: jax.Array, gains: jax.Array) -> jax.Array:
        found = _similarity(squared, kernel, radius_squared)
        gains = gains.at[a].add(jnp.maximum(found - covered[b], 0) @ weights[b])
        other = jnp.where(a == b, 0, weights[a]) @ jnp.maximum(found - covered[a][:, None], 0)
        return gains.at[b].add(other)

    return fold_distances(add, x, jnp.zeros_like(covered))


def _check_kernel(kernel: str, radius_squared: ArrayLike) -> None:
    check_choice(kernel, "kernel", Kernel)
    if not float(radius_squared) >= 0:  # type: ignore[arg-type]
        raise ValueError(f"radius_squared: expected 0 or more, found {radius_squared}")


@jax.jit
def _to_nearest(centres: jax.Array, rows: jax.Array) -> jax.Array:
    """Square the distance of ``rows [n, d]`` to the nearest of ``[blocks, block, d]``."""
    nearest = jax.lax.map(lambda block: unit_squared_distances(rows, block).min(1), centres)
    return nearest.min(0)


def _as_radius(radius_squared: ArrayLike) -> jax.Array:
    """Keep the squared radius where no distance divided by it is NaN: duplicates stay at 0."""
    return jnp.maximum(jnp.asarray(radius_squared, jnp.float32), _SMALLEST_RADIUS)


def _similarity(squared: jax.Array, kernel: Kernel, radius_squared: jax.Array) -> jax.Array:
    """Apply the kernel to squared distances."""
    if kernel == "tophat":
        return (squared <= radius_squared).astype(jnp.float32)
    return jnp.exp(-squared / radius_squared)
