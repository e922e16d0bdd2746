"""BAIT selection (arXiv 2106.09675): the batch that lowers the Fisher bound of the last layer most.

With h the last hidden activations and p the probabilities of a sample, its information about the
last layer is I(x) = (diag p - p pᵀ) ⊗ h hᵀ = V Vᵀ. With M the information of what is labelled and
picked, the batch shall minimise tr(M⁻¹ F), F the mean of I over the pool. By the Woodbury identity
adding x lowers it by

    gain(x) = tr((1 + C)⁻¹ D),   C = Vᵀ M⁻¹ V,   D = Vᵀ M⁻¹ F M⁻¹ V

and removing x raises it by tr((1 - C)⁻¹ D). C and D of every sample are kept and change with a pick
by products of one matrix with the pool's activations: no pick looks at M⁻¹ again for every sample.

diag p - p pᵀ = L Lᵀ has rank c - 1 at most and takes no part in the direction (1, ..., 1), so that
V is L ⊗ h with L square of size q = c - 1: nothing is lost, and two classes are as cheap as one.

Picks are made in float32. Its rounding is that of the C and D it starts from; so these are made
afresh, in float64, each time the gains have fallen to an eighth. The removals are made in float64,
on the host: 1 - C cancels where a picked sample is the only one in its direction.
"""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax.linalg import triangular_solve

from jaxal.checks import check_choice, check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows, padded_rows
from jaxal.scaling import range_scale
from jaxal.select.bait_prune import information, prune
from jaxal.select.bait_roots import ROOTS
from jaxal.select.base import Pool, Strategy, check_pool, unlabeled

__all__ = ["BAIT", "BaitInfo", "fisher_form", "select_bait"]

Fisher = Literal["auto", "multiclass", "binary"]
LabeledWeight = Literal["mean", "sum", "code"]

# What "auto" takes for multiclass: rows of M, and entries of all C. M⁻¹ and M⁻¹ F M⁻¹ of 4096 rows
# take 128 MB in float32; C, D and L of 2^26 entries three times 256 MB.
_MOST_ROWS, _MOST_ENTRIES = 4096, 1 << 26
# λ below this part of tr F is beneath what float32 can tell apart and counts as that much.
_LEAST_RIDGE = 1e-5
_FALL = 1 / 8


class BaitInfo(NamedTuple):
    """What the choice rests on."""

    gains: jax.Array  # [batch_size] float32, how much each pick lowered tr(M⁻¹ F) when added
    objective: float  # tr(M⁻¹ F) with the batch
    fisher: str  # "multiclass" or "binary"
    ridge: float  # λ, raised where float32 asks for it


class _State(NamedTuple):
    """What a pick changes."""

    inverse: jax.Array  # [q d, q d] M⁻¹
    bound: jax.Array  # [q d, q d] M⁻¹ F M⁻¹, up to a factor
    inner: jax.Array  # [n, q, q] C
    outer: jax.Array  # [n, q, q] D, up to that factor
    gains: jax.Array  # [n], up to that factor


