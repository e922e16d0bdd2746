"""ActiveFT selection (arXiv 2303.14382): centroids trained to follow the pool, and their samples.

With f_i the L2-normalised features, θ_j the centroids and c_i the centroid most similar to f_i, the
loss (section 3.2) is

    L(θ) = - mean_i f_i·θ_{c_i} / τ + λ mean_j log Σ_{k≠j} exp(θ_j·θ_k / τ)

No gradient passes through c_i. So what the pool adds to the gradient is -Σ_{i: c_i=j} f_i / (n τ):
a step costs one matrix product of pool and centroids, of which nothing but each sample's largest
entry is kept, and one sum of rows a centroid. What is differentiated has the size of the centroids.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxal.checks import check_choice, check_number, check_positive
from jaxal.chunking import DEFAULT_CHUNK_SIZE, map_rows, padded_rows
from jaxal.scaling import unit_rows
from jaxal.select.base import Pool, Strategy, check_pool, free_mask, unlabeled

__all__ = ["ACTIVEFT", "ActiveftInfo", "select_activeft"]

Variant = Literal["paper", "code"]

_PRECISION = jax.lax.Precision.HIGHEST
_BLOCK = 64  # centroids compared with the whole pool at once, when each takes its sample


class ActiveftInfo(NamedTuple):
    """How the centroids were trained and how near their samples are."""

    losses: tuple[float, ...]  # before each step
    similarity: jax.Array  # [batch_size] float32, each pick's cosine to its centroid


class _Fixed(NamedTuple):
    """The centroids that stay where they are: the labelled samples, padded."""

    rows: jax.Array  # [l, d]
    real: jax.Array  # [l] bool
    repulsion: jax.Array  # [l] log-sum-exp of similarity / τ to the other ones


class _Pool(NamedTuple):
    """The pool in padded chunks."""

    x: jax.Array  # [chunks, size, d]
    weights: jax.Array  # [chunks, size], 1 / n, zero for padding
    similarity: jax.Array  # [chunks, size] to the nearest fixed centroid, -inf without one
    nearest: jax.Array  # [chunks, size] int32, which it is


def select_activeft(
    key: jax.Array,
    pool: Pool,
    *,
    batch_size: int,
    temperature: float = 0.07,
    num_steps: int = 300,
    learning_rate: float = 1e-3,
    balance: float = 1.0,
    variant: Variant = "paper",
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[jax.Array, ActiveftInfo]:
    """Train ``batch_size`` centroids and choose the sample most similar to each.

    The centroids start at random unlabelled samples, are optimised by Adam and brought back to
    length 1 after each step. At the end they take, one after the other in the order they were
    drawn, the most similar sample that is still free: the paper takes the most similar one, its
    code gives way where it is taken.

    The paper chooses once. For later rounds, ours: labelled samples are centroids too, in both
    terms of the loss, that no step moves. A centroid without another one is not repelled.

    ``variant="code"`` is the loss of the published code: mean_i -log(s_i / (s_i + λ Σ_k
    exp(θ_{c_i}·θ_k / τ))) with s_i = exp(f_i·θ_{c_i} / τ), where k may be c_i, the gradient passes
    through one of the two θ only, and centroids are normalised within the loss.

    Args:
      key: which samples the centroids start at.
      pool: features, labelled rows.
      batch_size: how many.
      temperature: τ, above 0.
      num_steps: steps of Adam.
      learning_rate: its learning rate, above 0.
      balance: λ, 0 or more.
      variant: whose loss.
      chunk_size: rows compared with the centroids at once; changes no result but by rounding.

    Returns:
      Rows ``[batch_size]`` int32, one a centroid, ties to the lower index; the losses and
      similarities. Holds ``O(n · d + chunk_size · (b + l) + b² + l²)`` numbers for ``b`` picks and
      ``l`` labelled samples; a step costs ``O(n · d · b)``.

    Raises:
      ValueError: a malformed pool or option, more samples than are left, or a loss that is not
        finite with these options.
    """
    check_number(temperature, "temperature", least=0, above=True)
    check_number(learning_rate, "learning_rate", least=0, above=True)
    check_number(balance, "balance", least=0)
    check_positive(num_steps, "num_steps")
    check_positive(chunk_size, "chunk_size")
    check_choice(variant, "variant", Variant)
    pool = check_pool(pool, batch_size, ("features",), "activeft")
    x = unit_rows(pool.features)
    free = unlabeled(pool)
    start = free[np.asarray(jax.random.permutation(key, len(free)))[:batch_size]]
    fixed = _fixed(x, np.asarray(pool.labeled), temperature)
    centroids, losses = _train(
        _chunks(x, fixed, chunk_size),
        x[start],
        fixed,
        (temperature, learning_rate, balance),
        num_steps=num_steps,
        variant=variant,
    )
    losses = np.asarray(losses)
    if not np.isfinite(losses).all():
        raise ValueError(
            f"temperature {temperature}, learning_rate {learning_rate}, balance {balance}: "
            f"expected finite losses, found {losses[~np.isfinite(losses)][0]} "
            f"at step {np.argmin(np.isfinite(losses))}"
        )
    picks, similarity = _take(x, centroids, jnp.asarray(free_mask(pool)))
    return picks, ActiveftInfo(tuple(losses.tolist()), similarity)


def _fixed(x: jax.Array, labeled: np.ndarray, temperature: float) -> _Fixed:
    """Gather the labelled samples, padded to a power of two so that rounds share programs."""
    padded = padded_rows(labeled)
    real = jnp.arange(len(padded)) < len(labeled)
    rows, ids = x[padded], np.arange(len(padded), dtype=np.int32)

    def repulsion(of: jax.Array, own: jax.Array) -> jax.Array:
        return _repulsion(of, rows, real, temperature, own)

    return _Fixed(rows, real, map_rows(repulsion, rows, ids))


@jax.jit
def _repulsion(
    of: jax.Array,
    others: jax.Array,
    real: jax.Array,
    temperature: jax.Array | float,
    own: jax.Array | None = None,
) -> jax.Array:
    """Log-sum-exp of each row's similarity / τ to the other rows; -inf where there is none.

    Args:
      of: ``[m, d]``.
      others: ``[k, d]``.
      real: ``[k]`` bool, which of the others count.
      temperature: τ.
      own: ``[m]`` int, which of the others each row is itself and does not count for it.
    """
    scores = jnp.matmul(of, others.T, precision=_PRECISION) / temperature
    counted = jnp.broadcast_to(real, scores.shape)
    if own is not None:
        counted = counted & (jnp.arange(len(others)) != own[:, None])
    some = jnp.any(counted, axis=1)
    # The gradient of a sum of nothing shall be zero, not NaN: no infinity enters the logarithm.
    scores = jnp.where(counted | ~some[:, None], scores, -jnp.inf)
    return jnp.where(some, jax.nn.logsumexp(scores, axis=1), -jnp.inf)


def _chunks(x: jax.Array, fixed: _Fixed, chunk_size: int) -> _Pool:
    """Cut the pool in equal chunks; similarities to what is fixed are computed here, once."""
    n, dim = x.shape
    similarity, nearest = map_rows(functools.partial(_to_fixed, fixed), x, chunk_size=chunk_size)
    count = -(-n // chunk_size)
    size = -(-n // count)
    padding = count * size - n

    def cut(values: jax.Array) -> jax.Array:
        return jnp.pad(values, (0, padding)).reshape(count, size)

    rows = jnp.pad(x, ((0, padding), (0, 0))).reshape(count, size, dim)
    return _Pool(rows, cut(jnp.full(n, 1 / n)), cut(similarity), cut(nearest))


@jax.jit
def _to_fixed(fixed: _Fixed, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    scores = jnp.matmul(fixed.rows, x.T, precision=_PRECISION)
    return _largest(jnp.where(fixed.real[:, None], scores, -jnp.inf))


def _largest(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the largest of each column and the lowest row that has it."""
    # Two plain reductions over the first axis take half the time of argmax.
    best = jnp.max(scores, axis=0)
    ids = jnp.arange(len(scores), dtype=jnp.int32)[:, None]
    return best, jnp.min(jnp.where(scores == best, ids, len(scores) - 1), axis=0)


