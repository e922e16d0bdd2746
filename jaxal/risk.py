"""Greedy selection by the look-ahead risk over the pool under cluster pseudo-labels.

The objective (NTKCPL, arXiv 2306.04099, its selection rule): pick the candidate after which the
prediction of the retrained head disagrees least, over the whole pool, with the pseudo-labels c:

    zero-one:  sum_x w(x) 1[argmax F'(x) != c(x)]        the paper's
    squared:   sum_x w(x) |F'(x) - onehot(c(x))|^2       ours: smooth where labels are few

Squared risk. With E = F - Y, R the residual kernel, p = R[x',x'] + ridge and d = y' - F[x'],

    risk(x') = |E|^2 + 2/p <R[:,x']^T E, d> + |R[:,x']|^2 |d|^2 / p^2

so G = R^T E (candidates x clusters) and s = |R[:,x']|^2 score every candidate. A commit changes
both by rank-one terms that need one product t = R^T (R[:,x*] / p): a pick costs one pass over the
kernel, and nothing of size pool x candidates is written.

Zero-one risk. A tie counts as wrong, so what no label reaches is never right by chance. Evaluating
every candidate costs pool x candidates x clusters a pick; `zero_one_risk` evaluates a shortlist.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxal.regression import Posterior, residual_column

__all__ = ["GreedyInfo", "greedy", "squared_risks", "zero_one_risk"]


class GreedyInfo(NamedTuple):
    """What a greedy selection saw, one entry a pick."""

    squared_risk: jax.Array  # [b] float: weighted mean squared error to the pseudo-labels after it
    zero_one_risk: jax.Array  # [b] float in [0, 1]: weighted share of disagreement after it


class _Scores(NamedTuple):
    """Sufficient statistics of the squared risk of every candidate."""

    cross: jax.Array  # [m, k] float: G = R^T w E
    norm: jax.Array  # [m] float: s = sum_x w R[x, x']^2
    diagonal: jax.Array  # [m] float: R[x', x']
    gap: jax.Array  # [m, k] float: d = y' - F[x']
    total: jax.Array  # () float: current risk sum_x w |E|^2


@partial(jax.jit, static_argnames=("batch_size", "risk", "shortlist"))
def greedy(
    state: Posterior,
    pseudo_labels: ArrayLike,
    weights: ArrayLike,
    available: ArrayLike,
    *,
    batch_size: int,
    risk: Literal["squared", "zero_one"] = "squared",
    shortlist: int = 32,
) -> tuple[jax.Array, GreedyInfo, Posterior]:
    """Pick candidates one at a time, each by the least risk after it is added.

    Holds O(pool · (candidates + clusters + capacity)).

    Args:
      state: posterior with room for ``batch_size`` commits.
      pseudo_labels: ``[n]`` integers in ``0..k-1``.
      weights: ``[n]`` float >= 0, weight of each pool sample in the risk, summing to one.
      available: ``[m]`` bool, candidates that may be picked; at least ``batch_size`` of them.
      batch_size: number of picks.
      risk: which risk chooses.
      shortlist: with ``zero_one``, how many candidates of least squared risk are evaluated.

    Returns:
      ``[batch_size]`` int32 candidate columns in the order picked, the risks, and the posterior.
    """
    pseudo_labels = jnp.asarray(pseudo_labels)
    weights = jnp.asarray(weights, state.mean.dtype)
    onehot = jax.nn.one_hot(pseudo_labels, state.mean.shape[1], dtype=state.mean.dtype)
    targets = onehot[state.rows]

    def body(i: jax.Array, carry: tuple) -> tuple:
        state, scores, open_, picks, squared, zero_one = carry
        risks = jnp.where(open_, squared_risks(scores, state.ridge), jnp.inf)
        column = jnp.argmin(risks)
        if risk == "zero_one":
            _, best = jax.lax.top_k(-risks, min(shortlist, risks.shape[0]))
            exact = jax.lax.map(
                lambda c: _zero_one_after(state, c, targets[c], pseudo_labels, weights), best
            )
            exact = jnp.where(open_[best], exact, jnp.inf)
            column = best[jnp.argmin(exact)]
        state, scores = _advance(state, scores, column, targets[column], onehot, weights)
        return (
            state,
            scores,
            open_.at[column].set(False),
            picks.at[i].set(column.astype(jnp.int32)),
            squared.at[i].set(scores.total),
            zero_one.at[i].set(zero_one_risk(state.mean, pseudo_labels, weights)),
        )

    empty = jnp.zeros(batch_size, state.mean.dtype)
    start = (
        state,
        _start(state, onehot, weights),
        jnp.asarray(available),
        jnp.zeros(batch_size, jnp.int32),
        empty,
        empty,
    )
    state, _, _, picks, squared, zero_one = jax.lax.fori_loop(0, batch_size, body, start)
    return picks, GreedyInfo(squared, zero_one), state


def squared_risks(scores: _Scores, ridge: jax.Array) -> jax.Array:
    """Score every candidate: ``[m]`` squared risk after it is added."""
    gain = 1 / (scores.diagonal + ridge)
    cross = jnp.sum(scores.cross * scores.gap, axis=1)
    return scores.total + 2 * gain * cross + gain**2 * scores.norm * jnp.sum(scores.gap**2, axis=1)


def zero_one_risk(mean: jax.Array, pseudo_labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weigh the pool samples whose prediction is not strictly largest at their pseudo-label.

    Args:
      mean: ``[n, k]`` prediction.
      pseudo_labels: ``[n]`` integers in ``0..k-1``.
      weights: ``[n]`` float.

    Returns:
      Scalar.
    """
    own = jnp.take_along_axis(mean, pseudo_labels[:, None], axis=1)
    is_own = jnp.arange(mean.shape[1]) == pseudo_labels[:, None]
    rival = jnp.max(jnp.where(is_own, -jnp.inf, mean), axis=1)
    return jnp.sum(weights * (own[:, 0] <= rival))


