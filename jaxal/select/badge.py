"""BADGE selection (arXiv 1906.03671): k-means++ sampling of the last layer's gradients."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxal.checks import check_choice, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows
from jaxal.scaling import range_scale
from jaxal.select.base import Pool, Strategy, check_pool, free_mask

__all__ = ["BADGE", "BadgeInfo", "gradient_factors", "select_badge"]

First = Literal["largest", "uniform"]

# A squared distance below this part of the squared norms is rounding noise in float32.
_NOISE = 2e-6
_GROUP = 512  # rows that a draw decides between at a time


class BadgeInfo(NamedTuple):
    """How long the gradients of the chosen samples are, and how far apart."""

    norms: jax.Array  # [batch_size] float32, of each pick's gradient
    distances: jax.Array  # [batch_size] float32, to the nearest earlier pick; the first: its norm


@jax.jit
def gradient_factors(probs: jax.Array) -> jax.Array:
    """Compute the factor ``a = p − onehot(argmax p)`` of the gradients ``g = a ⊗ h``.

    Args:
      probs: ``[n, c]``; among equal largest ones the first class is the hypothesised label.

    Returns:
      ``[n, c]`` in [-1, 1].
    """
    hypothesised = jnp.argmax(probs, axis=1, keepdims=True)
    return probs - (jnp.arange(probs.shape[1]) == hypothesised)


def select_badge(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    first: First = "largest",
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, BadgeInfo]:
    """Choose samples whose gradients are long and far apart, by k-means++ sampling.

    A sample's gradient is that of the cross-entropy with respect to the last layer's weights, had
    it the label that the head predicts: ``g = (p − onehot(argmax p)) ⊗ h`` (equation 1). Only
    unlabelled samples are drawn, and only picks are centres: each pick after the first is drawn
    with a probability proportional to the squared distance of its g to the nearest picked one. As
    in the paper and its code, a bias of the last layer is no part of the gradient.

    The paper's k-means++ draws the first pick uniformly (``first="uniform"``); its authors' code
    takes the longest gradient instead, and so do we unless told otherwise. Ours: a picked sample is
    not drawn again, and where all samples left lie on picked ones, as duplicates do, they are drawn
    uniformly.

    The gradients ``[n, c · h]`` are never formed: with ``g = a ⊗ h``, ``|g_i − g_j|²`` is
    ``|a_i|²|h_i|² + |a_j|²|h_j|² − 2 (a_i · a_j)(h_i · h_j)``, one pass over a and h a pick.
    Distances below float32's rounding of the norms count as zero.

    Args:
      key: decides the choice.
      pool: with ``probs`` and ``hidden``.
      batch_size: how many.
      first: how the first pick is chosen.
      chunk_size: rows whose probabilities are turned into factors at once; changes no result.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, the longest gradient's ties to the
      lower index, and their norms and distances. Holds ``O(n · (c + h))``.

    Raises:
      ValueError: a malformed pool or option, one without ``probs`` or ``hidden``, or more samples
        than are left.
    """
    check_choice(first, "first", First)
    check_positive(chunk_size, "chunk_size")
    pool = check_pool(pool, batch_size, ("probs", "hidden"), "badge")
    factors = map_rows(gradient_factors, pool.probs, chunk_size=chunk_size, dtype=jnp.float32)  # type: ignore[arg-type]
    hidden = jnp.asarray(pool.hidden, jnp.float32)
    scales = range_scale(factors), range_scale(hidden)
    free = free_mask(pool)
    picks, norms, distances = _plus_plus(
        key, factors * scales[0], hidden * scales[1], free, batch_size=batch_size, first=first
    )
    return picks, BadgeInfo(*(x / scales[0] / scales[1] for x in (norms, distances)))


@functools.partial(jax.jit, static_argnames=("batch_size", "first"))
def _plus_plus(
    key: jax.Array, a: jax.Array, h: jax.Array, free: jax.Array, *, batch_size: int, first: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sample ``batch_size`` of the ``free [n]`` rows: rows, norms and distances."""
    squares = jnp.sum(a**2, axis=1) * jnp.sum(h**2, axis=1)

    def to_row(row: jax.Array) -> jax.Array:
        """Squared distances ``[n]`` of all gradients to that of one row."""
        dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        both = squares + squares[row]
        found = both - 2 * dot(a, a[row]) * dot(h, h[row])
        return jnp.where(found > _NOISE * both, found, 0)

    def pick(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        closest, free, picks, distances = carry
        row = _draw(jax.random.fold_in(key, i), jnp.where(free, closest, 0), free)
        picks, distances = picks.at[i].set(row), distances.at[i].set(closest[row])
        return jnp.minimum(closest, to_row(row)), free.at[row].set(False), picks, distances

    if first == "largest":
        row = jnp.argmax(jnp.where(free, squares, -1))
    else:
        row = _draw(jax.random.fold_in(key, 0), jnp.zeros_like(squares), free)
    picks = jnp.zeros(batch_size, jnp.int32).at[0].set(row)
    distances = jnp.zeros(batch_size, squares.dtype).at[0].set(squares[row])
    carry = (to_row(row), free.at[row].set(False), picks, distances)
    _, _, picks, distances = jax.lax.fori_loop(1, batch_size, pick, carry)
    return picks, jnp.sqrt(squares[picks]), jnp.sqrt(distances)


def _draw(key: jax.Array, mass: jax.Array, free: jax.Array) -> jax.Array:
    """Draw one row by its mass, or, where there is none, any that is free.

    First a group of rows is drawn and then one of the group, each by Gumbel's maximum: random
    numbers for all rows would cost more than their distances.
    """
    mass = jnp.where(jnp.max(mass) > 0, mass, free)
    groups = jnp.pad(mass, (0, -len(mass) % _GROUP)).reshape(-1, _GROUP)
    # Gumbel's largest values must be told apart in pools of millions, hence "high".
    noise = jax.random.gumbel(key, (len(groups) + _GROUP,), jnp.float32, mode="high")
    group = jnp.argmax(jnp.log(jnp.sum(groups, axis=1)) + noise[_GROUP:])
    member = jnp.argmax(jnp.log(groups[group]) + noise[:_GROUP])
    return (group * _GROUP + member).astype(jnp.int32)


BADGE = Strategy("badge", select_badge, needs=frozenset({"probs", "hidden"}))
