"""Greedy selection by the look-ahead risk over the pool under cluster pseudo-labels.

The objective (NTKCPL, arXiv 2306.04099, its selection rule): pick the candidate after which the
prediction of the retrained head disagrees least, over the whole pool, with the pseudo-labels c:

    zero-one:  sum_x w(x) 1[argmax F'(x) != c(x)]        the paper's
    squared:   sum_x w(x) |F'(x) - s onehot(c(x))|^2     ours: smooth where labels are few

The scale s says what a prediction is worth. Against none (F = 0, where no label reaches), a right
one gains 2s - 1 and a wrong one loses 1, so the first label of a group that is cut into 2s clusters
or more gains nothing: right for one of them, wrong for the others. With s = 1 whole groups would
stay unlabelled where there are more clusters than groups; with s = 2, only those cut into four or
more.

Squared risk. With Y = onehot(c), E = F - s Y, R the residual kernel, p = R[x',x'] + ridge and
d = y' - F[x'],

    risk(x') = |E|^2 + 2/p <R[:,x']^T E, d> + |R[:,x']|^2 |d|^2 / p^2

so G = R^T E (candidates x clusters) and q = |R[:,x']|^2 score every candidate. A commit changes
both by rank-one terms that need one product t = R^T (R[:,x*] / p): a pick costs one pass over the
kernel, and nothing of size pool x candidates is written.

Zero-one risk. A tie counts as wrong, so what no label reaches is never right by chance. Evaluating
every candidate would cost pool x candidates x clusters a pick. A sample that is wrong now can only
become right if the candidate moves its pseudo-label past the cluster predicted now, which is one
comparison a sample and candidate and gives a lower bound of the candidate's risk: candidates are
evaluated in the order of their bounds until no bound is under the best risk found. The pick is the
exact one; ties go to the lesser squared risk.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxal.checks import (
    check_batch_size,
    check_finite,
    check_labels,
    check_number,
    check_positive,
    is_traced,
)
from jaxal.regression import Posterior, fold, pivot, residual_column

__all__ = ["GreedyInfo", "greedy", "zero_one_risk"]


class GreedyInfo(NamedTuple):
    """What a greedy selection saw, one entry a pick."""

    squared_risk: jax.Array  # [b] float: weighted squared error to the scaled targets after it
    zero_one_risk: jax.Array  # [b] float in [0, 1]: weighted share of disagreement after it
    disagreement: jax.Array  # [b] float in [0, 1]: share of the pool that disagrees after it
    evaluated: jax.Array  # [b] int32: candidates whose zero-one risk was evaluated for it
    slack: jax.Array  # [b] float >= 0: how much less the zero-one risk of another may be; 0: exact


class _Problem(NamedTuple):
    """What is to be predicted, and what it counts."""

    pseudo_labels: jax.Array  # [n] int32
    weights: jax.Array  # [n] float
    target_scale: jax.Array  # () float


class _Scores(NamedTuple):
    """Sufficient statistics of the squared risk of every candidate."""

    cross: jax.Array  # [m, k] float: G = R^T w E
    norm: jax.Array  # [m] float: q = sum_x w R[x, x']^2
    diagonal: jax.Array  # [m] float: R[x', x']
    gap: jax.Array  # [m, k] float: d = y' - F[x']
    total: jax.Array  # () float: current risk sum_x w |E|^2


def greedy(
    state: Posterior,
    pseudo_labels: ArrayLike,
    weights: ArrayLike,
    available: ArrayLike,
    *,
    batch_size: int,
    risk: Literal["squared", "zero_one"] = "squared",
    target_scale: float = 1.0,
    max_evaluations: int | None = None,
) -> tuple[jax.Array, GreedyInfo, Posterior]:
    """Pick candidates one at a time, each by the least risk after it is added.

    Holds O(pool · (candidates + clusters + capacity)), the candidates' columns twice where the
    state has no room for all picks: it is then folded (`jaxal.regression.fold`) as it fills up,
    which changes no result but by rounding. A pick reads all of its capacity: 128 does for many.

    Args:
      state: posterior with room for a commit or more.
      pseudo_labels: ``[n]`` integers in ``0..k-1``.
      weights: ``[n]`` float >= 0, weight of each pool sample in the risk, summing to one.
      available: ``[m]`` bool, candidates that may be picked; at least ``batch_size`` of them.
      batch_size: number of picks.
      risk: which risk chooses.
      target_scale: s of the squared risk, 1 or more.
      max_evaluations: with ``zero_one``, how many candidates are evaluated a pick at the most (in
        blocks of 16); None is as many as exactness takes.

    Returns:
      ``[batch_size]`` int32 candidate columns in the order picked, the risks, and the posterior.

    Raises:
      ValueError: arguments of another shape or range than said above, or a posterior that is not
        finite. Where arguments are traced, their values are not looked at.
    """
    check_positive(batch_size, "batch_size")
    if risk not in ("squared", "zero_one"):
        raise ValueError(f"risk: expected 'squared' or 'zero_one', found {risk!r}")
    if not is_traced(target_scale):
        check_number(target_scale, "target_scale", least=1)
    if max_evaluations is not None:
        check_positive(max_evaluations, "max_evaluations")
    _check_state(state)
    _check_pool(state.mean, pseudo_labels, weights)
    _check_available(state, available, batch_size)
    problem = _Problem(
        jnp.asarray(pseudo_labels),
        jnp.asarray(weights, state.mean.dtype),
        jnp.asarray(target_scale, state.mean.dtype),
    )
    if is_traced(state.num_commits) or state.num_commits > 0:
        # What is scored below is the residual as it stands; the caller's is not given up.
        state = fold(state._replace(residual=jnp.array(state.residual)))
    capacity = state.factor.shape[1]
    open_, scores = jnp.asarray(available), _start(state, problem)
    found = []
    for start in range(0, batch_size, capacity):
        if start:
            # The first residual is the caller's.
            kept = state.residual if start > capacity else jnp.array(state.residual)
            state = fold(state._replace(residual=kept))
        count = min(capacity, batch_size - start)
        part, scores, open_, picks, info = _greedy(
            state, scores, problem, open_, count, risk=risk, max_evaluations=max_evaluations
        )
        state = state._replace(**part)
        found.append((picks[:count], jax.tree.map(lambda x, count=count: x[:count], info)))
    picks, info = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
    return picks, info, state


def _check_state(state: Posterior) -> None:
    check_finite(state.mean, "state.mean")
    check_finite(state.residual, "state.residual")


def _check_available(state: Posterior, available: ArrayLike, batch_size: int) -> None:
    if np.shape(available) != state.rows.shape or jnp.result_type(available) != np.bool_:
        raise ValueError(
            f"available: expected bool of shape {state.rows.shape}, "
            f"found {jnp.result_type(available)} of shape {np.shape(available)}"
        )
    if not is_traced(available):
        check_batch_size(batch_size, int(np.sum(np.asarray(available))))


def _check_pool(mean: ArrayLike, pseudo_labels: ArrayLike, weights: ArrayLike) -> None:
    n, k = np.shape(mean)
    if not is_traced(pseudo_labels):
        check_labels(pseudo_labels, k, "pseudo_labels", length=n)
    if np.shape(weights) != (n,):
        raise ValueError(f"weights: expected shape ({n},), found {np.shape(weights)}")
    check_finite(weights, "weights")
    if not is_traced(weights) and np.asarray(weights).min() < 0:
        raise ValueError("weights: expected numbers of zero or more")


@partial(jax.jit, static_argnames=("risk", "max_evaluations"))
@jax.default_matmul_precision("highest")
def _greedy(
    state: Posterior,
    scores: _Scores,
    problem: _Problem,
    available: jax.Array,
    count: jax.Array,
    *,
    risk: str,
    max_evaluations: int | None,
) -> tuple[dict[str, jax.Array], _Scores, jax.Array, jax.Array, GreedyInfo]:
    """Pick ``count`` candidates, for which the empty state has room.

    Returns:
      What of the state is new, which the residual is not: it would be held twice; the scores; what
      is still available; and the picks and what was seen, ``[capacity]``.
    """
    pseudo_labels, weights, _ = problem
    targets, wanted = _targets(state, problem)
    whole = state

    def body(i: jax.Array, carry: tuple) -> tuple:
        part, scores, open_, picks, info = carry
        state = whole._replace(**part)
        risks = jnp.where(open_, _squared_risks(scores, state.ridge), jnp.inf)
        if risk == "zero_one":
            column, evaluated, slack = _least_zero_one(
                state, targets, pseudo_labels, weights, risks, max_evaluations
            )
        else:
            column, evaluated, slack = jnp.argmin(risks), jnp.int32(0), jnp.zeros((), risks.dtype)
        state, scores = _advance(state, scores, column, targets[column], wanted, weights)
        wrong = _disagrees(state.mean, pseudo_labels).astype(weights.dtype)
        seen = GreedyInfo(scores.total, weights @ wrong, jnp.mean(wrong), evaluated, slack)
        info = jax.tree.map(lambda all_, one: all_.at[i].set(one), info, seen)
        picks = picks.at[i].set(column.astype(jnp.int32))
        return _changing(state), scores, open_.at[column].set(False), picks, info

    capacity = state.factor.shape[1]
    empty = jnp.zeros(capacity, state.mean.dtype)
    integers = jnp.zeros(capacity, jnp.int32)
    info = GreedyInfo(empty, empty, empty, integers, empty)
    start = (_changing(state), scores, available, integers, info)
    return jax.lax.fori_loop(0, count, body, start)


def _changing(state: Posterior) -> dict[str, jax.Array]:
    """Take what a commit changes."""
    return {"mean": state.mean, "factor": state.factor, "num_commits": state.num_commits}


def _targets(state: Posterior, problem: _Problem) -> tuple[jax.Array, jax.Array]:
    """Give the targets of the candidates ``[m, k]`` and what the pool shall be ``[n, k]``."""
    k, dtype = state.mean.shape[1], state.mean.dtype
    onehot = jax.nn.one_hot(problem.pseudo_labels, k, dtype=dtype)
    return onehot[state.rows], problem.target_scale * onehot


def _squared_risks(scores: _Scores, ridge: jax.Array) -> jax.Array:
    """Score every candidate: ``[m]`` squared risk after it is added."""
    gain = 1 / pivot(scores.diagonal, ridge)
    cross = jnp.sum(scores.cross * scores.gap, axis=1)
    return scores.total + 2 * gain * cross + gain**2 * scores.norm * jnp.sum(scores.gap**2, axis=1)


def zero_one_risk(mean: ArrayLike, pseudo_labels: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Weigh the pool samples whose prediction is not strictly largest at their pseudo-label.

    Args:
      mean: ``[n, k]`` prediction.
      pseudo_labels: ``[n]`` integers in ``0..k-1``.
      weights: ``[n]`` float >= 0.

    Returns:
      Scalar.

    Raises:
      ValueError: arguments of another shape or range; see `greedy`.
    """
    _check_pool(mean, pseudo_labels, weights)
    return _zero_one_risk(jnp.asarray(mean), jnp.asarray(pseudo_labels), jnp.asarray(weights))