def _zero_one_after(
    state: Posterior,
    column: jax.Array,
    target: jax.Array,
    pseudo_labels: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    raw = residual_column(state, column)
    row = state.rows[column]
    gain = raw / (raw[row] + state.ridge)
    mean = state.mean + gain[:, None] * (target - state.mean[row])
    return zero_one_risk(mean, pseudo_labels, weights)


def _start(state: Posterior, onehot: jax.Array, weights: jax.Array) -> _Scores:
    residual, rows = state.residual, state.rows
    error = state.mean - onehot
    weighted = weights[:, None] * error
    return _Scores(
        cross=residual.T @ weighted,
        norm=jnp.einsum("nm,nm,n->m", residual, residual, weights),
        diagonal=residual[rows, jnp.arange(rows.shape[0])],
        gap=(onehot - state.mean)[rows],
        total=jnp.sum(weighted * error),
    )


def _advance(
    state: Posterior,
    scores: _Scores,
    column: jax.Array,
    target: jax.Array,
    onehot: jax.Array,
    weights: jax.Array,
) -> tuple[Posterior, _Scores]:
    """Commit a candidate and bring the scores up to date."""
    raw = residual_column(state, column)
    row = state.rows[column]
    pivot = raw[row] + state.ridge
    gain = raw / pivot
    gap = target - state.mean[row]
    across = raw[state.rows]  # R[x', x*] for every candidate, by symmetry its row
    weighted = weights * gain
    product = weighted @ state.residual - state.factor[state.rows] @ (weighted @ state.factor)
    energy = weighted @ gain
    drift = weighted @ (state.mean - onehot)
    scores = _Scores(
        cross=scores.cross
        + product[:, None] * gap
        - across[:, None] * drift
        - (across * energy)[:, None] * gap,
        norm=scores.norm - 2 * across * product + across**2 * energy,
        diagonal=scores.diagonal - across**2 / pivot,
        gap=scores.gap - gain[state.rows][:, None] * gap,
        total=scores.total + 2 * drift @ gap + energy * gap @ gap,
    )
    state = state._replace(
        mean=state.mean + gain[:, None] * gap,
        factor=state.factor.at[:, state.num_commits].set(raw / jnp.sqrt(pivot)),
        num_commits=state.num_commits + 1,
    )
    return state, scores