def select_bait(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    fisher: Fisher = "auto",
    ridge: float = 1.0,
    labeled_weight: LabeledWeight = "mean",
    oversample: float = 2.0,
    num_candidates: int | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, BaitInfo]:
    """Choose greedily twice as many samples as asked for, then drop those that are least missed.

    M starts as λ 1 + the mean of I over the labelled, and grows by the I of each pick (algorithm
    1). F is the mean over the whole pool. Among equally missed samples, ours, the one picked last
    is dropped first.

    Args:
      key: which samples are candidates; unused where all are.
      pool: ``probs``, ``hidden`` and labelled rows.
      batch_size: how many.
      fisher: ``"multiclass"`` is the paper's information. ``"binary"`` stands for it by that of the
        likeliest class against the others, p (1 - p) h hᵀ, of rank one: an approximation, ours, for
        many classes on wide layers. ``"auto"`` is multiclass where (c - 1) d is at most 4096 and
        n (c - 1)² at most 2^26, else binary; the Info says which it was.
      ridge: λ, above 0. Less than 1e-5 tr F counts as that much: below, float32 rounding decides.
      labeled_weight: how the information of the labelled samples counts: ``"mean"`` is the paper's;
        ``"code"`` that of the published code, which multiplies this mean by l / (l + b) and the
        information of picked samples by b / (l + b); ``"sum"``, ours, counts each like a pick.
      oversample: how many times ``batch_size`` samples are picked before some are dropped, 1 or
        more; the paper's is 2.
      num_candidates: unlabelled samples drawn by key that may be picked (ours); all of them if
        None. At least ``batch_size`` are drawn.
      chunk_size: samples updated at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32 in the order they were picked, ties to the lower index, and the
      Info. With q = c - 1 (binary: 1), holds ``O(n (d + q²) + (q d)²)`` numbers; a pick costs
      ``O(n d q² + n q³ + (q d)² q)``.

    Raises:
      ValueError: a malformed pool or option, one without ``probs`` or ``hidden``, probabilities
        below zero, or more samples than are left.
    """
    _check_options(fisher, ridge, labeled_weight, oversample, num_candidates, chunk_size)
    pool = check_pool(pool, batch_size, ("probs", "hidden"), "bait")
    rows, open_ = _candidates(key, pool, batch_size, num_candidates)
    hidden = jnp.asarray(pool.hidden, jnp.float32)
    kind = fisher_form(hidden.shape, pool.num_classes) if fisher == "auto" else fisher
    scale = range_scale(hidden)
    hidden, root = hidden * scale, map_rows(ROOTS[kind], pool.probs, chunk_size=chunk_size)  # type: ignore[arg-type]
    labeled = np.asarray(pool.labeled)
    weights = _weights(len(labeled), batch_size, labeled_weight)
    everyone = _information(hidden, root, chunk_size) / len(hidden)
    start = np.zeros_like(everyone)
    if len(labeled):
        start = weights[0] * _information(*_padded(hidden, root, labeled), chunk_size)
    root = root * math.sqrt(weights[1])
    floor = max(ridge * float(scale) ** 2, _LEAST_RIDGE * float(np.trace(everyone)))
    start[np.diag_indices_from(start)] += floor

    steps = min(math.ceil(oversample * batch_size), int(open_.sum()))
    hidden, root = hidden[rows], root[rows]
    picks, gains = _forward(hidden, root, start, everyone, open_, steps, chunk_size)
    kept, objective = prune(
        start, everyone, np.asarray(hidden[picks]), np.asarray(root[picks]), batch_size
    )
    info = BaitInfo(jnp.asarray(gains[kept]), objective, kind, floor / float(scale) ** 2)
    return jnp.asarray(rows[picks[kept]], jnp.int32), info


def fisher_form(shape: tuple[int, ...], num_classes: int) -> str:
    """Say what ``fisher="auto"`` is for hidden activations of ``shape`` [n, d]."""
    q = max(num_classes - 1, 1)
    fits = q * shape[1] <= _MOST_ROWS and shape[0] * q**2 <= _MOST_ENTRIES
    return "multiclass" if fits else "binary"


def _check_options(
    fisher: str,
    ridge: float,
    labeled_weight: str,
    oversample: float,
    num_candidates: int | None,
    chunk_size: int,
) -> None:
    check_choice(fisher, "fisher", Fisher)
    check_choice(labeled_weight, "labeled_weight", LabeledWeight)
    check_number(ridge, "ridge", least=0, above=True)
    check_number(oversample, "oversample", least=1)
    check_positive(chunk_size, "chunk_size")
    if num_candidates is not None:
        check_positive(num_candidates, "num_candidates")


