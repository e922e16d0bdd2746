"""CoreSet selection (arXiv 1708.00489): k-centre greedy, farthest first from the labelled set."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxal.checks import check_choice, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows, padded_rows
from jaxal.scaling import range_scale
from jaxal.select.base import Pool, Strategy, check_pool

__all__ = ["CORESET", "CORESET_HIDDEN", "CoresetInfo", "select_coreset"]

Space = Literal["features", "hidden"]

_CENTRE_BLOCK = 256
# Pool rows to a block. On CPUs XLA takes three times as long for the distances of the rows of a
# large [n, d] as for those of [blocks, block, d].
_ROW_BLOCK = 256


class CoresetInfo(NamedTuple):
    """How far the chosen samples were."""

    distances: jax.Array  # [batch_size] float32, each pick's to the nearest labelled or picked one


def select_coreset(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    space: Space = "features",
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, CoresetInfo]:
    """Choose, one at a time, the sample farthest from all that are labelled or chosen.

    With nothing labelled the first pick is the sample nearest the mean of the pool; that start is
    ours, the paper draws it at random.

    Args:
      key: unused; the choice is deterministic.
      pool: features, and ``hidden`` where ``space`` says so.
      batch_size: how many.
      space: where Euclidean distances are taken.
      chunk_size: rows compared with the labelled ones at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, and their
      distances (the first of a pool without labels: to the mean). Holds ``[n, d]`` in float32.

    Raises:
      ValueError: a malformed pool or option, or more samples than are left.
    """
    del key
    check_choice(space, "space", Space)
    check_positive(chunk_size, "chunk_size")
    pool = check_pool(pool, batch_size, (space,), "coreset")
    labeled = np.asarray(pool.labeled)
    # Distances do not see the mean, and without it float32 products cancel less.
    x = jnp.asarray(getattr(pool, space), jnp.float32)
    scale = range_scale(x)
    x = _centred(x * scale)
    if len(labeled):
        centres = _padded_rows(x, labeled)
        nearest = map_rows(functools.partial(_to_nearest, centres), x, chunk_size=chunk_size)
        nearest = jnp.where(_marked(labeled, x.shape[0]), -jnp.inf, nearest)
        picks, squared = _farthest_first(_in_blocks(x), nearest, batch_size=batch_size)
    else:
        first = jnp.argmin(jnp.sum(x**2, axis=1)).astype(jnp.int32)
        nearest = jnp.sum((x - x[first]) ** 2, axis=1).at[first].set(-jnp.inf)
        picks, squared = _farthest_first(_in_blocks(x), nearest, batch_size=batch_size - 1)
        picks = jnp.concatenate([first[None], picks])
        squared = jnp.concatenate([jnp.sum(x[first] ** 2)[None], squared])
    return picks, CoresetInfo(jnp.sqrt(squared) / scale)


@jax.jit
def _centred(x: jax.Array) -> jax.Array:
    return x - jnp.mean(x, axis=0)


def _padded_rows(x: jax.Array, rows: np.ndarray) -> jax.Array:
    """Take rows as ``[blocks, block, d]``, repeating the first up to a power of two of blocks."""
    padded = padded_rows(rows, multiple=_CENTRE_BLOCK)
    return x[jnp.asarray(padded.reshape(-1, _CENTRE_BLOCK))]


def _marked(rows: np.ndarray, n: int) -> np.ndarray:
    marked = np.zeros(n, bool)
    marked[rows] = True
    return marked


@jax.jit
def _to_nearest(centres: jax.Array, x: jax.Array) -> jax.Array:
    """Squared distance of each row of ``x [n, d]`` to the nearest of ``[blocks, block, d]``."""

    def block(centres: jax.Array) -> tuple[jax.Array, jax.Array]:
        products = jnp.matmul(x, centres.T, precision=jax.lax.Precision.HIGHEST)
        scores = jnp.sum(centres**2, axis=1) - 2 * products
        return jnp.min(scores, axis=1), jnp.argmin(scores, axis=1)

    scores, rows = jax.lax.map(block, centres)
    best = jnp.argmin(scores, axis=0)
    # Products find the nearest; the difference to it has all its digits, and is 0 for a copy.
    return jnp.sum((x - centres[best, rows[best, jnp.arange(len(x))]]) ** 2, axis=1)


@jax.jit
def _in_blocks(x: jax.Array) -> jax.Array:
    """Cut ``x [n, d]`` in ``[blocks, block, d]``; the last is filled up with zeros."""
    padded = jnp.pad(x, ((0, -len(x) % _ROW_BLOCK), (0, 0)))
    return padded.reshape(-1, _ROW_BLOCK, x.shape[1])


@functools.partial(jax.jit, static_argnames="batch_size")
def _farthest_first(
    blocks: jax.Array, nearest: jax.Array, *, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Pick ``batch_size`` rows, farthest first; ``nearest [n]`` is -inf where none is wanted."""
    size = blocks.shape[1]
    empty = (jnp.zeros(batch_size, jnp.int32), jnp.zeros(batch_size, blocks.dtype))
    if batch_size == 0:
        return empty

    def pick(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        nearest, picks, squared = carry
        best = jnp.argmax(nearest).astype(jnp.int32)
        picks, squared = picks.at[i].set(best), squared.at[i].set(nearest[best])
        to_best = jnp.sum((blocks - blocks[best // size, best % size]) ** 2, axis=2)
        return jnp.minimum(nearest, to_best.reshape(-1)).at[best].set(-jnp.inf), picks, squared

    # What fills up the last block is not wanted either.
    nearest = jnp.pad(nearest, (0, -len(nearest) % size), constant_values=-jnp.inf)
    _, picks, squared = jax.lax.fori_loop(0, batch_size, pick, (nearest, *empty))
    return picks, squared


CORESET = Strategy("coreset", select_coreset, cold_start=True)
CORESET_HIDDEN = Strategy(
    "coreset-hidden",
    functools.partial(select_coreset, space="hidden"),
    needs=frozenset({"hidden"}),
)