def _zero_one_risk(mean: jax.Array, pseudo_labels: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(weights * _disagrees(mean, pseudo_labels))


def _disagrees(mean: jax.Array, pseudo_labels: jax.Array) -> jax.Array:
    """Tell, ``[n]`` bool, where the prediction is not strictly largest at the pseudo-label."""
    own = jnp.take_along_axis(mean, pseudo_labels[:, None], axis=1)
    is_own = jnp.arange(mean.shape[1]) == pseudo_labels[:, None]
    rival = jnp.max(jnp.where(is_own, -jnp.inf, mean), axis=1)
    return own[:, 0] <= rival


_BLOCK = 16  # candidates whose zero-one risk is evaluated between two looks at the bounds


def _least_zero_one(
    state: Posterior,
    targets: jax.Array,
    pseudo_labels: jax.Array,
    weights: jax.Array,
    squared: jax.Array,
    max_evaluations: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the candidate of least zero-one risk, best bound first.

    Returns:
      Its column, how many candidates were evaluated, and how much less an unevaluated one may have.
    """
    m = squared.shape[0]
    same = 4 * jnp.finfo(squared.dtype).eps  # sums of weights, which add up to one, err by less
    bounds = jnp.where(
        jnp.isfinite(squared), _zero_one_bounds(state, targets, pseudo_labels, weights), jnp.inf
    )
    order = jnp.lexsort((squared, bounds))
    padded = jnp.concatenate([order, jnp.full(_BLOCK, order[-1])])
    sorted_bounds = jnp.concatenate([bounds[order], jnp.full(_BLOCK, jnp.inf)])
    most = m if max_evaluations is None else min(m, max_evaluations)

    def after(column: jax.Array) -> jax.Array:
        raw = residual_column(state, column)
        row = state.rows[column]
        gain = raw / pivot(raw[row], state.ridge)
        mean = state.mean + gain[:, None] * (targets[column] - state.mean[row])
        return _zero_one_risk(mean, pseudo_labels, weights)

    def unsettled(carry: tuple) -> jax.Array:
        position, least, _, _ = carry
        return (position < most) & (sorted_bounds[position] <= least + same)

    def evaluate(carry: tuple) -> tuple:
        position, least, tie, column = carry
        block = jax.lax.dynamic_slice(padded, (position,), (_BLOCK,))
        risks = jnp.where(jnp.isfinite(squared[block]), jax.lax.map(after, block), jnp.inf)
        block_least = jnp.min(risks)
        # of those that tie within the block, the least squared risk
        inside = jnp.argmin(jnp.where(risks <= block_least + same, squared[block], jnp.inf))
        found, found_tie = risks[inside], squared[block][inside]
        better = (found < least - same) | ((found <= least + same) & (found_tie < tie))
        return (
            position + _BLOCK,
            jnp.where(better, found, least),
            jnp.where(better, found_tie, tie),
            jnp.where(better, block[inside], column),
        )

    infinite = jnp.asarray(jnp.inf, squared.dtype)
    start = (jnp.int32(0), infinite, infinite, order[0])
    position, least, _, column = jax.lax.while_loop(unsettled, evaluate, start)
    slack = jnp.maximum(least - sorted_bounds[position], 0.0)
    return column, jnp.minimum(position, m), slack


def _zero_one_bounds(
    state: Posterior, targets: jax.Array, pseudo_labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Bound every candidate's zero-one risk from below, ``[m]``."""
    mean, k = state.mean, state.mean.shape[1]
    is_own = jnp.arange(k) == pseudo_labels[:, None]
    rivals = jnp.where(is_own, -jnp.inf, mean)
    rival = jax.nn.one_hot(jnp.argmax(rivals, axis=1), k, dtype=mean.dtype)
    signs = is_own.astype(mean.dtype) - rival
    behind = -jnp.sum(signs * mean, axis=1)  # what the pseudo-label lacks to its strongest rival
    wrong = jnp.where(behind >= 0, weights, 0.0)
    tolerance = 16 * jnp.finfo(mean.dtype).eps * (1 + jnp.abs(behind))

    def bound(column: jax.Array) -> jax.Array:
        raw = residual_column(state, column)
        row = state.rows[column]
        moved = raw / pivot(raw[row], state.ridge) * (signs @ (targets[column] - mean[row]))
        return -jnp.sum(wrong * (moved >= behind - tolerance))

    columns = jnp.arange(state.rows.shape[0])
    return jnp.sum(wrong) + jax.lax.map(bound, columns, batch_size=128)


@jax.jit
@jax.default_matmul_precision("highest")
def _start(state: Posterior, problem: _Problem) -> _Scores:
    """Score candidates by a residual that holds all commits."""
    residual, rows, weights = state.residual, state.rows, problem.weights
    targets, wanted = _targets(state, problem)
    error = state.mean - wanted
    weighted = weights[:, None] * error
    return _Scores(
        cross=residual.T @ weighted,
        norm=jnp.einsum("nm,nm,n->m", residual, residual, weights),
        diagonal=residual[rows, jnp.arange(rows.shape[0])],
        gap=targets - state.mean[rows],
        total=jnp.sum(weighted * error),
    )


def _advance(
    state: Posterior,
    scores: _Scores,
    column: jax.Array,
    target: jax.Array,
    wanted: jax.Array,
    weights: jax.Array,
) -> tuple[Posterior, _Scores]:
    """Commit a candidate and bring the scores up to date."""
    raw = residual_column(state, column)
    row = state.rows[column]
    divisor = pivot(raw[row], state.ridge)
    gain = raw / divisor
    gap = target - state.mean[row]
    across = raw[state.rows]  # R[x', x*] for every candidate, by symmetry its row
    weighted = weights * gain
    product = weighted @ state.residual - state.factor[state.rows] @ (weighted @ state.factor)
    energy = weighted @ gain
    drift = weighted @ (state.mean - wanted)
    scores = _Scores(
        cross=scores.cross
        + product[:, None] * gap
        - across[:, None] * drift
        - (across * energy)[:, None] * gap,
        norm=scores.norm - 2 * across * product + across**2 * energy,
        diagonal=scores.diagonal - across**2 / divisor,
        gap=scores.gap - gain[state.rows][:, None] * gap,
        total=scores.total + 2 * drift @ gap + energy * gap @ gap,
    )
    state = state._replace(
        mean=state.mean + gain[:, None] * gap,
        factor=state.factor.at[:, state.num_commits].set(raw / jnp.sqrt(divisor)),
        num_commits=state.num_commits + 1,
    )
    return state, scores