def _candidates(
    key: jax.Array, pool: Pool, batch_size: int, num_candidates: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """List the rows that are looked at, and which of them may be picked."""
    free = unlabeled(pool)
    if num_candidates is not None and num_candidates < len(free):
        drawn = np.asarray(jax.random.permutation(key, len(free)))
        rows = np.sort(free[drawn[: max(num_candidates, batch_size)]])
        return rows, np.ones(len(rows), bool)
    # All rows, whatever is labelled: so that rounds share programs.
    rows = np.arange(np.shape(pool.features)[0])
    return rows, np.isin(rows, free)


def _weights(num_labeled: int, batch_size: int, labeled_weight: str) -> tuple[float, float]:
    """Weigh the information of each labelled and of each picked sample."""
    if labeled_weight == "sum":
        return 1.0, 1.0
    if labeled_weight == "mean":
        return 1 / max(num_labeled, 1), 1.0
    both = num_labeled + batch_size
    return 1 / both, batch_size / both


def _padded(hidden: jax.Array, root: jax.Array, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Take rows, and rows without information up to a power of two: rounds share programs."""
    padded = padded_rows(rows)
    real = jnp.arange(len(padded)) < len(rows)
    return hidden[padded], root[padded] * real[:, None, None]


def _information(hidden: jax.Array, root: jax.Array, chunk_size: int) -> np.ndarray:
    """Sum I over samples: ``[q d, q d]`` float64, of sums in float32 over chunks."""
    q, dim = root.shape[1], hidden.shape[1]
    total = np.zeros((q, dim, q * dim))
    size = min(chunk_size, max(1, len(hidden)))
    for start in range(0, len(hidden), size):
        h, r = hidden[start : start + size], root[start : start + size]
        for a in range(q):
            total[a] += np.asarray(_information_rows(h, r, a))
    square = total.reshape(q * dim, q * dim)
    return (square + square.T) / 2


@jax.jit
@jax.default_matmul_precision("highest")
def _information_rows(hidden: jax.Array, root: jax.Array, a: int) -> jax.Array:
    covariance = jnp.einsum("nr,nbr->nb", root[:, a], root)
    weighted = covariance[:, :, None] * hidden[:, None]
    return hidden.T @ weighted.reshape(len(hidden), -1)


def _forward(
    hidden: jax.Array,
    root: jax.Array,
    start: np.ndarray,
    everyone: np.ndarray,
    open_: np.ndarray,
    steps: int,
    chunk_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick ``steps`` samples, each by its gain: their positions and gains."""
    n = len(hidden)
    count = -(-n // chunk_size)
    size = -(-n // count)

    def cut(values: jax.Array) -> jax.Array:
        widths = ((0, count * size - n),) + ((0, 0),) * (values.ndim - 1)
        return jnp.pad(values, widths).reshape(count, size, *values.shape[1:])

    chunks = cut(hidden), cut(jnp.swapaxes(root, 1, 2))
    picks, gains, open_ = np.zeros(0, np.int64), np.zeros(0), open_.copy()
    while len(picks) < steps:
        picked = information(np.asarray(hidden[picks]), np.asarray(root[picks]))
        inverse = np.linalg.inv(start + picked)
        bound = inverse @ everyone @ inverse
        # Gains are proportional to this matrix, whose entries may be beyond float32.
        unit = float(np.abs(bound).max()) or 1.0
        matrices = [jnp.asarray(m + m.T, jnp.float32) / 2 for m in (inverse, bound / unit)]
        left = steps - len(picks)
        new, gained, done = _greedy(*chunks, *matrices, cut(jnp.asarray(open_)), left, steps=steps)
        new = np.asarray(new)[: int(done)]
        open_[new] = False
        picks = np.concatenate([picks, new])
        gains = np.concatenate([gains, np.asarray(gained, np.float64)[: int(done)] * unit])
    return picks, gains.astype(np.float32)


@functools.partial(jax.jit, static_argnames="steps")
@jax.default_matmul_precision("highest")
def _greedy(
    hidden: jax.Array,
    root: jax.Array,
    inverse: jax.Array,
    bound: jax.Array,
    open_: jax.Array,
    most: int,
    *,
    steps: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pick up to ``most`` samples while the gains have not fallen.

    Args:
      hidden: ``[chunks, size, d]``.
      root: ``[chunks, size, q, q]``, transposed.
      inverse: ``[q d, q d]`` M⁻¹.
      bound: ``[q d, q d]`` M⁻¹ F M⁻¹, up to a factor.
      open_: ``[chunks, size]`` bool, which may be picked.
      most: how many, at most ``steps``.
      steps: length of what is returned.

    Returns:
      Positions ``[steps]`` and gains ``[steps]``, and how many of them are in use.
    """
    q = root.shape[-1]

    def blocks(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        inner, outer = _blocks(*chunk, inverse), _blocks(*chunk, bound)
        return inner, outer, _gains(inner, outer)

    def best(state: _State, open_: jax.Array) -> tuple[jax.Array, jax.Array]:
        gains = jnp.where(open_, state.gains, -jnp.inf).ravel()
        return jnp.argmax(gains), jnp.max(gains)

    def go_on(carry: tuple) -> jax.Array:
        state, open_, _, gains, i = carry
        return (i < most) & ((i == 0) | (best(state, open_)[1] >= _FALL * gains[0]))

    def body(carry: tuple) -> tuple:
        state, open_, picks, gains, i = carry
        pick, gain = best(state, open_)
        picks, gains = picks.at[i].set(pick.astype(jnp.int32)), gains.at[i].set(gain)
        at = jnp.unravel_index(pick, open_.shape)
        vectors = (root[at].T[:, None, :] * hidden[at][None, :, None]).reshape(-1, q)
        lower = jnp.linalg.cholesky(state.inner[at] + jnp.eye(q, dtype=hidden.dtype))

        def whitened(rows: jax.Array) -> jax.Array:
            return triangular_solve(lower, rows, lower=True, transpose_a=True)

        # M⁻¹ loses g gᵀ, and M⁻¹ F M⁻¹ loses g kᵀ + k gᵀ.
        g, k = whitened(state.inverse @ vectors), whitened(state.bound @ vectors)
        middle = triangular_solve(lower, whitened(state.outer[at]), left_side=True, lower=True)
        k = k - g @ middle / 2
        cross = g @ k.T
        changes = jnp.concatenate([g, k], axis=1).reshape(q, -1, 2, q)

        def change(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            hidden, root, inner, outer = chunk
            seen = jnp.einsum("sd,adkr->skar", hidden, changes)
            g, k = root @ seen[:, 0], root @ seen[:, 1]
            both = k @ jnp.swapaxes(g, 1, 2)
            inner = inner - g @ jnp.swapaxes(g, 1, 2)
            outer = outer - both - jnp.swapaxes(both, 1, 2)
            return inner, outer, _gains(inner, outer)

        after = jax.lax.map(change, (hidden, root, state.inner, state.outer))
        state = _State(state.inverse - g @ g.T, state.bound - cross - cross.T, *after)
        return state, open_.at[at].set(False), picks, gains, i + 1

    state = _State(inverse, bound, *jax.lax.map(blocks, (hidden, root)))
    empty = (jnp.zeros(steps, jnp.int32), jnp.zeros(steps, hidden.dtype), jnp.int32(0))
    _, _, picks, gains, done = jax.lax.while_loop(go_on, body, (state, open_, *empty))
    return picks, gains, done


def _blocks(hidden: jax.Array, root: jax.Array, matrix: jax.Array) -> jax.Array:
    """Vᵀ A V of each sample: ``[size, q, q]``; ``root`` is transposed."""
    q, dim = root.shape[1], hidden.shape[1]

    def row(rows: jax.Array) -> jax.Array:
        return jnp.sum((hidden @ rows).reshape(-1, q, dim) * hidden[:, None], axis=2)

    between = jnp.moveaxis(jax.lax.map(row, matrix.reshape(q, dim, q * dim)), 0, 1)
    return root @ between @ jnp.swapaxes(root, 1, 2)


def _gains(inner: jax.Array, outer: jax.Array) -> jax.Array:
    """tr((1 + C)⁻¹ D) of each sample."""
    q = inner.shape[-1]
    if q == 1:
        return (outer / (1 + inner))[:, 0, 0]
    one = jnp.eye(q, dtype=inner.dtype)
    lower = jnp.linalg.cholesky(inner + one)
    whiten = triangular_solve(lower, jnp.broadcast_to(one, inner.shape), left_side=True, lower=True)
    return jnp.sum((whiten @ outer) * whiten, axis=(1, 2))


BAIT = Strategy("bait", select_bait, needs=frozenset({"probs", "hidden"}))