@functools.partial(jax.jit, static_argnames=("num_steps", "variant"))
def _train(
    pool: _Pool,
    start: jax.Array,
    fixed: _Fixed,
    rates: tuple[float, float, float],
    *,
    num_steps: int,
    variant: Variant,
) -> tuple[jax.Array, jax.Array]:
    """Optimise the centroids: ``[b, d]`` of length 1, and the loss before each step."""
    temperature, learning_rate, balance = rates
    optimizer = optax.adam(learning_rate)
    loss = _paper_loss if variant == "paper" else _code_loss

    def step(carry: tuple, _: None) -> tuple[tuple, jax.Array]:
        centroids, state = carry
        gradient, value = jax.grad(loss, has_aux=True)(centroids, pool, fixed, temperature, balance)
        updates, state = optimizer.update(gradient, state)
        centroids = centroids + updates
        if variant == "paper":
            centroids = unit_rows(centroids)
        return (centroids, state), value

    carry = (start, optimizer.init(start))
    (centroids, _), losses = jax.lax.scan(step, carry, length=num_steps)
    return unit_rows(centroids), losses


def _paper_loss(
    centroids: jax.Array, pool: _Pool, fixed: _Fixed, temperature: jax.Array, balance: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give a scalar whose gradient is the loss's, and the loss."""
    value, sums, _ = _sweep(centroids, pool, None, temperature)
    everyone = jnp.ones(len(centroids), bool)
    own = jnp.logaddexp(
        _repulsion(centroids, centroids, everyone, temperature, jnp.arange(len(centroids))),
        _repulsion(centroids, fixed.rows, fixed.real, temperature),
    )
    theirs = jnp.logaddexp(
        fixed.repulsion, _repulsion(fixed.rows, centroids, everyone, temperature)
    )
    # Without another centroid there is nothing to be repelled by.
    total = jnp.sum(jnp.where(jnp.isfinite(own), own, 0))
    total = total + jnp.sum(jnp.where(fixed.real, theirs, 0))
    repulsion = balance * total / (len(centroids) + jnp.sum(fixed.real))
    return repulsion - jnp.sum(sums * centroids) / temperature, repulsion + value


def _code_loss(
    centroids: jax.Array, pool: _Pool, fixed: _Fixed, temperature: jax.Array, balance: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give a scalar whose gradient is the loss's, and the loss."""
    centroids = _normalised(centroids)
    rows = jnp.concatenate([jax.lax.stop_gradient(centroids), fixed.rows])
    real = jnp.concatenate([jnp.ones(len(centroids), bool), fixed.real])
    own = _repulsion(centroids, rows, real, temperature)
    theirs = _repulsion(fixed.rows, rows, real, temperature)
    shift = jnp.log(balance)  # -inf is no repulsion
    value, sums, mass = _sweep(centroids, pool, (own + shift, theirs + shift), temperature)
    return jnp.sum(mass * own) - jnp.sum(sums * centroids) / temperature, value


def _normalised(centroids: jax.Array) -> jax.Array:
    squared = jnp.sum(centroids**2, axis=1, keepdims=True)
    # A zero sample makes a zero centroid, which has no direction to move in.
    return jnp.where(squared > 0, centroids * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), 0)


def _sweep(
    centroids: jax.Array,
    pool: _Pool,
    repulsion: tuple[jax.Array, jax.Array] | None,
    temperature: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Send the pool to its centroids.

    Args:
      centroids: ``[b, d]``.
      pool: the pool.
      repulsion: log of what repels each centroid, ``[b]`` and of the fixed ones ``[l]``, for the
        loss of the code; None for that of the paper.
      temperature: τ.

    Returns:
      What the pool adds to the loss; ``[b, d]`` sums of each centroid's samples times their
      weights; ``[b]`` sums of these weights. A weight is 1 / n or, with ``repulsion``, what the
      loss of the code gains by a sample that comes nearer.
    """
    centroids, repulsion = jax.lax.stop_gradient((centroids, repulsion))
    count = len(centroids)

    def chunk(carry: tuple, chunk: _Pool) -> tuple[tuple, None]:
        value, sums, mass = carry
        best, own = _largest(jnp.matmul(centroids, chunk.x.T, precision=_PRECISION))
        # Among equals the labelled sample: nothing is to be gained there.
        own = jnp.where(best > chunk.similarity, own, count)
        logit = jnp.maximum(best, chunk.similarity) / temperature
        weights = chunk.weights
        if repulsion is None:
            value = value - weights @ logit
        else:
            mine, theirs = repulsion
            pushed = jnp.where(own < count, mine[own], theirs[chunk.nearest]) - logit
            value = value + weights @ jax.nn.softplus(pushed)
            weights = weights * jax.nn.sigmoid(pushed)
        mass = mass + jax.ops.segment_sum(weights, own, count + 1)[:count]
        return (value, sums + _sums(chunk.x, weights, own, count), mass), None

    zero = (jnp.zeros(()), jnp.zeros_like(centroids), jnp.zeros(count))
    return jax.lax.scan(chunk, zero, pool)[0]


def _sums(x: jax.Array, weights: jax.Array, own: jax.Array, count: int) -> jax.Array:
    def scatter() -> jax.Array:
        return jax.ops.segment_sum(x * weights[:, None], own, count + 1)[:count]

    def product() -> jax.Array:
        # Accelerators add scattered rows in no fixed order; a product keeps the result repeatable.
        members = jax.nn.one_hot(own, count, axis=0, dtype=x.dtype) * weights
        return jnp.matmul(members, x, precision=_PRECISION)

    return jax.lax.platform_dependent(cpu=scatter, default=product)


@jax.jit
def _take(x: jax.Array, centroids: jax.Array, free: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give each centroid, in order, the most similar sample that no other one has taken."""
    count = len(centroids)
    blocks = -(-count // _BLOCK)
    padded = jnp.pad(centroids, ((0, blocks * _BLOCK - count), (0, 0)))

    def block(free: jax.Array, centroids: jax.Array) -> tuple[jax.Array, tuple]:
        scores = jnp.matmul(centroids, x.T, precision=_PRECISION)

        def one(free: jax.Array, scores: jax.Array) -> tuple[jax.Array, tuple]:
            best = jnp.argmax(jnp.where(free, scores, -jnp.inf)).astype(jnp.int32)
            return free.at[best].set(False), (best, scores[best])

        return jax.lax.scan(one, free, scores)

    _, (picks, similarity) = jax.lax.scan(block, free, padded.reshape(blocks, _BLOCK, -1))
    return picks.reshape(-1)[:count], similarity.reshape(-1)[:count]


ACTIVEFT = Strategy("activeft", select_activeft, cold_start=True)
